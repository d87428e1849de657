"""Pictures are drawn from journals, without a window and without anything left open."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from flyball.errors import InputError
from flyball.events import EpochFinished, Event, Journal, StepSample, read
from flyball.govern.records import RolledBack, VerdictGiven
from flyball.observe import plots


def step(number: int, loss: float) -> Event:
    return StepSample(step=number, epoch=1, loss=loss, learning_rate=0.1)


def left_out(number: int) -> Event:
    return VerdictGiven(step=number, level="ANOMALY", action="skip", reasons=["data"], text="", position=None)


RUN: list[Event] = [
    step(0, 2.3),
    step(1, 1.9),
    left_out(2),
    step(2, 9.0),
    left_out(3),
    step(3, math.nan),
    step(4, 1.5),
    step(5, 7.0),
    RolledBack(
        step=6, reason="damage", snapshot=1, taken_at=3, back_to=4, attempt=1, learning_rate_factor=1.0, seconds=0.1
    ),
    step(6, 1.4),
    EpochFinished(epoch=1, step=6, train_loss=1.8, seconds=1.0, validation={"accuracy": 0.5}),
]
TWIN: list[Event] = [step(0, 2.3), step(1, 1.9), step(2, 9.0), step(3, math.nan)]


def journal(path: Path, events: list[Event]) -> Path:
    with Journal(path, run="r") as written:
        for event in events:
            written.write(event)
    return path


def draw(folder: Path, run: list[Event], twin: list[Event]) -> Figure:
    mine, other = journal(folder / "mine.jsonl", run), journal(folder / "twin.jsonl", twin)
    return plots.governed(read(mine), read(other), faults={2: "wrong labels"})


def test_the_picture_tells_left_out_abandoned_and_kept_steps_apart(tmp_path: Path) -> None:
    above, below = draw(tmp_path, RUN, TWIN).axes
    lines = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in above.get_lines()}
    assert lines["without a governor"][:3] == [[0, 2.3], [1, 1.9], [2, 9.0]]
    kept = [point for point in lines["governed"] if not math.isnan(point[1])]
    assert kept == [[0, 2.3], [1, 1.9]]
    assert lines["abandoned branch"] == [[4, 1.5], [5, 7.0]]
    assert lines["batch left out"] == [[2, 9.0], [3, 9.0]], "what is not finite is drawn at the top"
    said = {text.get_text() for text in above.texts}
    assert said == {"rolled back", "its weights are NaN", "wrong labels"}
    assert [line.get_label() for line in below.get_lines()[-2:]] == ["without a governor", "governed"]


@pytest.mark.parametrize("length", [1, 3, 4, 6, 9])
def test_a_run_that_was_cut_short_is_drawn_as_far_as_it_went(tmp_path: Path, length: int) -> None:
    plots.save(draw(tmp_path, RUN[:length], TWIN[:1]), tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_bytes().startswith(b"<?xml")


def test_a_journal_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`records` holds no training step"):
        draw(tmp_path, RUN[-1:], TWIN)


def test_drawing_leaves_no_figure_open(tmp_path: Path) -> None:
    draw(tmp_path, RUN, TWIN)
    assert plt.get_fignums() == []


def test_without_matplotlib_the_error_names_the_line_that_installs_it() -> None:
    program = "import sys; sys.modules['matplotlib.figure'] = None; import flyball.observe.plots"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "drawing a run needs `matplotlib`, which is not installed: run `pip install 'flyball[plots]'`" in done.stderr
