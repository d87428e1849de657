"""Checkpoints on the disk: whole or not there, the newest good one taken, the last good one never lost."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from flyball.errors import CheckpointError, InputError
from flyball.events import Event
from flyball.govern.snapshot import TrainingState
from flyball.govern.snapshot import spill as disk
from flyball.train import checkpoint as checkpoints
from flyball.train import resume
from flyball.train.checkpoint import Checkpoints, found
from flyball.train.records import CheckpointFailed, CheckpointSaved

ABOUT = {
    "config": {"accumulate": 1, "optimizer": {"lr": 0.1, "type": "SGD"}, "world_size": 1},
    "versions": {"torch": "2"},
}


class Run:
    """A model, an optimizer with a state, and what a trainer says of itself."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.about: dict[str, Any] = json.loads(json.dumps(ABOUT))
        self.state = TrainingState(self.model, self.optimizer)
        self.state.register_functions(resume.ABOUT, lambda: self.about, lambda _: None)

    def move(self) -> None:
        self.model(torch.randn(16, 4)).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def tensors(self) -> list[torch.Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [tensor.clone() for tensor in [*self.model.state_dict().values(), *moments]]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def write(folder: Path, run: Run, steps: int, **more: Any) -> list[list[torch.Tensor]]:
    """Write a checkpoint after each of some steps; return what each holds."""
    writer = Checkpoints(folder, run.state, **more)
    states = []
    for step in range(1, steps + 1):
        run.move()
        writer.save(step)
        states.append(run.tensors())
        run.move()  # what comes after must not be in it
        writer.wait()
    return states


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_holds_the_moment_it_was_taken_at_and_brings_it_back(tmp_path: Path) -> None:
    states = write(tmp_path, Run(), 2)
    assert names(tmp_path) == ["00001-step-00000001", "00002-step-00000002"]
    for one, state in zip(found(tmp_path), states, strict=True):
        other = Run(seed=9)
        resume.read(one.path).put_back(other.state, other.about)
        assert same(other.tensors(), state)


def test_any_tool_reads_the_weights_under_their_names(tmp_path: Path) -> None:
    (state,) = write(tmp_path, Run(), 1)
    with safe_open(found(tmp_path)[0].path / disk.TENSORS, framework="pt") as file:
        (key,) = [key for key in file.keys() if key.endswith(":model.0.weight")]  # noqa: SIM118
        assert torch.equal(file.get_tensor(key), state[0])


def test_the_newest_stay_and_the_best(tmp_path: Path) -> None:
    run = Run()
    writer = Checkpoints(tmp_path, run.state, keep=2)
    for step in range(1, 6):
        writer.save(step, best=step == 2)
    writer.wait()
    assert [one.step for one in found(tmp_path)] == [2, 4, 5]
    assert writer.best == "00002-step-00000002"
    with pytest.raises(InputError, match="`keep` is 0"):
        Checkpoints(tmp_path, run.state, keep=0)


def test_numbers_go_on_so_no_name_is_written_twice(tmp_path: Path) -> None:
    run = Run()
    write(tmp_path, run, 2)
    writer = Checkpoints(tmp_path, run.state)
    writer.save(1)  # as after going back to an older one
    writer.wait()
    assert names(tmp_path)[-1] == "00003-step-00000001"
    newest = resume.newest(tmp_path)
    assert newest is not None
    assert newest.path.name == "00003-step-00000001"


@pytest.mark.parametrize("file", [disk.TENSORS, disk.PLAIN])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "empty"])
def test_one_that_cannot_be_read_is_reported_and_the_one_before_it_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, how: str
) -> None:
    states = write(tmp_path, Run(), 2)
    path = found(tmp_path)[-1].path / file
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes({"flipped": bytes(flipped), "cut": whole[:-30], "empty": b""}[how])
    newest = resume.newest(tmp_path)
    assert newest is not None
    other = Run(seed=9)
    newest.put_back(other.state, other.about)
    assert same(other.tensors(), states[0])
    assert len(newest.passed_over) == 1
    assert "00002-step-00000002` cannot be used" in newest.passed_over[0]
    assert "the one before it is taken" in caplog.text


