"""The meter of scores that rank: AUROC and average precision, each with its interval and its bound of error."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyball._native import Ranking as Native
from flyball.errors import InputError
from flyball.measure.estimate import Estimate, normal_quantile
from flyball.measure.inputs import choice, floats, number, plain, whole
from flyball.measure.meter import NativeMeter, check_keys, from_state
from flyball.measure.result import aligned, shown
from flyball.measure.result import plain as plain_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flyball.measure.inputs import Array

_STATE_VERSION = 2
_STATE_PARTS = frozenset(("classes", "probabilities", "scores"))
_MOST_POINTS = 1000


class Ranking(NativeMeter):
    """Measure how well scores put positives above negatives, batch by batch.

    ```python
    meter = Ranking()
    for inputs, labels in loader:
        meter.update(model(inputs).detach(), labels)
    print(meter.compute())
    ```

    The first 65,536 scores are kept, and numbers from them are exact. From then on scores are counted in cells, so
    memory no longer grows, and each number comes with a proven bound of its error. How the samples are cut into
    batches or shards, and in which order they come, changes nothing.

    Args:
        classes: The columns of scores. 1 is a binary task: scores have the shape N, N x 1 or N x 2, labels are 0 or 1.
            More are classes: each is ranked against the rest. Labels are class indices or, for several at once, flags
            of the shape N x classes.
        scores: "logits", any finite numbers, or "probabilities", between 0 and 1; nothing is guessed.
        nonfinite: What to do with a row that holds NaN or an infinity: "raise" refuses its batch, "count" leaves the
            row out and counts it.

    Raises:
        InputError: One of these cannot be measured.
    """

    __slots__ = ()

    _ALIKE = {"classes": "columns", "probabilities": "probabilities"}  # noqa: RUF012 -- never changed
    _native: Native

    def __init__(
        self,
        classes: int = 1,
        scores: Literal["logits", "probabilities"] = "logits",
        *,
        nonfinite: Literal["raise", "count"] = "raise",
    ) -> None:
        probabilities = choice(scores, "scores", ("logits", "probabilities")) == "probabilities"
        self._nonfinite = choice(nonfinite, "nonfinite", ("raise", "count"))
        self._native = Native(number(classes, "classes"), probabilities)

    @property
    def classes(self) -> int:
        """The columns of scores."""
        return self._native.columns

    @property
    def samples(self) -> int:
        """The number of rows measured so far."""
        return self._native.rows

    def update(self, scores: Array, labels: Array) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Args:
            scores: Higher is more positive; float32, float64, float16 or bfloat16, of any strides. Of two columns for
                a binary task, the second minus the first is the logit, or the second the probability.
            labels: A class for each row as an integer; or 0 and 1, as integers, bools or floats.

        Raises:
            InputError: An array has the wrong type, shape, place or values.
        """
        if not hasattr(scores, "ndim"):
            plain(scores, "scores")  # says what it is, and what to pass
        if self.classes > 1:
            rows, half = floats(scores, "scores", 2, "pass a row for each sample and a column for each class")
        elif scores.ndim == 1:
            rows, half = floats(scores[:, None], "scores", 2, "")
        else:
            rows, half = floats(scores, "scores", 2, "pass one score for each sample, or two columns")
            if rows.shape[1] == 2:
                rows, half = self._of_two(scores), None
        self._native.update(rows, self._labels(labels), half, self._nonfinite == "count")

    def compute(self, confidence: float = 0.95, *, curves: bool = False) -> RankingResult:
        """Return every number so far; the meter can go on.

        Args:
            confidence: How often an interval holds the true value.
            curves: Whether each class also gets the points of its curves, for pictures.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        if self.samples == 0:
            raise InputError(
                "the meter has seen 0 samples, which have no ranking: call `update` first, and look whether the "
                "loader is empty"
            )
        ranked = [
            _of_class(numbers, confidence, _points(self._native.groups(column)) if curves else ())
            for column, numbers in enumerate(self._native.ranked())
        ]
        return RankingResult(
            samples=self.samples,
            left_out=self.left_out,
            confidence=confidence,
            auroc=_mean([one.auroc for one in ranked]),
            auroc_bound=max((one.auroc_bound for one in ranked if one.auroc), default=0.0),
            average_precision=_mean([one.average_precision for one in ranked]),
            average_precision_bound=max(
                (one.average_precision_bound for one in ranked if one.average_precision), default=0.0
            ),
            prevalence=_mean_of_floats([one.prevalence for one in ranked if one.average_precision]),
            per_class=tuple(ranked),
            absent=tuple(index for index, one in enumerate(ranked) if one.auroc is None),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ints and a list of ints, which every file format holds exactly."""
        native = self._native
        return {
            "version": _STATE_VERSION,
            "classes": native.columns,
            "probabilities": native.probabilities,
            "scores": native.state(),
        }

    @staticmethod
    def _from_state(state: Mapping[str, Any]) -> Native:
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        return from_state(Native.from_state, state["classes"], state["probabilities"], state["scores"])

    def __repr__(self) -> str:
        scale = "probabilities" if self._native.probabilities else "logits"
        return f"Ranking(classes={self.classes}, scores={scale!r}, samples={self.samples})"

    def _of_two(self, scores: Array) -> NDArray[Any]:
        """Return the one score that two columns mean."""
        wide: Any = scores if isinstance(scores, np.ndarray) else scores.float()
        array = np.asarray(plain(wide, "scores"))
        if self._native.probabilities:
            return array[:, 1:]
        pair = array.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            difference: NDArray[Any] = pair[:, 1:] - pair[:, :1]
        return difference

    def _labels(self, labels: Array) -> NDArray[Any]:
        array = plain(labels, "labels")
        if array.ndim not in (1, 2):
            raise InputError(f"`labels` has shape {array.shape}: pass a label for each row, or a flag for each score")
        if array.ndim == 1 and self.classes == 1:
            array = array[:, None]
        if array.dtype == np.bool_:
            array = array.view(np.uint8)
        if array.dtype.kind == "f" and bool(((array == 0.0) | (array == 1.0)).all()):
            array = array.astype(np.uint8 if array.ndim == 2 else np.int64)  # as a loss for binary labels wants them
        if array.dtype == np.uint8 and array.ndim == 2:
            return np.ascontiguousarray(array)
        return whole(array, "labels")


