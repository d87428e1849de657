"""How sure is a number that has no formula for its interval? Resample the data, and look at it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from flyball import _native
from flyball.errors import InputError
from flyball.measure.estimate import Estimate, normal_quantile
from flyball.measure.inputs import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

Statistic: TypeAlias = "Literal['mean'] | Callable[[NDArray[np.float64]], float]"
Method: TypeAlias = Literal["percentile", "basic", "bca"]

_METHODS = ("percentile", "basic", "bca")
_DRAWS_A_CALL = 250  # between two calls Python looks for Ctrl-C
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """A statistic, its interval, and what it was in every resample.

    Attributes:
        estimate: The statistic of the data, with its interval.
        method: Which interval it is.
        draws: The statistic of each resample.
        degenerate: In how many resamples the statistic was not a number; they are left out of the interval.
    """

    estimate: Estimate
    method: str
    draws: NDArray[np.float64]
    degenerate: int


def bootstrap(
    data: ArrayLike,
    statistic: Statistic = "mean",
    *,
    draws: int = 2000,
    method: Method = "bca",
    confidence: float = 0.95,
    strata: ArrayLike | None = None,
    seed: int = 0,
) -> Bootstrap:
    """Estimate a statistic with its bootstrap interval (Efron and Tibshirani, 1993).

    The rows of `data` are resampled whole, so what belongs to one sample stays together: to compare two systems on the
    same samples give both as columns, or their difference. The same seed gives the same resamples.

    Args:
        data: One row for each sample: numbers, or several columns.
        statistic: "mean", which is done in Rust, or a function of resampled data that returns one number.
        draws: How many resamples.
        method: "bca" corrects for bias and skew; "percentile" takes the quantiles of the resamples as they are; "basic"
            mirrors them at the statistic.
        confidence: The share of intervals that hold the truth.
        strata: A label for each row; as many rows are drawn from each label as it has.
        seed: Of the resamples.

    Raises:
        InputError: An argument is out of range, or the statistic is not a number on the data themselves.
    """
    draws, seed = number(draws, "draws"), number(seed, "seed")
    rows = _rows(data, statistic)
    if method not in _METHODS:
        raise InputError(f"`method` is {method!r}: it is one of {', '.join(map(repr, _METHODS))}")
    if draws < 2:
        raise InputError(f"`draws` is {draws}: an interval needs 2 at least, and a steady one a thousand")
    normal_quantile(confidence)  # raises if it is out of range
    order, sizes = _strata(strata, len(rows))
    rows = rows[order]
    value = _mean(rows) if statistic == "mean" else float(statistic(rows))
    if not math.isfinite(value):
        raise InputError(f"`statistic` is {value} on the data themselves: it must be a number there")
    if statistic == "mean":
        drawn = _resampled_means(rows.reshape(-1), sizes, draws, seed)
    else:
        drawn = _resampled(rows, statistic, sizes, draws, seed)
    finite = drawn[np.isfinite(drawn)]
    if len(finite) < 2:
        raise InputError(f"`statistic` is a number in {len(finite)} of {draws} resamples: there is no interval in that")
    tails = (1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0
    if method == "bca":
        tails = _corrected(finite, value, _jackknife(rows, statistic, value), sizes, tails)
    low, high = np.quantile(finite, tails).tolist()
    if method == "basic":
        low, high = 2.0 * value - high, 2.0 * value - low
    return Bootstrap(Estimate(value=value, low=low, high=high), method, drawn, len(drawn) - len(finite))


def calls(draws: int) -> Iterator[tuple[int, int]]:
    """Yield the first draw and the number of draws of each call into Rust, few enough for Ctrl-C to be heard."""
    for first in range(0, draws, _DRAWS_A_CALL):
        yield first, min(_DRAWS_A_CALL, draws - first)


def interval(drawn: NDArray[np.float64], value: float, confidence: float) -> Estimate:
    """Return a number with the percentile interval of what it was in resamples."""
    low, high = np.quantile(drawn, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]).tolist()
    return Estimate(value=value, low=low, high=high)


def _rows(data: ArrayLike, statistic: Statistic) -> NDArray[np.float64]:
    rows = np.ascontiguousarray(data, dtype=np.float64)
    if rows.ndim not in {1, 2} or not rows.size:
        raise InputError(f"`data` has shape {rows.shape}: pass one row for each sample, and one sample at least")
    if callable(statistic):
        return rows
    if statistic != "mean":
        raise InputError(f"`statistic` is {statistic!r}: it is 'mean', or a function as `numpy.median` is")
    if rows.ndim == 2 and rows.shape[1] != 1:
        raise InputError(f"`data` has {rows.shape[1]} columns, and `statistic` is 'mean': say of what, with a function")
    values = rows.reshape(-1)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise InputError(f"`data` holds {values[row]} in row {row}, which has no mean: leave the row out")
    return rows


def _strata(labels: ArrayLike | None, rows: int) -> tuple[NDArray[np.intp], list[int]]:
    """Return the order in which rows of one stratum stand together, and how many each has."""
    if labels is None:
        return np.arange(rows), [rows]
    array = np.asarray(labels)
    if array.shape != (rows,):
        raise InputError(f"`strata` has shape {array.shape}: pass one label for each of the {rows} rows")
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    return np.argsort(inverse, kind="stable"), counts.tolist()


def _mean(rows: NDArray[np.float64]) -> float:
    try:
        return math.fsum(rows.reshape(-1).tolist()) / len(rows)
    except OverflowError:
        return math.inf


def _resampled_means(values: NDArray[np.float64], strata: list[int], draws: int, seed: int) -> NDArray[np.float64]:
    parts = [_native.resample_means(values, 1, strata, seed, first, count, 1) for first, count in calls(draws)]
    return np.concatenate(parts)


def _resampled(
    rows: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], float],
    strata: list[int],
    draws: int,
    seed: int,
) -> NDArray[np.float64]:
    generator = np.random.Generator(np.random.PCG64(seed))
    begins = np.cumsum([0, *strata[:-1]]).tolist()
    drawn = np.empty(draws)
    for draw in range(draws):
        chosen = [b + generator.integers(0, size, size) for b, size in zip(begins, strata, strict=True)]
        drawn[draw] = statistic(rows[np.concatenate(chosen)])
    return drawn


def _jackknife(rows: NDArray[np.float64], statistic: Statistic, value: float) -> NDArray[np.float64]:
    """Return the statistic with each row left out."""
    n = len(rows)
    if n < 2:
        return np.zeros(1)
    if statistic == "mean":
        return (value * n - rows.reshape(-1)) / (n - 1)
    kept = ~np.eye(n, dtype=np.bool_) if n <= 2048 else None
    if kept is not None:
        return np.array([float(statistic(rows[one])) for one in kept])
    return np.array([float(statistic(np.delete(rows, i, axis=0))) for i in range(n)])


def _corrected(
    drawn: NDArray[np.float64],
    value: float,
    jackknife: NDArray[np.float64],
    strata: list[int],
    tails: tuple[float, float],
) -> tuple[float, float]:
    """Return the tails moved for bias and for a spread that changes with the value (BCa; Efron, 1987).

    A row is compared with those of its own stratum, as what lies between strata is not resampled (Davison and Hinkley,
    1997).
    """
    below = (np.count_nonzero(drawn < value) + np.count_nonzero(drawn <= value)) / (2.0 * len(drawn))
    if not 0.0 < below < 1.0 or not np.isfinite(jackknife).all():
        return tails  # every resample lies on one side, or the statistic breaks without one row: nothing to correct by
    bias = _NORMAL.inv_cdf(below)
    centres = [np.full(len(part), part.mean()) for part in np.split(jackknife, np.cumsum(strata[:-1]))]
    deviations = np.concatenate(centres) - jackknife
    spread = float((deviations**2).sum())
    skew = float((deviations**3).sum()) / (6.0 * spread**1.5) if spread > 0.0 else 0.0

    def moved(tail: float) -> float:
        z = bias + _NORMAL.inv_cdf(tail)
        return _NORMAL.cdf(bias + z / (1.0 - skew * z))

    return moved(tails[0]), moved(tails[1])
