"""Scores of a whole confusion matrix, with intervals by the delta method.

A confusion matrix is a draw from a multinomial distribution over its cells. To first order, the
variance of a score s is (E[g^2] - E[g]^2) / n, where g is the derivative of s by the share of a
cell (K. Takahashi et al., "Confidence interval for micro-averaged F1 and macro-averaged F1
scores", Applied Intelligence 52, 2022, do this for F1). All three scores here have derivatives of
the form g[i, j] = own[i]·(i = j) + row[i] + column[j], so no second matrix is built.

Taken at the counts themselves, a matrix without errors would have a variance of 0 and claim
certainty. So the interval, not the value, is computed as if z^2 more samples had been seen, half
of them right, their targets distributed like the others and their errors evenly: for accuracy
that is the interval of Agresti and Coull (The American Statistician 52, 1998). It fades as samples
come in.

The intervals are asymptotic: with many classes and few samples in each, they are too short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flyball.measure.estimate import Estimate, normal_quantile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix in shares of all samples, as if `extra` more of them had been seen."""

    counts: NDArray[np.int64]
    extra: float = 0.0

    @property
    def total(self) -> float:
        """The number of samples, with the extra ones."""
        return float(self.counts.sum()) + self.extra

    @property
    def rows(self) -> Vector:
        """The share of each class among the targets; the extra ones do not change it."""
        targets: Vector = self.counts.sum(axis=1) / self.counts.sum()
        return targets

    @property
    def columns(self) -> Vector:
        """The share of each class among the predictions."""
        return self._mixed(self.counts.sum(axis=0), self._errors.sum() - self._errors + self._hits)

    @property
    def diagonal(self) -> Vector:
        """The share of all samples that are of a class and predicted as it."""
        return self._mixed(self.counts.diagonal(), self._hits)

    def times(self, column: Vector) -> Vector:
        """Return the matrix of shares times a vector."""
        spread = self._errors * (column.sum() - column) + self._hits * column
        return self._mixed(self.counts @ column, spread)

    @property
    def _hits(self) -> Vector:
        return self.rows / 2.0

    @property
    def _errors(self) -> Vector:
        """The share of each wrong prediction among the extra samples, by target."""
        return self.rows / 2.0 / (len(self.counts) - 1)

    def _mixed(self, seen: NDArray[np.int64] | Vector, extra: Vector) -> Vector:
        mixed: Vector = (seen + self.extra * extra) / self.total
        return mixed


@dataclass(frozen=True, slots=True)
class Score:
    """A score and its derivative by the share of a cell, in three parts."""

    value: float
    own: Vector
    row: Vector
    column: Vector

    def standard_error(self, at: Confusion) -> float:
        """Return the standard deviation of the score over samples as large as this one."""
        own, row, column = self.own, self.row, self.column
        diagonal, rows, columns = at.diagonal, at.rows, at.columns
        mean = diagonal @ own + rows @ row + columns @ column
        square = (
            diagonal @ (own * (own + 2.0 * (row + column)))
            + rows @ row**2
            + columns @ column**2
            + 2.0 * (row @ at.times(column))
        )
        return math.sqrt(max(0.0, float(square - mean**2)) / at.total)


def balanced_accuracy(counts: NDArray[np.int64], confidence: float) -> Estimate:
    """Estimate the mean recall over the classes that are among the targets."""
    present = counts.sum(axis=1) > 0

    def score(at: Confusion) -> Score:
        recall = _where(present, at.diagonal, at.rows)
        own = _where(present, np.ones_like(recall), at.rows) / present.sum()
        return Score(float(recall.sum() / present.sum()), own, -recall * own, 0.0 * own)

    return _estimate(score, counts, confidence, lowest=0.0)