def test_some_that_cannot_be_read_are_an_error_and_none_at_all_is_a_fresh_start(tmp_path: Path) -> None:
    assert resume.newest(tmp_path / "nowhere") is None
    assert resume.newest(tmp_path) is None
    write(tmp_path, Run(), 2)
    for one in found(tmp_path):
        (one.path / disk.TENSORS).unlink()
    with pytest.raises(CheckpointError, match="holds 2 checkpoints and none can be read") as caught:
        resume.newest(tmp_path)
    assert caught.value.reason == "damaged"
    assert copy.copy(caught.value).reason == "damaged"


def test_another_run_is_refused_by_the_names_of_what_differs_and_untouched(tmp_path: Path) -> None:
    write(tmp_path, Run(), 1)
    other = Run(seed=9)
    before = other.tensors()
    other.about["config"] |= {"accumulate": 4, "world_size": 2, "optimizer": {"lr": 0.2, "type": "SGD"}}
    read = resume.read(found(tmp_path)[0].path)
    with pytest.raises(CheckpointError) as caught:
        read.put_back(other.state, other.about)
    for difference in (
        "`accumulate` was 1 and is 4",
        "`world_size` was 1 and is 2",
        "`optimizer.lr` was 0.1 and is 0.2",
        "`accept=`",
    ):
        assert difference in str(caught.value)
    assert caught.value.reason == "changed"
    assert same(other.tensors(), before)
    with pytest.raises(CheckpointError, match=r"another run than this one: `accumulate` was 1 and is 4\. Set it back"):
        read.put_back(other.state, other.about, accept=("world_size", "optimizer"))
    read.put_back(other.state, other.about, accept=("world_size", "optimizer.lr", "accumulate"))
    assert not same(other.tensors(), before)


def test_another_structure_is_refused_and_untouched(tmp_path: Path) -> None:
    write(tmp_path, Run(), 1)
    other = Run(seed=9)
    other.model.append(nn.Linear(8, 1))
    before = other.tensors()
    with pytest.raises(CheckpointError, match=r"does not fit this run: .*parameters that are new since: `2.bias`"):
        resume.read(found(tmp_path)[0].path).put_back(other.state, other.about)
    assert same(other.tensors(), before)


def test_other_versions_are_told_and_no_reason_to_refuse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, Run(), 1)
    other = Run()
    other.about["versions"] = {"torch": "3"}
    resume.read(found(tmp_path)[0].path).put_back(other.state, other.about)
    assert "was written with torch 2: the same numbers are not promised" in caplog.text


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("owned",))


def test_a_pickle_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Code(), tmp_path / "last.pt")
    with pytest.raises(
        CheckpointError, match=r"last.pt` is a file.*a pickle can run code.*weights_only=True"
    ) as caught:
        resume.at(tmp_path / "last.pt")
    assert caught.value.reason == "foreign"
    # Nor is one that stands where a tensor file should.
    write(tmp_path / "checkpoints", Run(), 1)
    (one,) = found(tmp_path / "checkpoints")
    shutil.copy(tmp_path / "last.pt", one.path / disk.TENSORS)
    with pytest.raises(CheckpointError, match="cannot be used"):
        resume.at(one.path)
    assert not (tmp_path / "owned").exists()


def test_a_snapshot_that_no_trainer_wrote_is_refused(tmp_path: Path) -> None:
    run = Run()
    alone = Checkpoints(tmp_path, TrainingState(run.model))
    alone.save(1)
    alone.wait()
    with pytest.raises(CheckpointError, match="was not written by a trainer"):
        resume.at(found(tmp_path)[0].path)


def test_a_path_may_name_a_checkpoint_its_folder_or_the_run(tmp_path: Path) -> None:
    write(tmp_path / "run" / "checkpoints", Run(), 2)
    first, second = (one.path for one in found(tmp_path / "run" / "checkpoints"))
    assert resume.at(first).path == first
    assert resume.at(tmp_path / "run").path == second
    assert resume.at(tmp_path / "run" / "checkpoints").path == second
    for path, why in ((tmp_path / "no", "does not exist"), (tmp_path, "holds no checkpoint")):
        with pytest.raises(CheckpointError, match=why):
            resume.at(path)


