"""What a logger is, and what it is told of an event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from flyball.events import EpochFinished, Estimate, Evaluated, StepSample
from flyball.govern.records import RolledBack, VerdictGiven
from flyball.objective.outcome import ObjectiveMeasured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyball.events import Event, RunStarted
    from flyball.events.reader import UnknownEvent

_LEVELS = {"OK": 0.0, "WATCH": 1.0, "ANOMALY": 2.0, "PANIC": 3.0}


class Logger(ABC):
    """Where numbers go: write `log`, and the others if they are of use."""

    def begin(self, started: RunStarted) -> None:  # noqa: B027 -- of use to some
        """Take what the run was told; called once, before everything else, if the journal says it."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float], text: str) -> None:
        """Take some numbers of a step, by names such as `train/loss`, and what was said of it, which may be empty."""

    def close(self) -> None:  # noqa: B027 -- likewise
        """Write what is left; nothing comes after it."""


def numbers(event: Event | UnknownEvent) -> tuple[dict[str, float], str]:  # noqa: PLR0911 -- a return for each kind
    """Return what a logger is told of an event: numbers by name, and words; both empty for most kinds."""
    match event:
        case StepSample():
            found = {"train/loss": event.loss, "train/learning_rate": event.learning_rate}
            return (found if event.grad_norm is None else {**found, "train/grad_norm": event.grad_norm}), ""
        case EpochFinished():
            found = {"epoch": float(event.epoch), **{f"validation/{k}": v for k, v in event.validation.items()}}
            return (found if event.train_loss is None else {**found, "epoch_loss": event.train_loss}), ""
        case Evaluated():
            return dict(_measured(event)), ""
        case ObjectiveMeasured():
            return {f"term/{k}": term.raw for k, term in event.terms.items() if term.raw is not None}, ""
        case VerdictGiven():
            return {"governor/level": _LEVELS.get(event.level, float("nan"))}, event.text
        case RolledBack():
            lost = float(event.step - event.back_to)
            return {"governor/steps_lost": lost}, f"rolled back to step {event.back_to}: {event.reason}"
        case _:
            return {}, ""


def _measured(event: Evaluated) -> list[tuple[str, float]]:
    found = []
    for name, value in event.measurements.items():
        place = f"{event.split}/{name}"
        if isinstance(value, Estimate):
            found += [(place, value.value), (f"{place}/low", value.low), (f"{place}/high", value.high)]
        else:
            found.append((place, value))
    return found
