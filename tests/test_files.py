"""Files are written whole or not at all, and a run is never written over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flyball import run_folder
from flyball.errors import FlyballError, RunExistsError, RunFolderError, WriteError
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


def test_a_disk_that_fills_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    # A limit on the size of files is a full disk that needs no disk of its own.
    program = """if True:
        import pathlib, resource, signal, sys
        from flyball.errors import WriteError
        from flyball.files import write_whole
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_whole(pathlib.Path(sys.argv[1]), b"new" * 1000)
        except WriteError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(f"`{path}` cannot be written (File too large): make room or get permission there")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync" if fails == "fsync" else "pathlib.Path.replace", full)
    with pytest.raises(WriteError, match=r"file` cannot be written \(No space left on device\): make room"):
        write_whole(path, b"new")
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
    assert isinstance(caught.value, FileExistsError)
    assert isinstance(caught.value, FlyballError)
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


def test_a_name_that_is_too_long_names_itself_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot be a run folder \(File name too long\): name a folder"):
        run_folder.create(tmp_path / ("n" * 300))


def test_runs_of_one_second_get_folders_of_their_own_even_from_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: run_folder.create_fresh(tmp_path / "runs", "digits"), range(40)))
    assert len(set(paths)) == 40
    assert {path.name for path in paths} >= {"digits-20260102-030405", "digits-20260102-030405-2"}


def test_a_fresh_folder_that_cannot_be_made_names_itself_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot be a run folder"):
        run_folder.create_fresh(tmp_path / "runs", "digits")
