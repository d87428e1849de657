"""How large a difference is, in units of the spread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.statistics.paired import mean_and_spread, numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def cohen_d(first: ArrayLike, second: ArrayLike) -> float:
    """Return the difference of two means over their pooled standard deviation (Cohen, 1988).

    For two groups of samples, not for pairs. Groups without any spread give plus or minus infinity, or 0 if their means
    are equal too.

    Raises:
        InputError: A group has fewer than two numbers, or one that is not finite.
    """
    a, b = numbers("first", first), numbers("second", second)
    if min(len(a), len(b)) < 2:
        raise InputError(f"`first` has shape {a.shape} and `second` {b.shape}: each needs two numbers at least")
    degrees = len(a) + len(b) - 2
    (mean, squares), (other, more) = _mean_and_squares(a), _mean_and_squares(b)
    return _over(mean - other, math.sqrt((squares + more) / degrees))


def hedges_g(first: ArrayLike, second: ArrayLike) -> float:
    """Return `cohen_d` without its bias in small groups: times 1 - 3 / (4 df - 1) (Hedges, 1981)."""
    degrees = np.size(first) + np.size(second) - 2
    return cohen_d(first, second) * (1.0 - 3.0 / (4.0 * degrees - 1.0))


def cohen_dz(first: ArrayLike, second: ArrayLike) -> float:
    """Return the mean of paired differences over their standard deviation; swapping the two flips its sign."""
    mean, spread, _ = mean_and_spread(first, second)
    return _over(mean, spread)


def _mean_and_squares(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and the sum of squared deviations, both exact where all values are one."""
    if (values == values[0]).all():
        return float(values[0]), 0.0
    return float(values.mean()), float(values.var()) * len(values)


def _over(difference: float, spread: float) -> float:
    if spread == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / spread
