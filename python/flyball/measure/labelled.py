"""What a meter of several labels a row found, each number with its interval and beside its rival."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from flyball.measure.estimate import Estimate, f1, mean, score_interval, wilson
from flyball.measure.result import aligned, plain, shown, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyball import _native

# A table of more labels than this is no longer read by a person.
_SHOWN_LABELS = 20


@dataclass(frozen=True, slots=True)
class MultiLabelResult:
    """How well labels were given, how sure that is, and what doing nothing clever would reach.

    Attributes:
        samples: The rows that were measured.
        left_out: The rows that were not, as they held NaN or an infinity.
        threshold: The logit above which a label was predicted.
        confidence: The share of intervals that hold the truth, if samples are independent.
        subset_accuracy: The share of rows all of whose labels are right; Wilson's interval.
        hamming_loss: The share of flags that are wrong; its interval takes rows as independent, not flags.
        recall: For each label, the share of its rows that were found; None if it has none. Wilson's interval.
        precision: For each label, the share of its predictions that are right; None if it was never predicted.
        f1: For each label, the harmonic mean of the two; None if it is neither true nor predicted anywhere.
        micro_precision: Over all flags together: hits among the predicted; None if nothing was predicted. The intervals
            of this and the next two are Wilson's for as many independent flags as have the variance that the rows show.
        micro_recall: Hits among the true flags; None if there are none.
        micro_f1: The harmonic mean of the two; None if nothing is true or predicted.
        macro_precision: The mean of `precision` over the labels that have an `f1`, 0 for one that was never predicted;
            None without any. The ends of this and the next five are the means of the ends of the labels: exact if the
            labels err together, else wider than needed.
        macro_recall: The mean of `recall` over the labels that have one.
        macro_f1: The mean of `f1` over the labels that have one.
        weighted_precision: The mean of `precision`, 0 for a label that was never predicted, each label weighted by its
            share of the true flags; None if there are none.
        weighted_recall: The same of `recall`.
        weighted_f1: The same of `f1`.
        samples_precision: The mean over rows of the precision of the row, 0 where nothing is predicted; central limit
            theorem.
        samples_recall: The same of the recall, 0 where nothing is true.
        samples_f1: The same of F1, 0 where neither is, although such a row is right: see `empty`.
        empty: How many rows have no label and are given none.
        positives: For each label, how many rows have it.
        predicted: For each label, how many rows are given it.
        hits: For each label, how many rows have it and are given it.
        majority_hamming_loss: The rival of `hamming_loss`: for each label always its commoner answer.
        all_labels_f1: The rival of `micro_f1`: giving every row every label.
    """

    samples: int
    left_out: int
    threshold: float
    confidence: float
    subset_accuracy: Estimate
    hamming_loss: Estimate
    recall: tuple[Estimate | None, ...]
    precision: tuple[Estimate | None, ...]
    f1: tuple[Estimate | None, ...]
    micro_precision: Estimate | None
    micro_recall: Estimate | None
    micro_f1: Estimate | None
    macro_precision: Estimate | None
    macro_recall: Estimate | None
    macro_f1: Estimate | None
    weighted_precision: Estimate | None
    weighted_recall: Estimate | None
    weighted_f1: Estimate | None
    samples_precision: Estimate
    samples_recall: Estimate
    samples_f1: Estimate
    empty: int
    positives: tuple[int, ...]
    predicted: tuple[int, ...]
    hits: tuple[int, ...]
    majority_hamming_loss: float
    all_labels_f1: float

    @property
    def labels(self) -> int:
        """The number of labels."""
        return len(self.f1)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        left_out = f", {self.left_out} left out as not finite" if self.left_out else ""
        title = (
            f"{self.samples} samples{left_out}, {self.labels} labels, above the logit {self.threshold:g}, "
            f"{self.confidence:.4g} confidence"
        )
        rows = [
            ("subset accuracy", shown(self.subset_accuracy), ""),
            ("Hamming loss", shown(self.hamming_loss), f"always the commoner answer: {self.majority_hamming_loss:.4f}"),
            ("micro F1", shown(self.micro_f1), f"always every label: {self.all_labels_f1:.4f}"),
            ("macro F1", shown(self.macro_f1), ""),
            ("weighted F1", shown(self.weighted_f1), ""),
            ("F1 of a row", shown(self.samples_f1), f"{self.empty} rows have no label and get none" * bool(self.empty)),
        ]
        return "\n".join([title, "", *aligned(rows, "<<<"), "", *self._label_lines()])

    def _label_lines(self) -> list[str]:
        if self.labels > _SHOWN_LABELS:
            return ["for each label: `recall`, `precision`, `f1`, `positives`, `predicted`, `hits`"]
        rows = [("label", "samples", "recall", "precision", "F1")]
        for label, count in enumerate(self.positives):
            recall, precision, harmonic = (shown(rate[label]) for rate in (self.recall, self.precision, self.f1))
            rows.append((str(label), str(count), recall, precision, harmonic))
        return aligned(rows, ">><<<")


def summarize(native: _native.MultiLabel, confidence: float) -> MultiLabelResult:
    """Derive the result from the counts and sums of at least one sample."""
    counts, samples = native.counts(), native.samples
    exact, empty, products, shares = native.rows()
    positives, predicted, hits = (tuple(column) for column in zip(*counts, strict=True))
    recall = tuple(wilson(h, t, confidence) if t else None for t, _, h in counts)
    precision = tuple(wilson(h, p, confidence) if p else None for _, p, h in counts)
    harmonic = tuple(f1(h, t + p - 2 * h, confidence) if t + p else None for t, p, h in counts)
    # Of a label that is there, but never predicted, the precision is 0; of how many predictions is not known.
    certain = tuple(
        Estimate(value=0.0, low=0.0, high=1.0) if one is None and t else one
        for one, t in zip(precision, positives, strict=True)
    )
    t, p, h = sum(positives), sum(predicted), sum(hits)
    tt, pp, hh, tp, th, ph = products
    wrong = mean(t + p - 2 * h, tt + pp + 4 * hh + 2 * tp - 4 * th - 4 * ph, samples, confidence)
    flags = samples * len(counts)
    commoner = sum(min(one, samples - one) for one in positives)

    def pooled(total: int, of: int, variance: float) -> Estimate | None:
        return _pooled(total, of, variance, samples, confidence) if of else None

    def row_mean(place: int) -> Estimate:
        found = within(mean(shares[place], shares[place + 1], samples, confidence), 0.0, 1.0)
        return found if found.low < found.high else score_interval(found.value, samples, confidence)

    def of_precision(rate: float) -> float:
        return hh - 2.0 * rate * ph + rate * rate * pp

    def of_recall(rate: float) -> float:
        return hh - 2.0 * rate * th + rate * rate * tt

    def of_f1(rate: float) -> float:
        return 4.0 * hh - 4.0 * rate * (th + ph) + rate * rate * (tt + 2.0 * tp + pp)

    loss = within(
        Estimate(value=wrong.value / len(counts), low=wrong.low / len(counts), high=wrong.high / len(counts)), 0.0, 1.0
    )
    return MultiLabelResult(
        samples=samples,
        left_out=native.left_out,
        threshold=native.threshold,
        confidence=confidence,
        subset_accuracy=wilson(exact, samples, confidence),
        hamming_loss=loss if loss.low < loss.high else score_interval(loss.value, samples, confidence),
        recall=recall,
        precision=precision,
        f1=harmonic,
        micro_precision=pooled(h, p, of_precision(h / p) if p else 0.0),
        micro_recall=pooled(h, t, of_recall(h / t) if t else 0.0),
        micro_f1=pooled(2 * h, t + p, of_f1(2 * h / (t + p)) if t + p else 0.0),
        macro_precision=_mean(certain),
        macro_recall=_mean(recall),
        macro_f1=_mean(harmonic),
        weighted_precision=_mean(certain, positives),
        weighted_recall=_mean(recall, positives),
        weighted_f1=_mean(harmonic, positives),
        samples_precision=row_mean(0),
        samples_recall=row_mean(2),
        samples_f1=row_mean(4),
        empty=empty,
        positives=positives,
        predicted=predicted,
        hits=hits,
        majority_hamming_loss=commoner / flags,
        all_labels_f1=2.0 * t / (t + flags),
    )


def _pooled(total: int, of: int, squares: float, samples: int, confidence: float) -> Estimate:
    """Estimate a ratio of sums over rows from the sum of squared residuals of the rows.

    The linearised variance of a ratio (Cochran, 1977), as so many independent flags would have it: of these, Wilson's
    interval holds also near 0 and 1, where the variance that was seen is 0. Then each row counts as one flag.
    """
    rate = total / of
    if not 0 < total < of or squares <= 0.0 or samples < 2:
        return score_interval(rate, min(samples, of), confidence)
    variance = squares * samples / (samples - 1) / of**2
    return score_interval(rate, min(rate * (1.0 - rate) / variance, of), confidence)


def _mean(estimates: Sequence[Estimate | None], weights: Sequence[int] | None = None) -> Estimate | None:
    pairs = [
        (one, weight)
        for one, weight in zip(estimates, weights or [1] * len(estimates), strict=True)
        if one is not None and weight
    ]
    total = sum(weight for _, weight in pairs)
    if not total:
        return None
    value, low, high = (
        math.fsum(getattr(one, end) * weight for one, weight in pairs) / total for end in ("value", "low", "high")
    )
    return Estimate(value=value, low=min(low, value), high=max(high, value))
