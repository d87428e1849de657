"""How large a difference is, in units of the spread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.statistics.paired import differences

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def cohen_d(first: ArrayLike, second: ArrayLike) -> float:
    """Return the difference of two means over their pooled standard deviation (Cohen, 1988).

    For two groups of samples, not for pairs. Groups without any spread give plus or minus infinity, or 0 if their means
    are equal too.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(a.size, b.size) < 2 or a.ndim != 1 or b.ndim != 1:
        raise InputError(f"`first` has shape {a.shape} and `second` {b.shape}: each needs two numbers at least")
    degrees = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * float(a.var(ddof=1)) + (len(b) - 1) * float(b.var(ddof=1))) / degrees
    return _over(float(a.mean() - b.mean()), math.sqrt(pooled))


def hedges_g(first: ArrayLike, second: ArrayLike) -> float:
    """Return `cohen_d` without its bias in small groups: times 1 - 3 / (4 df - 1) (Hedges, 1981)."""
    degrees = np.size(first) + np.size(second) - 2
    return cohen_d(first, second) * (1.0 - 3.0 / (4.0 * degrees - 1.0))


def cohen_dz(first: ArrayLike, second: ArrayLike) -> float:
    """Return the mean of paired differences over their standard deviation; swapping the two flips its sign."""
    d = differences(first, second)
    if len(d) < 2:
        raise InputError(f"`first` holds {len(d)} pairs: the spread of differences needs two at least")
    return _over(float(d.mean()), float(d.std(ddof=1)))


def _over(difference: float, spread: float) -> float:
    if spread == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / spread
