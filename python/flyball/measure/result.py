"""What a classification meter found, each number with its interval and beside its rival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.measure import confusion as whole
from flyball.measure.estimate import Estimate, f1, mean, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# A table of more classes than this is no longer read by a person.
_SHOWN_CLASSES = 20


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationResult:
    """How well a classifier did, how sure that is, and what doing nothing clever would reach.

    Attributes:
        samples: The rows that were measured.
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
        balanced_accuracy: The mean of `recall` over the classes that have one; delta method.
        mcc: Matthews' correlation of targets and predictions; delta method. None if either holds
            a single class.
        nll: The mean negative log-likelihood, in nats; central limit theorem.
        confusion: Counts, read-only; the row is the true class, the column the predicted one.
        majority_rate: The rival of `accuracy`: always answering the most frequent class.
        prior_entropy: The rival of `nll`: always answering the shares of the classes.
    """

    samples: int
    classes: int
    confidence: float
    accuracy: Estimate
    topk: dict[int, Estimate]
    recall: tuple[Estimate | None, ...]
    precision: tuple[Estimate | None, ...]
    f1: tuple[Estimate | None, ...]
    macro_f1: Estimate
    balanced_accuracy: Estimate
    mcc: Estimate | None
    nll: Estimate
    confusion: NDArray[np.int64]
    majority_rate: float
    prior_entropy: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {
            "samples": self.samples,
            "classes": self.classes,
            "confidence": self.confidence,
            "accuracy": self.accuracy.to_dict(),
            "topk": {str(k): rate.to_dict() for k, rate in self.topk.items()},
            "recall": [_plain(rate) for rate in self.recall],
            "precision": [_plain(rate) for rate in self.precision],
            "f1": [_plain(rate) for rate in self.f1],
            "macro_f1": self.macro_f1.to_dict(),
            "balanced_accuracy": self.balanced_accuracy.to_dict(),
            "mcc": _plain(self.mcc),
            "nll": self.nll.to_dict(),
            "confusion": self.confusion.tolist(),
            "majority_rate": self.majority_rate,
            "prior_entropy": self.prior_entropy,
        }

    def __str__(self) -> str:
        title = f"{self.samples} samples, {self.classes} classes, {self.confidence:.4g} confidence"
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
        ]
        lines = _aligned([(name, _shown(number), rival) for name, number, rival in scores], "<<<")
        return "\n".join([title, "", *lines, "", *self._class_lines()])

    def _class_lines(self) -> list[str]:
        if self.classes > _SHOWN_CLASSES:
            return ["for each class: `recall`, `precision`, `f1`, `confusion`"]
        rows = [("class", "samples", "recall", "precision", "F1")]
        support = self.confusion.sum(axis=1).tolist()
        for index, count in enumerate(support):
            rates = (self.recall[index], self.precision[index], self.f1[index])
            recall, precision, harmonic = (_shown(rate) for rate in rates)
            rows.append((str(index), str(count), recall, precision, harmonic))
        return _aligned(rows, ">><<<")


def summarize(
    confusion: NDArray[np.int64],
    hits: dict[int, int],
    nll_sums: tuple[float, float],
    confidence: float,
) -> ClassificationResult:
    """Derive the result from at least one sample's counts and sums of the loss and its square."""
    confusion.flags.writeable = False
    diagonal: list[int] = confusion.diagonal().tolist()
    actual: list[int] = confusion.sum(axis=1).tolist()
    predicted: list[int] = confusion.sum(axis=0).tolist()
    samples = sum(actual)
    shares = confusion.sum(axis=1)[confusion.any(axis=1)] / samples
    nll = mean(*nll_sums, samples, confidence)
    return ClassificationResult(
        samples=samples,
        classes=len(confusion),
        confidence=confidence,
        accuracy=wilson(sum(diagonal), samples, confidence),
        topk={k: wilson(count, samples, confidence) for k, count in hits.items()},
        recall=_rates(diagonal, actual, confidence),
        precision=_rates(diagonal, predicted, confidence),
        f1=tuple(
            f1(hit, row + column - 2 * hit, confidence) if row + column else None
            for hit, row, column in zip(diagonal, actual, predicted, strict=True)
        ),
        macro_f1=whole.macro_f1(confusion, confidence),
        balanced_accuracy=whole.balanced_accuracy(confusion, confidence),
        mcc=whole.matthews(confusion, confidence),
        nll=Estimate(value=nll.value, low=max(0.0, nll.low), high=nll.high),
        confusion=confusion,
        majority_rate=max(actual) / samples,
        # The sum of non-negative terms: adding 0.0 turns the -0.0 of a single class into 0.0.
        prior_entropy=float(-(shares @ np.log(shares))) + 0.0,
    )


def _rates(hits: list[int], trials: list[int], confidence: float) -> tuple[Estimate | None, ...]:
    pairs = zip(hits, trials, strict=True)
    return tuple(wilson(hit, trial, confidence) if trial else None for hit, trial in pairs)


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    return None if estimate is None else estimate.to_dict()


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else str(estimate)


def _aligned(rows: Sequence[tuple[str, ...]], sides: str) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