def test_what_only_looks_like_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = tmp_path / "checkpoints"
    write(outside, Run(), 1)
    write(folder, Run(), 1)
    (folder / "00009-step-00000009").symlink_to(found(outside)[0].path)
    (folder / "00008-step-00000008").write_text("a file")
    (folder / "notes").mkdir()
    assert [one.number for one in found(folder)] == [1]
    writer = Checkpoints(folder, Run().state, keep=1)
    writer.save(2)
    writer.wait()
    assert len(found(outside)) == 1
    assert names(folder) == ["00002-step-00000002", "00008-step-00000008", "00009-step-00000009", "notes"]


def test_what_a_kill_left_half_written_or_half_removed_goes(tmp_path: Path) -> None:
    write(tmp_path, Run(), 1)
    for left in (".00002-step-00000002.4711.part", ".00001-step-00000000.old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "tensors.safetensors").write_bytes(b"half")
    Checkpoints(tmp_path, Run().state)
    assert names(tmp_path) == ["00001-step-00000001"]


def test_a_full_disk_is_loud_and_passes_and_what_was_written_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A limit on the size of files is a full disk that needs no disk of its own.
    program = """if True:
        import pathlib, resource, signal, sys
        sys.path.insert(0, sys.argv[2])
        from train.test_checkpoint import Run, found
        from flyball.errors import CheckpointError
        from flyball.train.checkpoint import Checkpoints
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run, folder = Run(), pathlib.Path(sys.argv[1])
        writer = Checkpoints(folder, run.state, keep=1)
        writer.save(1); writer.wait()
        full = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, full[1]))
        writer.save(2, best=True)
        try:
            writer.wait()
        except CheckpointError as error:
            print(error.reason, error)
        print([path.name for path in folder.iterdir()], writer.best)
        resource.setrlimit(resource.RLIMIT_FSIZE, full)
        writer.save(3); writer.wait()
        print([one.path.name for one in found(folder)])
    """
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, Path(__file__).parent.parent],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    first, second, third = done.stdout.splitlines()
    assert first.startswith("disk no checkpoint was written after step 2. `")
    assert "takes no checkpoint (File too large): make room there" in first
    assert second == "['00001-step-00000001'] None"
    assert third == "['00003-step-00000003']"
    assert not caplog.records


def test_a_state_that_is_not_finite_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, told = Run(), list[Event]()
    writer = Checkpoints(tmp_path, run.state, tell=told.append)
    writer.save(1)
    with torch.no_grad():
        next(run.model.parameters())[0, 0] = float("nan")
    writer.save(2)
    with pytest.raises(
        CheckpointError, match=r"`model\.0\.weight` holds a value that is not finite after step 2"
    ) as caught:
        writer.wait()
    assert caught.value.reason == "not-finite"
    assert [one.step for one in found(tmp_path)] == [1]
    assert [type(event) for event in told] == [CheckpointSaved, CheckpointFailed]
    assert caplog.records[0].levelno == logging.ERROR


def test_what_has_no_form_without_code_is_refused_by_name(tmp_path: Path) -> None:
    run = Run()
    run.state.register_functions("odd", lambda: {"f": len}, lambda _: None)
    writer = Checkpoints(tmp_path, run.state)
    writer.save(1)
    with pytest.raises(CheckpointError, match=r"`state.odd.f` is a `builtins.builtin_function_or_method`"):
        writer.wait()
    assert names(tmp_path) == []


@pytest.mark.parametrize("fails", ["write", "fsync", "rename"])
def test_a_disk_that_fails_at_any_moment_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    run = Run()
    (state,) = write(tmp_path, run, 1)
    writer = Checkpoints(tmp_path, run.state, keep=1)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    targets = {"write": "_write_tensors", "fsync": "_flush_folder"}
    with monkeypatch.context() as patch:
        if fails == "rename":
            patch.setattr("pathlib.Path.rename", broken)
        else:
            patch.setattr(disk, targets[fails], broken)
        writer.save(2)
        with pytest.raises(CheckpointError, match="Input/output error"):
            writer.wait()
    other = Run(seed=9)
    newest = resume.newest(tmp_path)
    assert newest is not None
    newest.put_back(other.state, other.about)
    assert same(other.tensors(), state)
    assert names(tmp_path) == ["00001-step-00000001"]
    assert checkpoints.found(tmp_path)[0].step == 1