def macro_f1(counts: NDArray[np.int64], confidence: float) -> Estimate:
    """Estimate the mean F1 over the classes that are among the targets or the predictions."""
    present = counts.sum(axis=0) + counts.sum(axis=1) > 0

    def score(at: Confusion) -> Score:
        both = at.rows + at.columns
        f1 = _where(present, 2.0 * at.diagonal, both)
        slope = _where(present, np.ones_like(f1), both) / present.sum()
        edge = -f1 * slope
        return Score(float(f1.sum() / present.sum()), 2.0 * slope, edge, edge)

    return _estimate(score, counts, confidence, lowest=0.0)


def weighted_f1(counts: NDArray[np.int64], confidence: float) -> Estimate:
    """Estimate the mean F1, each class weighted by its share of the targets."""
    present = counts.sum(axis=0) + counts.sum(axis=1) > 0

    def score(at: Confusion) -> Score:
        rows, both = at.rows, at.rows + at.columns
        f1 = _where(present, 2.0 * at.diagonal, both)
        weight = _where(present, rows, both)  # of a class, by what its F1 is divided by
        return Score(float(rows @ f1), 2.0 * weight, f1 - weight * f1, -weight * f1)

    return _estimate(score, counts, confidence, lowest=0.0)


def macro_precision(counts: NDArray[np.int64], confidence: float) -> Estimate:
    """Estimate the mean precision over the classes that `macro_f1` counts; 0 for one that was never predicted."""
    predicted = counts.sum(axis=0) > 0
    present = np.count_nonzero(predicted | (counts.sum(axis=1) > 0))

    def score(at: Confusion) -> Score:
        precision = _where(predicted, at.diagonal, at.columns)
        own = _where(predicted, np.ones_like(precision), at.columns) / present
        return Score(float(precision.sum() / present), own, 0.0 * own, -precision * own)

    return _estimate(score, counts, confidence, lowest=0.0)


def weighted_precision(counts: NDArray[np.int64], confidence: float) -> Estimate:
    """Estimate the mean precision, each class weighted by its share of the targets."""
    predicted = counts.sum(axis=0) > 0

    def score(at: Confusion) -> Score:
        precision = _where(predicted, at.diagonal, at.columns)
        own = _where(predicted, at.rows, at.columns)
        return Score(float(at.rows @ precision), own, precision, -precision * own)

    return _estimate(score, counts, confidence, lowest=0.0)


def matthews(counts: NDArray[np.int64], confidence: float) -> Estimate | None:
    """Estimate the correlation of targets and predictions (Gorodkin's R_K).

    None if the targets or the predictions hold a single class: what does not vary does not
    correlate.
    """
    if min(np.count_nonzero(counts.any(axis=axis)) for axis in (0, 1)) < 2:
        return None

    def score(at: Confusion) -> Score:
        rows, columns = at.rows, at.columns
        right = at.diagonal.sum()
        covariance = right - rows @ columns
        spread = math.sqrt((1.0 - rows @ rows) * (1.0 - columns @ columns))
        value = float(covariance / spread)
        # Every part is a polynomial in the shares and their sum, of degree two.
        row = (right - columns) / spread - value * (1.0 - rows) / (1.0 - rows @ rows)
        column = -rows / spread - value * (1.0 - columns) / (1.0 - columns @ columns)
        return Score(value, np.full_like(rows, 1.0 / spread), row, column)

    return _estimate(score, counts, confidence, lowest=-1.0)


def _where(present: NDArray[np.bool_], numerator: Vector, denominator: Vector) -> Vector:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=present)


def _estimate(
    score: Callable[[Confusion], Score],
    counts: NDArray[np.int64],
    confidence: float,
    *,
    lowest: float,
) -> Estimate:
    z = normal_quantile(confidence)
    value = score(Confusion(counts)).value
    regular = Confusion(counts, extra=z * z)
    center = score(regular)
    half = z * center.standard_error(regular)
    return Estimate(
        value=value,
        low=min(value, max(lowest, center.value - half)),
        high=max(value, min(1.0, center.value + half)),
    )
