"""Files are written whole or not at all, and a run is never written over."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from flyball import run_folder
from flyball.errors import FlyballError, RunExistsError, RunFolderError
from flyball.files import write_whole

needs_permissions = pytest.mark.skipif(
    os.geteuid() == 0,
    reason="root may write anywhere; an unwritable folder is tested through a file in its place",
)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif fails == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_folder_becomes_a_run_folder(tmp_path: Path) -> None:
    assert run_folder.create(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b" / "checkpoints").is_dir()
    run_folder.create(tmp_path / "a" / "b")  # nothing ran in it yet


@pytest.mark.parametrize("left", ["config.toml", "events.jsonl"])
def test_a_folder_that_holds_a_run_is_refused_and_untouched(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("a run")
    with pytest.raises(RunExistsError, match=f"already holds a run .it has `{left}`.: name another folder") as caught:
        run_folder.create(tmp_path)
    assert isinstance(caught.value, FileExistsError | FlyballError)
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_a_folder_that_cannot_be_made_names_itself_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match=r"file/run` cannot be a run folder \(Not a directory\): name a folder"):
        run_folder.create(tmp_path / "file" / "run")


@needs_permissions
def test_a_folder_without_permission_names_itself_and_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match=r"Permission denied.*name a folder that you can write"):
        run_folder.create(tmp_path / "run")


def test_fresh_folders_of_one_second_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    paths = [run_folder.create(run_folder.fresh(tmp_path, "digits")).name for _ in range(3)]
    assert paths == [
        "digits-20260102-030405",
        "digits-20260102-030405-2",
        "digits-20260102-030405-3",
    ]
