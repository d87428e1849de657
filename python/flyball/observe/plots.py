"""Pictures of a run, drawn from its journal: functions that return a figure and show nothing."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flyball.errors import InputError, MissingExtraError
from flyball.events import EpochFinished, StepSample
from flyball.files import write_whole
from flyball.govern.records import RolledBack, VerdictGiven

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", extra="plots", purpose="drawing a run") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from flyball.events import Record

# Okabe and Ito's colours: told apart by the colour-blind, and by their lightness in black and white.
_BLUE, _ORANGE, _GREY, _LIGHT = "#0072B2", "#D55E00", "#666666", "#bbbbbb"


def governed(records: Iterable[Record], twin: Iterable[Record], *, faults: Mapping[int, str]) -> Figure:
    """Draw a governed run beside the same run without a governor: what was left out, undone and abandoned.

    Args:
        records: The journal of the governed run.
        twin: The journal of the other one.
        faults: What went wrong at which step, to be named in the picture.

    Raises:
        InputError: The governed run holds no training step.
    """
    mine, other = _Told.of(records), _Told.of(twin)
    if not mine.losses:
        raise InputError("`records` holds no training step: there is nothing to draw")
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))

    def abandoned(step: int) -> bool:
        return any(back.back_to <= step <= back.step for back in mine.rollbacks)

    above.plot(*_points(other.losses), color=_ORANGE, linewidth=1.0, label="without a governor")
    # What was left out is passed over by the line; what was abandoned breaks it.
    kept = {
        step: math.nan if abandoned(step) else loss for step, loss in mine.losses.items() if step not in mine.left_out
    }
    above.plot(*_points(kept), color=_BLUE, linewidth=1.2, label="governed")
    for back in mine.rollbacks:
        branch = {step: loss for step, loss in mine.losses.items() if back.back_to <= step < back.step}
        above.plot(*_points(branch), color=_LIGHT, linewidth=2.5, zorder=1, label="abandoned branch")
        if branch:
            above.annotate(
                "rolled back", min(branch.items()), (-4, 32), textcoords="offset points", ha="right", fontsize="small",
                color=_GREY, arrowprops={"arrowstyle": "->", "color": _GREY},
            )  # fmt: skip
    finite = [loss for loss in (*mine.losses.values(), *other.losses.values()) if math.isfinite(loss)]
    out = {step: mine.losses[step] for step in sorted(mine.left_out & mine.losses.keys()) if not abandoned(step)}
    shown = {step: loss if math.isfinite(loss) else max(finite, default=1.0) for step, loss in out.items()}
    above.plot(*_points(shown), color=_BLUE, linestyle="none", marker="x", markersize=6, label="batch left out")
    dead = [step for step, loss in other.losses.items() if not math.isfinite(loss)]
    if dead and finite:
        last = max((step for step in other.losses if step < dead[0]), default=dead[0])
        above.annotate("its weights are NaN", (last, other.losses[last]), (8, 0), textcoords="offset points",
                       va="center", fontsize="small", color=_ORANGE)  # fmt: skip
    for step, name in faults.items():
        for axes in (above, below):
            axes.axvline(step, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
        above.annotate(name, (step, 1.0), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
                       ha="center", fontsize="small", color=_GREY)  # fmt: skip
    above.set_yscale("log")
    above.set_ylabel("training loss")

    for told, color, name in ((other, _ORANGE, "without a governor"), (mine, _BLUE, "governed")):
        below.plot(*_points(told.accuracies), color=color, linewidth=2, marker="o", markersize=4, label=name)
    below.set_ylabel("validation accuracy")
    below.set_xlabel("step")
    below.set_ylim(0.0, 1.05)
    for axes in (above, below):
        axes.legend(frameon=False, fontsize="small", loc="lower left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_GREY, alpha=0.2, linewidth=0.6)
    return figure


@dataclass
class _Told:
    """What a journal tells of a run, by step."""

    losses: dict[int, float] = field(default_factory=dict)
    accuracies: dict[int, float] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    rollbacks: list[RolledBack] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[Record]) -> _Told:
        told = cls()
        for record in records:
            match record.event:
                case StepSample() as event:
                    told.losses[event.step] = event.loss
                case EpochFinished() as event if "accuracy" in event.validation:
                    told.accuracies[event.step] = event.validation["accuracy"]
                case VerdictGiven() as event if event.action != "apply":
                    told.left_out.add(event.step)
                case RolledBack() as event:
                    told.rollbacks.append(event)
                case _:
                    pass
        return told


def _points(values: Mapping[int, float]) -> tuple[list[int], list[float]]:
    return list(values), list(values.values())


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, whole or not at all; the suffix names the format (`.png`, `.svg`, `.pdf`)."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_whole(path, content.getvalue())
