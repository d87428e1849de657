"""What a run has done so far, epoch by epoch, and when that is enough."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

from flyball.errors import InputError


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch.

    Args:
        epoch: Its number, from 1.
        step: How many steps had been made at its end, since the run began.
        loss: The mean training loss of its samples, or tokens, whose updates were applied; None if none was.
        samples: How many samples, or tokens, that is.
        left_out: How many of its steps were not applied: left out by the governor, by the gradient scaler, or for want
            of memory.
        seconds: How long it took.
        validation: What was measured at its end.
    """

    epoch: int
    step: int
    loss: float | None
    samples: float
    left_out: int
    seconds: float
    validation: Mapping[str, float] = field(default_factory=dict)


class History(Sequence[Epoch]):
    """The epochs of a run in order, those before a resume included.

    Attributes:
        reason: Why it ended: ``completed``, ``early stopping``, or a signal; ``running`` before that.
        steps: How many steps were made.
        skipped: Batches that were left out for want of memory.
        best: The number of the epoch that was the best by what is monitored, None if nothing is.
    """

    def __init__(self) -> None:
        self.reason = "running"
        self.steps = 0
        self.skipped = 0
        self.best: int | None = None
        self._epochs: list[Epoch] = []

    def add(self, epoch: Epoch) -> None:
        """Append the record of an epoch."""
        self._epochs.append(epoch)

    @overload
    def __getitem__(self, index: int) -> Epoch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Epoch]: ...
    def __getitem__(self, index: int | slice) -> Epoch | list[Epoch]:
        """Return an epoch by its place, from 0."""
        return self._epochs[index]

    def __len__(self) -> int:
        """Return how many epochs were finished."""
        return len(self._epochs)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self._epochs)

    def __repr__(self) -> str:
        return f"History({len(self)} epochs, {self.steps} steps, {self.reason})"

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain data."""
        return {
            "epochs": [dataclasses.asdict(epoch) for epoch in self._epochs],
            "reason": self.reason,
            "steps": self.steps,
            "skipped": self.skipped,
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the history of a run that goes on."""
        self._epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.reason, self.steps, self.skipped = state["reason"], state["steps"], state["skipped"]
        self.best = state["best"]


@dataclass
class EarlyStopping:
    """Note which epoch is the best, and say when there was no better one for too long.

    A value that is not a number is no improvement, and neither is one that is missing.

    Args:
        monitor: The name of the measurement, as in `Epoch.validation`.
        mode: Whether less or more of it is better.
        patience: After so many evaluations without an improvement training stops; never if None.
        min_delta: An improvement is larger than this.
        restore: Whether the weights of the best epoch are put back at the end; this needs a run folder.

    Raises:
        InputError: A value is out of its range.
    """

    monitor: str = "loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = 10
    min_delta: float = 1e-4
    restore: bool = False
    best: float | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.mode not in {"min", "max"}:
            raise InputError(f"`mode` is {self.mode!r}: use 'min' or 'max'")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"`patience` is {self.patience}: give 1 or more, or None never to stop")
        if not 0.0 <= self.min_delta < math.inf:
            raise InputError(f"`min_delta` is {self.min_delta!r}: give 0 or more")

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and self.waited >= self.patience

    def see(self, value: float | None) -> bool:
        """Take the value of another evaluation; return whether it is the best so far."""
        better = (
            value is not None and not math.isnan(value) and (self.best is None or self._gain(value) > self.min_delta)
        )
        if better:
            self.best = value
        self.waited = 0 if better else self.waited + 1
        return better

    def _gain(self, value: float) -> float:
        before = self.best if self.best is not None else math.nan
        if value == before:
            return 0.0  # two infinities have no difference
        return before - value if self.mode == "min" else value - before

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen, as plain data."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was seen."""
        self.best, self.waited = state["best"], state["waited"]


class Tally:
    """The training loss of an epoch, weighted by samples or tokens, without waiting for a GPU at every step.

    Sums are taken in the order of the steps, so they do not hang on when the values were read.
    """

    _MOST = 64  # values that wait to be read from a GPU in one go

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, float]] = []
        self._sum = 0.0
        self._weight = 0.0
        self.left_out = 0

    def add(self, loss: Any, weight: float) -> None:
        """Take the loss of a step that was applied: a number, or a tensor that holds one."""
        if type(loss) is float and not self._waiting:
            self._sum += loss * weight
            self._weight += weight
            return
        self._waiting.append((loss, weight))
        if len(self._waiting) >= self._MOST:
            self._read()

    def _read(self) -> None:
        waiting, self._waiting = self._waiting, []
        for loss, weight in waiting:
            self._sum += float(loss) * weight
            self._weight += weight

    @property
    def weight(self) -> float:
        """How many samples, or tokens, were counted."""
        self._read()
        return self._weight

    @property
    def mean(self) -> float | None:
        """The mean loss; None where nothing was trained."""
        self._read()
        return self._sum / self._weight if self._weight else None

    def clear(self) -> None:
        """Begin anew."""
        self.load_state_dict({"sum": 0.0, "weight": 0.0, "left_out": 0})

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, as plain data."""
        self._read()
        return {"sum": self._sum, "weight": self._weight, "left_out": self.left_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with sums from before."""
        self._waiting = []
        self._sum, self._weight, self.left_out = state["sum"], state["weight"], state["left_out"]
