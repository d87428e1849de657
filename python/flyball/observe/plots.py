"""Pictures of a run, drawn from its journal: functions that return a figure and show nothing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from flyball.errors import InputError, MissingExtraError
from flyball.events import EpochFinished, Estimate, Evaluated, StepSample
from flyball.files import write_whole

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", extra="plots", purpose="drawing a run") from error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flyball.events import Record

# Okabe and Ito's colours: told apart by the colour-blind, and by their lightness in black and white.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"


def training(records: Iterable[Record]) -> Figure:
    """Draw the loss of every step and what validation measured after every epoch.

    Args:
        records: The journal of a run, as `flyball.events.read` yields it.

    Raises:
        InputError: The journal holds no training step.
    """
    steps: list[StepSample] = []
    epochs: list[EpochFinished] = []
    evaluated: list[Evaluated] = []
    for record in records:
        match record.event:
            case StepSample() as event:
                steps.append(event)
            case EpochFinished() as event:
                epochs.append(event)
            case Evaluated() as event:
                evaluated.append(event)
            case _:
                pass
    if not steps:
        raise InputError("`records` holds no training step: there is nothing to draw")

    # The object interface throughout: pyplot would keep the figure alive and pick a window system.
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(
        [s.step for s in steps],
        [s.loss for s in steps],
        color=_BLUE,
        linewidth=0.8,
        label="one step",
    )
    trained = [(e.step, e.train_loss) for e in epochs if e.train_loss is not None]
    above.plot(*zip(*trained, strict=True), color=_ORANGE, linewidth=2, marker="o", markersize=4,
               label="mean of the epoch")  # fmt: skip
    above.set_yscale("log")
    above.set_ylabel("training loss")

    validated = [(e.step, e.validation["accuracy"]) for e in epochs if "accuracy" in e.validation]
    below.plot(*zip(*validated, strict=True), color=_ORANGE, linewidth=2, marker="o", markersize=4,
               label="validation")  # fmt: skip
    for event in evaluated:
        accuracy = event.measurements.get("accuracy")
        if isinstance(accuracy, Estimate):
            reach = [[accuracy.value - accuracy.low], [accuracy.high - accuracy.value]]
            below.errorbar(steps[-1].step, accuracy.value, yerr=reach, color=_BLUE, marker="s", markersize=5,
                           capsize=4, linestyle="none", label=f"{event.split}, 95 % interval")  # fmt: skip
    below.set_ylabel("accuracy")
    below.set_xlabel("step")
    for axes in (above, below):
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_GREY, alpha=0.2, linewidth=0.6)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, whole or not at all; the suffix names the format (`.png`, `.svg`, `.pdf`)."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_whole(path, content.getvalue())
