"""Whether a classifier is right as often as it says, from counts by confidence.

The expected calibration error is sum_b n_b/n |hits_b/n_b - confidence_b| over the bins b (Guo et al., "On
calibration of modern neural networks", 2017); the maximum calibration error is the largest gap of a bin that holds
samples. Both are measured within these bins: what cancels inside a bin stays hidden.

The measured error is too large on average, as the absolute value of noise is not 0. With s_b the standard error of
the rate in bin b, the excess is at most sqrt(2/pi) s_b, the mean of |N(0, s_b)|, so the interval of the expected error
reaches down by the sum of those and by z standard errors (delta method), and up by z standard errors. It holds the
truth at least as often as it says. The interval of the maximum comes from Wilson's intervals of all bins at once
(Bonferroni), so it is wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.measure.estimate import Estimate, normal_quantile, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # Count, hits and sum of confidences of each bin.
    Bins = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The predictions whose confidence fell into one range.

    Attributes:
        count: How many there are.
        confidence: Their mean confidence; None without any.
        accuracy: The share that is right, with Wilson's interval; None without any.
    """

    count: int
    confidence: float | None
    accuracy: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        accuracy = None if self.accuracy is None else self.accuracy.to_dict()
        return {"count": self.count, "confidence": self.confidence, "accuracy": accuracy}


def reliability(bins: Bins, confidence: float) -> tuple[ReliabilityBin, ...]:
    """Describe each bin."""
    triples = zip(*(column.tolist() for column in bins), strict=True)
    return tuple(
        ReliabilityBin(count, total / count, wilson(hits, count, confidence))
        if count
        else ReliabilityBin(0, None, None)
        for count, hits, total in triples
    )


def expected_error(bins: Bins, confidence: float) -> Estimate:
    """Estimate the expected calibration error from bins that hold at least one sample."""
    z = normal_quantile(confidence)
    count, hits, gap = _gaps(bins)
    samples = count.sum()
    share = count / samples
    value = float(share @ gap)
    # As if z^2 more samples had been seen in the bin, half of them right: no bin is certain.
    rate = (hits + z * z / 2.0) / (count + z * z)
    variance = rate * (1.0 - rate) / (count + z * z)
    spread = (share @ gap**2 - value**2) / samples  # the shares of the bins vary, too
    half = z * math.sqrt(max(0.0, float(share**2 @ variance) + float(spread)))
    excess = math.sqrt(2.0 / math.pi) * float(share @ np.sqrt(variance))
    return Estimate(value=value, low=max(0.0, value - excess - half), high=min(1.0, value + half))


def maximum_error(bins: Bins, confidence: float) -> Estimate:
    """Estimate the maximum calibration error from bins that hold at least one sample."""
    count, hits, gap = _gaps(bins)
    mean = bins[2][bins[0] > 0] / count
    value = float(gap.max())
    at_once = 1.0 - (1.0 - confidence) / len(count)
    rates = [wilson(int(hit), int(trials), at_once) for hit, trials in zip(hits, count, strict=True)]
    low = np.array([rate.low for rate in rates])
    high = np.array([rate.high for rate in rates])
    least = np.maximum(0.0, np.maximum(low - mean, mean - high)).max()
    most = np.maximum(np.abs(low - mean), np.abs(high - mean)).max()
    return Estimate(value=value, low=min(value, float(least)), high=max(value, min(1.0, float(most))))


def _gaps(bins: Bins) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    seen = bins[0] > 0
    count, hits = bins[0][seen], bins[1][seen]
    gap: NDArray[np.float64] = np.abs(hits - bins[2][seen]) / count
    return count, hits, gap
