"""What a classification meter found, each number with its interval and beside its rival."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.measure import calibration
from flyball.measure import confusion as whole
from flyball.measure.estimate import Estimate, f1, mean, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from flyball._native import _Totals
    from flyball.measure.calibration import ReliabilityBin

# A table of more classes than this is no longer read by a person.
_SHOWN_CLASSES = 20


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationResult:
    """How well a classifier did, how sure that is, and what doing nothing clever would reach.

    Attributes:
        samples: The rows that were measured.
        left_out: The rows that were not, as they held NaN or an infinity.
        classes: The number of classes.
        confidence: The share of intervals that hold the truth, if samples are independent.
        accuracy: The share of samples whose largest logit is the target's; Wilson's interval.
        topk: For each k, the share of samples whose target is among the k largest logits.
        recall: For each class, the share of its samples that were found; None if it has none.
        precision: For each class, the share of its predictions that are right; None if it was
            never predicted.
        f1: For each class, the harmonic mean of the two; None if it is neither among the targets
            nor predicted. The interval is Wilson's for the Jaccard index TP / (TP + FP + FN),
            mapped by F1 = 2J / (1 + J).
        macro_f1: The mean of `f1` over the classes that have one; delta method.
        weighted_f1: The mean of `f1`, each class weighted by its share of the targets; delta method.
        macro_precision: The mean of `precision` over the classes that have an `f1`, 0 for one that was never
            predicted; delta method.
        weighted_precision: The same, each class weighted by its share of the targets; delta method. (The weighted
            recall is `accuracy`.)
        balanced_accuracy: The mean of `recall` over the classes that have one; delta method.
        mcc: Matthews' correlation of targets and predictions; delta method. None if either holds
            a single class.
        nll: The mean negative log-likelihood, in nats; central limit theorem.
        brier: The mean over samples of the sum over classes of the squared error; central limit theorem.
        top_label_brier: The mean squared error of the confidence in the predicted class; central limit theorem.
        ece: The expected calibration error in bins of equal width; see `flyball.measure.calibration`.
        mce: The maximum calibration error in bins of equal width.
        ece_equal_mass: The expected calibration error in groups of equal count.
        mce_equal_mass: The maximum calibration error in groups of equal count.
        reliability: The bins of equal width, by rising confidence.
        reliability_equal_mass: The groups of equal count, by rising confidence.
        confusion: Counts, read-only; the row is the true class, the column the predicted one.
        majority_rate: The rival of `accuracy`: always answering the most frequent class.
        prior_entropy: The rival of `nll`: always answering the shares of the classes.
        prior_brier: The rival of `brier`: the same answer.
    """

    samples: int
    left_out: int
    classes: int
    confidence: float
    accuracy: Estimate
    topk: dict[int, Estimate]
    recall: tuple[Estimate | None, ...]
    precision: tuple[Estimate | None, ...]
    f1: tuple[Estimate | None, ...]
    macro_f1: Estimate
    weighted_f1: Estimate
    macro_precision: Estimate
    weighted_precision: Estimate
    balanced_accuracy: Estimate
    mcc: Estimate | None
    nll: Estimate
    brier: Estimate
    top_label_brier: Estimate
    ece: Estimate
    mce: Estimate
    ece_equal_mass: Estimate
    mce_equal_mass: Estimate
    reliability: tuple[ReliabilityBin, ...]
    reliability_equal_mass: tuple[ReliabilityBin, ...]
    confusion: NDArray[np.int64]
    majority_rate: float
    prior_entropy: float
    prior_brier: float

    def __eq__(self, other: object) -> bool:
        """Say whether every number is the same, to the last bit."""
        if not isinstance(other, ClassificationResult):
            return NotImplemented
        return all(
            bool(np.array_equal(mine, theirs)) if isinstance(mine, np.ndarray) else mine == theirs
            for mine, theirs in ((getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        )

    __hash__ = None  # type: ignore[assignment] # it holds an array

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        left_out = f", {self.left_out} left out as not finite" if self.left_out else ""
        title = f"{self.samples} samples{left_out}, {self.classes} classes, {self.confidence:.4g} confidence"
        scores: list[tuple[str, Estimate | None, str]] = [
            (
                "accuracy",
                self.accuracy,
                f"always the most frequent class: {self.majority_rate:.4f}",
            ),
            *((f"top-{k} accuracy", rate, "") for k, rate in self.topk.items() if k > 1),
            ("balanced accuracy", self.balanced_accuracy, ""),
            ("macro F1", self.macro_f1, ""),
            ("MCC", self.mcc, "" if self.mcc else "targets or predictions hold one class"),
            ("NLL", self.nll, f"always the shares of the classes: {self.prior_entropy:.4f}"),
            ("Brier", self.brier, f"always the shares of the classes: {self.prior_brier:.4f}"),
            ("ECE", self.ece, f"in groups of equal count: {self.ece_equal_mass.value:.4f}"),
        ]
        lines = aligned([(name, shown(number), rival) for name, number, rival in scores], "<<<")
        return "\n".join([title, "", *lines, "", *self._class_lines()])

    def _class_lines(self) -> list[str]:
        if self.classes > _SHOWN_CLASSES:
            return ["for each class: `recall`, `precision`, `f1`, `confusion`"]
        rows = [("class", "samples", "recall", "precision", "F1")]
        support = self.confusion.sum(axis=1).tolist()
        for index, count in enumerate(support):
            rates = (self.recall[index], self.precision[index], self.f1[index])
            recall, precision, harmonic = (shown(rate) for rate in rates)
            rows.append((str(index), str(count), recall, precision, harmonic))
        return aligned(rows, ">><<<")


def summarize(totals: _Totals, topk: Sequence[int], confidence: float) -> ClassificationResult:
    """Derive the result from the counts and sums of at least one sample."""
    confusion = totals["confusion"]
    confusion.flags.writeable = False
    diagonal: list[int] = confusion.diagonal().tolist()
    actual: list[int] = confusion.sum(axis=1).tolist()
    predicted: list[int] = confusion.sum(axis=0).tolist()
    samples = totals["samples"]
    shares = confusion.sum(axis=1)[confusion.any(axis=1)] / samples
    nll = mean(*totals["nll"], samples, confidence)
    return ClassificationResult(
        samples=samples,
        left_out=totals["left_out"],
        classes=len(confusion),
        confidence=confidence,
        accuracy=wilson(sum(diagonal), samples, confidence),
        topk={k: wilson(hits, samples, confidence) for k, hits in zip(topk, totals["hits"], strict=True)},
        recall=_rates(diagonal, actual, confidence),
        precision=_rates(diagonal, predicted, confidence),
        f1=tuple(
            f1(hit, row + column - 2 * hit, confidence) if row + column else None
            for hit, row, column in zip(diagonal, actual, predicted, strict=True)
        ),
        macro_f1=whole.macro_f1(confusion, confidence),
        weighted_f1=whole.weighted_f1(confusion, confidence),
        macro_precision=whole.macro_precision(confusion, confidence),
        weighted_precision=whole.weighted_precision(confusion, confidence),
        balanced_accuracy=whole.balanced_accuracy(confusion, confidence),
        mcc=whole.matthews(confusion, confidence),
        nll=within(nll, 0.0, math.inf),
        brier=within(mean(*totals["brier"], samples, confidence), 0.0, 2.0),
        top_label_brier=within(mean(*totals["top_label"], samples, confidence), 0.0, 1.0),
        ece=calibration.expected_error(totals["bins"], confidence),
        mce=calibration.maximum_error(totals["bins"], confidence),
        ece_equal_mass=calibration.expected_error(totals["groups"], confidence),
        mce_equal_mass=calibration.maximum_error(totals["groups"], confidence),
        reliability=calibration.reliability(totals["bins"], confidence),
        reliability_equal_mass=calibration.reliability(totals["groups"], confidence),
        confusion=confusion,
        majority_rate=max(actual) / samples,
        # The sum of non-negative terms: adding 0.0 turns the -0.0 of a single class into 0.0.
        prior_entropy=float(-(shares @ np.log(shares))) + 0.0,
        prior_brier=float(1.0 - shares @ shares),
    )


def _rates(hits: list[int], trials: list[int], confidence: float) -> tuple[Estimate | None, ...]:
    pairs = zip(hits, trials, strict=True)
    return tuple(wilson(hit, trial, confidence) if trial else None for hit, trial in pairs)


def plain(value: Any) -> Any:
    """Return what a result holds as plain data; an infinite number, which JSON does not have, is None."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def within(estimate: Estimate, lowest: float, highest: float) -> Estimate:
    """Cut an interval where the number itself cannot lie."""
    low, high = max(lowest, estimate.low), min(highest, estimate.high)
    return Estimate(value=estimate.value, low=min(low, estimate.value), high=max(high, estimate.value))


def mapped(estimate: Estimate, rising: Callable[[float], float]) -> Estimate:
    """Return what a rising function makes of a number and of its ends."""
    return Estimate(value=rising(estimate.value), low=rising(estimate.low), high=rising(estimate.high))


def shown(estimate: Estimate | None) -> str:
    """Return a number with its interval for a table."""
    return "-" if estimate is None else str(estimate)


def aligned(rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    """Return the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
