"""Two runs are compared loss by loss, and the exit code says how."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benches.losses import compare, main, trace
from flyball.events import Journal, RunStarted, StepSample


def write(path: Path, losses: dict[int, float] | list[tuple[int, float]]) -> Path:
    path.mkdir()
    with Journal(path / "events.jsonl", run="a") as journal:
        journal.write(RunStarted(name="a", seed=0, device="cpu", versions={}, config={}))
        for step, loss in losses.items() if isinstance(losses, dict) else losses:
            journal.write(StepSample(step=step, epoch=1, loss=loss, learning_rate=0.1))
    return path


@pytest.mark.parametrize(
    ("other", "more", "ends"),
    [
        ({1: 2.0, 2: 1.0, 3: math.nan}, [], (0, "3 steps compared\nthe losses are equal, bit for bit")),
        ({1: 2.0, 2: math.nextafter(1.0, 2.0), 3: math.nan}, [], (1, "at step 2: 1.0 and 1.0000000000000002")),
        ({1: 2.0, 2: 1.01, 3: math.nan}, ["--within", "0.02"], (0, "largest relative difference: 0.0099, at step 2")),
        ({1: 2.0, 2: 1.0, 3: 5.0}, ["--within", "0.5"], (1, "largest relative difference: inf, at step 3")),
        ({1: 2.0, 2: 1.0}, [], (1, "1 steps are in one of them only")),
        ({7: 2.0}, [], (2, "no step in common")),
    ],
)  # fmt: skip
def test_two_runs_are_compared_step_by_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[int, float], more: list[str], ends: tuple[int, str]
) -> None:
    runs = [write(tmp_path / "one", {1: 2.0, 2: 1.0, 3: math.nan}), write(tmp_path / "other", other)]
    code, said = ends
    assert main([*map(str, runs), *more]) == code
    out = capsys.readouterr()
    assert said in out.out + out.err


def test_of_a_step_that_was_made_twice_the_last_one_counts(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [(1, 2.0), (2, 1.5), (3, 1.4), (2, 1.0), (3, 0.5)])
    assert trace(run) == {1: 2.0, 2: 1.0, 3: 0.5}
    assert compare(trace(run), {1: 2.0, 2: 1.0, 3: 0.5}).first is None


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "run", {1: 2.0})
    assert main([str(run), str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