@dataclass(frozen=True, slots=True)
class RankedClass:
    """How well one column of scores ranks.

    Attributes:
        positives: The number of positives.
        negatives: The number of negatives.
        auroc: The share of pairs of a positive and a negative that are in the right order, ties counted half; None
            without both. The interval is DeLong's, on the logit scale; where all pairs are right, or none, it is that
            of as many independent pairs as the smaller group has. It includes `auroc_bound`.
        auroc_bound: How far `auroc` can be from the value over the scores themselves; 0 if they were kept.
        average_precision: The mean over positives of the precision at their score; None without positives. The
            interval is the logit interval of Boyd, Eng and Page (2013). It includes `average_precision_bound`.
        average_precision_bound: As `auroc_bound`.
        prevalence: The share of positives: the rival of `average_precision`. The rival of `auroc` is 0.5.
        curve: False and true positives above each threshold, falling, from none to all; at most a thousand points, of
            which none is further than a 500th from the next in both. Empty unless `compute(curves=True)` asked for it.
    """

    positives: int
    negatives: int
    auroc: Estimate | None
    auroc_bound: float
    average_precision: Estimate | None
    average_precision_bound: float
    prevalence: float
    curve: tuple[tuple[int, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain_data(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class RankingResult:
    """How well scores rank, how sure that is, and what chance would reach.

    Attributes:
        samples: The rows that were measured.
        left_out: The rows that were not, as they held NaN or an infinity.
        confidence: The share of intervals that hold the truth, if samples are independent.
        auroc: The mean over the classes that have one; None if none has. The ends of its interval are the means of
            theirs: exact if the classes err together, else wider than needed.
        auroc_bound: The largest of the classes' bounds.
        average_precision: The same for average precision.
        average_precision_bound: The largest of the classes' bounds.
        prevalence: The rival of `average_precision`: the mean share of positives. The rival of `auroc` is 0.5.
        per_class: Each column.
        absent: The columns without an AUROC, as they have no positives or no negatives.
    """

    samples: int
    left_out: int
    confidence: float
    auroc: Estimate | None
    auroc_bound: float
    average_precision: Estimate | None
    average_precision_bound: float
    prevalence: float
    per_class: tuple[RankedClass, ...]
    absent: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain_data(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        left_out = f", {self.left_out} left out as not finite" if self.left_out else ""
        title = f"{self.samples} samples{left_out}, {len(self.per_class)} columns, {self.confidence:.4g} confidence"
        off = f"off by at most {self.auroc_bound:.1e}; " if self.auroc_bound else ""
        off_precision = f"off by at most {self.average_precision_bound:.1e}; " if self.average_precision_bound else ""
        rows = [
            ("AUROC", shown(self.auroc), f"{off}chance: 0.5"),
            ("average precision", shown(self.average_precision), f"{off_precision}chance: {self.prevalence:.4f}"),
        ]
        absent = [f"without positives or negatives: {', '.join(map(str, self.absent))}"] if self.absent else []
        return "\n".join([title, "", *aligned(rows, "<<<"), *absent])


def _points(groups: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Return the points of the curves, thinned where they lie close."""
    above = np.concatenate([np.zeros((1, 2), dtype=np.int64), groups[::-1].cumsum(axis=0)])
    if len(above) > _MOST_POINTS:
        steps = above * (_MOST_POINTS // 2 - 1) // np.maximum(above[-1], 1)
        kept = np.concatenate([[True], (steps[1:] != steps[:-1]).any(axis=1)])
        kept[-1] = True
        above = above[kept]
    return tuple((int(alarms), int(hits)) for alarms, hits in above.tolist())


def _of_class(
    numbers: tuple[int, int, float, float, float, float, float],
    confidence: float,
    curve: tuple[tuple[int, int], ...] = (),
) -> RankedClass:
    positives, negatives, auroc, auroc_bound, variance, precision, precision_bound = numbers
    both = positives > 0 and negatives > 0
    few = min(positives, negatives)
    return RankedClass(
        positives=positives,
        negatives=negatives,
        auroc=_widened(_delong(auroc, variance, few, confidence), auroc_bound) if both else None,
        auroc_bound=auroc_bound if both else 0.0,
        average_precision=(
            _widened(_logit_interval(precision, positives, confidence), precision_bound) if positives else None
        ),
        average_precision_bound=precision_bound if positives else 0.0,
        prevalence=positives / (positives + negatives),
        curve=curve,
    )


def _delong(value: float, variance: float, few: int, confidence: float) -> Estimate:
    if value in {0.0, 1.0}:
        # As many disjoint pairs as the smaller group has are independent, and all fell on one side.
        least = ((1.0 - confidence) / 2.0) ** (1.0 / few)
        return Estimate(value=value, low=least if value else 0.0, high=1.0 if value else 1.0 - least)
    if few < 2:
        return Estimate(value=value, low=0.0, high=1.0)
    return _on_logits(value, math.sqrt(variance) / (value * (1.0 - value)), confidence)


def _logit_interval(value: float, positives: int, confidence: float) -> Estimate:
    # As if z^2 more positives had been seen, with half the precision: no precision is certain.
    extra = normal_quantile(confidence) ** 2
    center = (value * positives + extra / 2.0) / (positives + extra)
    error = 1.0 / math.sqrt((positives + extra) * center * (1.0 - center))
    around = _on_logits(center, error, confidence)
    return Estimate(value=value, low=min(value, around.low), high=max(value, around.high))


def _on_logits(value: float, error: float, confidence: float) -> Estimate:
    center, half = math.log(value / (1.0 - value)), normal_quantile(confidence) * error
    low, high = (1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, end)))) for end in (center - half, center + half))
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def _widened(estimate: Estimate, bound: float) -> Estimate:
    return Estimate(value=estimate.value, low=max(0.0, estimate.low - bound), high=min(1.0, estimate.high + bound))


def _mean(estimates: list[Estimate | None]) -> Estimate | None:
    present = [one for one in estimates if one is not None]
    if not present:
        return None
    return Estimate(
        value=_mean_of_floats([one.value for one in present]),
        low=_mean_of_floats([one.low for one in present]),
        high=_mean_of_floats([one.high for one in present]),
    )


def _mean_of_floats(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
