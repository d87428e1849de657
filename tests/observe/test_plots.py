"""Pictures are drawn from the journal, without a window and without anything left open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from flyball.errors import InputError
from flyball.events import EpochFinished, Estimate, Evaluated, Event, Journal, StepSample, read
from flyball.observe import plots

RUN: list[Event] = [
    StepSample(step=1, epoch=1, loss=2.3, learning_rate=0.1),
    StepSample(step=2, epoch=1, loss=1.3, learning_rate=0.1),
    EpochFinished(epoch=1, step=2, train_loss=1.8, seconds=1.0, validation={"accuracy": 0.5}),
    Evaluated(split="test", measurements={"accuracy": Estimate(value=0.6, low=0.5, high=0.7)}),
]


def journal(path: Path, events: list[Event]) -> Path:
    with Journal(path, run="r") as written:
        for event in events:
            written.write(event)
    return path


def test_the_picture_shows_every_step_and_every_epoch(tmp_path: Path) -> None:
    figure = plots.training(read(journal(tmp_path / "events.jsonl", RUN)))
    above, below = figure.axes
    steps, epochs = above.get_lines()
    assert np.asarray(steps.get_ydata()).tolist() == [2.3, 1.3]
    assert np.asarray(epochs.get_xydata()).tolist() == [[2, 1.8]]
    assert below.get_legend_handles_labels()[1] == ["validation", "test, 95 % interval"]


@pytest.mark.parametrize("kept", [[0], [0, 1], [0, 1, 3]])
def test_a_run_that_was_cut_short_is_drawn_as_far_as_it_went(tmp_path: Path, kept: list[int]) -> None:
    records = read(journal(tmp_path / "events.jsonl", [RUN[index] for index in kept]))
    plots.save(plots.training(records), tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_bytes().startswith(b"<?xml")


def test_a_journal_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`records` holds no training step"):
        plots.training(read(journal(tmp_path / "events.jsonl", RUN[2:])))


def test_drawing_leaves_no_figure_open(tmp_path: Path) -> None:
    plots.training(read(journal(tmp_path / "events.jsonl", RUN)))
    assert plt.get_fignums() == []


def test_without_matplotlib_the_error_names_the_line_that_installs_it() -> None:
    program = "import sys; sys.modules['matplotlib.figure'] = None; import flyball.observe.plots"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "drawing a run needs `matplotlib`, which is not installed: run `pip install 'flyball[plots]'`" in done.stderr
