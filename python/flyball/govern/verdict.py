"""What the governor says about one step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple


class Level(IntEnum):
    """How bad a step is; the order is the order of severity, and a level is compared with levels alone."""

    OK = 0
    WATCH = 1
    ANOMALY = 2
    PANIC = 3


class Action(StrEnum):
    """What to do with the update of a step. Each is also its text: ``verdict.action == "skip"`` is what it says."""

    APPLY = "apply"
    SKIP = "skip"
    ROLLBACK = "rollback"
    HALT = "halt"


_DONE = {
    Action.APPLY: "the update is applied",
    Action.SKIP: "the batch is left out",
    Action.ROLLBACK: "go back to a state that is known to be good",
    Action.HALT: "the run stops",
}
_SAID = {
    "nonfinite-gradients": "a gradient is not finite",
    "nonfinite-parameters": "a parameter is not finite",
    "nonfinite-buffers": "a buffer is not finite",
    "nonfinite-optimizer": "optimizer state is not finite",
    "amp-skip": "the gradient scaler skips this step",
    "sustained": "refused too many times in a row",
    "too-many": "more than 32 of the last 128 steps were refused",
    "pending": "still refused after a panic that nobody acted on",
    "adopted": "the new level is adopted",
    "learning": "taken in as data while the thresholds are learnt anew",
    "expected": "part of a shift that was announced",
    "asking": "a kept batch is served again, to see whether the state is sound",
    "data": "the state was asked and is sound: the data are bad",
    "state": "the state was asked and is damaged",
    "sound": "the state was asked and is sound",
    "another-loss": "a state just restored gives kept batches another loss than they had: the loss has changed",
    "distrusted": "the state was asked for the snapshot just taken, and looks damaged: the snapshot is dropped",
    "rolled-back": "the run was rolled back after these gradients were taken",
    "endless": "nothing but bad data for too long",
    "sign": "the first negative loss after many positive ones",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one part of the detector saw, where it spoke.

    Attributes:
        source: Which part: loss, norm, joint, run, drawdown, collapse, update-ratio, ...
        group: The parameter group, for those parts that look at groups.
        value: What it looked at, NaN and infinity included.
        baseline: The recent level, in the units of the value.
        scale: The size of the usual deviation; for a positive loss and a norm, of its logarithm.
        threshold: What `z` was compared with, or the value where there is no `z`.
        z: The deviation in scales.
        count: How many observations the threshold rests on, or how many steps in a row.
    """

    source: str
    group: int | None
    value: float
    baseline: float | None
    scale: float | None
    threshold: float | None
    z: float | None
    count: int

    def __str__(self) -> str:
        value = _number(self.value)
        if self.source in {"loss", "norm"}:
            text = f"{self.source}: {value}" + _deviation(self)
        elif self.source == "drawdown":
            text = f"drawdown: the smoothed loss is {value}, {_number(self.z)} times its best"
        elif self.source == "collapse":
            lost = "" if self.z is None else f"{100 * self.z:.0f} % of the progress is lost"
            text = f"collapse: the smoothed loss is {value}, {lost}"
        elif self.source == "update-ratio":
            text = f"parameter group {self.group} moves by {value} of itself" + _limit(self)
        elif self.source == "dead-group":
            text = f"parameter group {self.group} has not moved for {self.count} steps"
        elif self.source == "amp-scale":
            text = f"the gradient scaler's scale is {value}" + _limit(self)
        elif self.source == "amp-skips":
            text = f"the gradient scaler has skipped {self.count} steps in a row"
        else:
            what = {"joint": "loss and norm together are", "run": "the last losses together are"}
            text = f"{self.source}: {what[self.source]} {value} scales above their recent level"
            text += _limit(self)
        return text


def _deviation(evidence: Evidence) -> str:
    if evidence.z is None:
        level = evidence.baseline
        return "" if level is None else f", after a recent level of {_number(level)}"
    return (
        f" is {_number(evidence.z)} scales above its recent level {_number(evidence.baseline)}"
        f" (threshold {_number(evidence.threshold)})"
    )


def _limit(evidence: Evidence) -> str:
    return f" (threshold {_number(evidence.threshold)})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


class Verdict(NamedTuple):
    """What the governor says about one step.

    A named tuple, because one is made every step and a frozen dataclass takes three times as long.

    Attributes:
        step: The step that the caller named, or how many observations of the stream came before.
        stream: The stream it belongs to.
        level: How bad it is.
        action: What to do with the update.
        reasons: Stable codes, what was decided before what was seen.
        evidence: What each part of the detector saw that spoke.
        rho: The largest score over its threshold: from 1 on an anomaly, from 0.5 on doubtful,
            infinite where a value is not finite or has the wrong sign.
        note: What was said when the shift that this step belongs to was announced.
    """

    step: int
    stream: str
    level: Level = Level.OK
    action: Action = Action.APPLY
    reasons: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    rho: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        stream = "" if self.stream == "train" else f" of {self.stream}"
        head = f"step {self.step}{stream}: {self.level.name}"
        said = [_SAID[code] for code in self.reasons if code in _SAID]
        if self.note:
            said.append(self.note)
        said += [str(evidence) for evidence in self.evidence]
        if not said:
            return head
        return f"{head} {'; '.join([*said, _DONE[self.action]])}"
