"""Do two systems differ on the same samples? McNemar, paired t, Wilcoxon and permutation tests.

Every test takes two arrays in the same order of samples: what one system scored, and what the other did. The difference
is the first less the second. What rounding leaves of equal numbers (0.3 - 0.2 is not 0.2 - 0.1) is no difference, and
breaks no tie.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.estimate import Estimate, normal_quantile
from flyball.measure.inputs import number
from flyball.measure.statistics.distributions import chi_square_tail, normal_tail, student_quantile, student_tail
from flyball.measure.statistics.outcome import TestOutcome

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_FEW_DISCORDANT = 25
_EXACT_PAIRS = 50
_ALL_SIGNS = 20  # 2^20 sums
_CHUNK = 1 << 22
_LAST_BITS = 16  # so many units in the last place are rounding
_SUM_ERROR = 1e-12  # of the sum of magnitudes, by which sums in another order may differ


def mcnemar(first: ArrayLike, second: ArrayLike) -> TestOutcome:
    """Test whether two classifiers are right equally often on the same samples (McNemar, 1947).

    Only samples on which one is right and the other wrong say anything. Up to 24 of them the binomial test is exact;
    from 25 on it is the chi-square with continuity correction, (max(|b - c| - 1, 0))^2 / (b + c).

    Args:
        first: For each sample whether the first one is right, as booleans or 0 and 1.
        second: The same for the second one.
    """
    right, other = _truths("first", first), _truths("second", second)
    _same_length(right, other)
    gained = int(np.count_nonzero(right & ~other))
    lost = int(np.count_nonzero(~right & other))
    return mcnemar_counts(gained, lost, len(right))


def mcnemar_counts(gained: int, lost: int, samples: int) -> TestOutcome:
    """Return `mcnemar` from how many samples only the first, and only the second, got right."""
    gained, lost, samples = number(gained, "gained"), number(lost, "lost"), number(samples, "samples")
    if gained + lost > samples:
        raise InputError(f"`gained` is {gained} and `lost` {lost} of {samples} `samples`: counts must fit in them")
    discordant = gained + lost
    smallest = min(1.0, 2.0 * 0.5**discordant)
    if discordant < _FEW_DISCORDANT:
        tail = sum(math.comb(discordant, k) for k in range(min(gained, lost) + 1))
        p = min(1.0, 2.0 * (tail / (1 << discordant)))
        return TestOutcome("McNemar (exact)", samples, float(min(gained, lost)), p, smallest)
    statistic = max(abs(gained - lost) - 1, 0) ** 2 / discordant
    most = (discordant - 1) ** 2 / discordant
    return TestOutcome("McNemar (chi-square)", samples, statistic, chi_square_tail(statistic), chi_square_tail(most))


def paired_t(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> TestOutcome:
    """Test whether the mean of paired differences is zero, by Student's t.

    Differences without any spread give an infinite statistic, unless all are zero, which shows nothing: p is 1.

    Raises:
        InputError: There are fewer than two pairs, or a value is not finite.
    """
    normal_quantile(confidence)  # raises if it is out of range
    mean, spread, n = mean_and_spread(first, second)
    half = student_quantile((1.0 - confidence) / 2.0, n - 1) * spread / math.sqrt(n)
    interval = Estimate(value=mean, low=mean - half, high=mean + half)
    if spread == 0.0:
        statistic = math.copysign(math.inf, mean) if mean else 0.0
        return TestOutcome("paired t", n, statistic, 0.0 if mean else 1.0, 0.0, interval)
    statistic = mean / (spread / math.sqrt(n))
    p = min(1.0, 2.0 * student_tail(abs(statistic), n - 1))
    return TestOutcome("paired t", n, statistic, p, 0.0, interval)


def wilcoxon(first: ArrayLike, second: ArrayLike) -> TestOutcome:
    """Test whether paired differences are symmetric about zero, by Wilcoxon's signed ranks.

    Zeros take part in the ranking and are then left out (Pratt, 1959). Up to 50 pairs the p-value is exact, ties and
    zeros included: the distribution of the rank sum over all signs, given the ranks. Beyond, the normal approximation
    with the variance of the ranks that are there.

    Raises:
        InputError: There are no pairs, or a value is not finite.
    """
    d, errors = differences(first, second)
    n = len(d)
    doubled = doubled_ranks(np.abs(d), errors)
    ranks = doubled[d != 0.0]
    positive = int(doubled[d > 0.0].sum())
    total = int(ranks.sum())
    least = min(positive, total - positive)
    smallest = min(1.0, 2.0 * 0.5 ** len(ranks))
    if n <= _EXACT_PAIRS:
        ways = np.zeros(total + 1)
        ways[0] = 1.0
        for rank in ranks.tolist():
            ways[rank:] += ways[: total + 1 - rank].copy()
        p = min(1.0, 2.0 * float(ways[: least + 1].sum()) / 2.0 ** len(ranks))
        return TestOutcome("Wilcoxon (exact)", n, least / 2.0, p, smallest)
    if len(ranks) <= _ALL_SIGNS:  # many pairs, few of which differ: the normal curve would promise too much
        sums = np.zeros(1, dtype=np.int64)
        for rank in ranks.tolist():
            sums = np.concatenate([sums, sums + rank])
        p = min(1.0, 2.0 * float(np.count_nonzero(sums <= least)) / len(sums))
        return TestOutcome("Wilcoxon (exact)", n, least / 2.0, p, smallest)
    # Var of the sum of positive ranks is a quarter of the sum of their squares; these ranks are doubled.
    deviation = math.sqrt(float((ranks.astype(np.float64) ** 2).sum()) / 4.0)
    z = (positive - total / 2.0) / deviation
    return TestOutcome("Wilcoxon (normal)", n, least / 2.0, min(1.0, 2.0 * normal_tail(abs(z))), smallest)


def permutation(first: ArrayLike, second: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> TestOutcome:
    """Test whether the mean of paired differences is zero, by flipping their signs (Fisher, 1935).

    Up to 20 pairs that differ every assignment of signs is tried; beyond, `draws` random ones, and the observed one
    counts among them, so the p-value is never zero.

    Raises:
        InputError: There are no pairs, a value is not finite, `draws` is below 1, or `seed` is no whole number.
    """
    d, errors = differences(first, second)
    draws, seed = number(draws, "draws"), number(seed, "seed")
    if draws < 1:
        raise InputError(f"`draws` is {draws}: it must be 1 at least")
    n = len(d)
    mean = float(d.mean())
    moved = d[d != 0.0]
    observed = abs(float(moved.sum())) - _SUM_ERROR * float(np.abs(moved).sum()) - float(errors.sum())
    if len(moved) <= _ALL_SIGNS:
        sums = np.zeros(1)
        for one in moved:
            sums = np.concatenate([sums + one, sums - one])
        p = float(np.count_nonzero(np.abs(sums) >= observed)) / len(sums)
        return TestOutcome("permutation (exact)", n, mean, p, min(1.0, 2.0 / len(sums)))
    generator = np.random.Generator(np.random.PCG64(seed))
    extreme, left = 1, draws
    while left:
        rows = min(left, max(1, _CHUNK // len(moved)))
        signs = generator.integers(0, 2, size=(rows, len(moved)), dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs(2.0 * (signs @ moved) - moved.sum()) >= observed))
        left -= rows
    return TestOutcome("permutation", n, mean, extreme / (draws + 1), 1.0 / (draws + 1))


def equivalence(first: ArrayLike, second: ArrayLike, *, margin: float, confidence: float = 0.95) -> TestOutcome:
    """Test whether two systems are alike: whether the mean difference lies within plus and minus `margin`.

    Two one-sided t tests (Schuirmann, 1987); a small p-value shows that they are alike. The interval of the difference
    is the one that decides it: it has confidence 1 - 2 alpha.

    Raises:
        InputError: There are fewer than two pairs, a value is not finite, or `margin` is not above zero.
    """
    if not 0.5 < confidence < 1.0:
        raise InputError(f"`confidence` is {confidence}: it must be between 0.5 and 1, as 0.95 is for 95 %")
    if not 0.0 < margin < math.inf:
        raise InputError(f"`margin` is {margin}: it must be above zero, the difference that would matter to you")
    mean, spread, n = mean_and_spread(first, second)
    error = spread / math.sqrt(n)
    half = student_quantile(1.0 - confidence, n - 1) * error
    nearest = margin - abs(mean)
    if error == 0.0:
        statistic, p = math.copysign(math.inf, nearest), 0.0 if nearest > 0.0 else 1.0
    else:
        statistic = nearest / error
        p = student_tail(statistic, n - 1)
    return TestOutcome(
        f"equivalence within {margin:g}", n, statistic, p, 0.0, Estimate(value=mean, low=mean - half, high=mean + half)
    )


def differences(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return first - second as doubles, and how much of each may be rounding; a difference that is no more is zero.

    Raises:
        InputError: They differ in length, are empty, or hold a value that is not finite.
    """
    a, b = numbers("first", first), numbers("second", second)
    _same_length(a, b)
    errors = _LAST_BITS * (_unit(first) * np.abs(a) + _unit(second) * np.abs(b))
    d = a - b
    return np.where(np.abs(d) <= errors, 0.0, d), errors


def mean_and_spread(first: ArrayLike, second: ArrayLike) -> tuple[float, float, int]:
    """Return the mean of paired differences, their standard deviation, and how many there are.

    Differences that are equal but for rounding have the standard deviation 0.

    Raises:
        InputError: As `differences`, or there are fewer than two.
    """
    d, errors = differences(first, second)
    if len(d) < 2:
        raise InputError(f"`first` holds {len(d)} pairs: the spread of differences needs two at least")
    return float(d.mean()), 0.0 if np.ptp(d) <= 2.0 * errors.max() else float(d.std(ddof=1)), len(d)


def doubled_ranks(values: NDArray[np.float64], errors: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Return twice the rank of each value, from 2 on; ties share the mean of their ranks, which is then whole.

    Neighbours no further apart than their `errors` are ties.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    slack = np.zeros(len(values)) if errors is None else errors[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] - ordered[:-1] > slack[1:] + slack[:-1]]))
    ends = np.concatenate([starts[1:], [len(values)]])
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.repeat(starts + ends + 1, ends - starts)
    return ranks


def _unit(values: ArrayLike) -> float:
    """Return the relative error of the type that the values came in; whole numbers have none."""
    kind = np.asarray(values).dtype
    return float(np.finfo(kind).eps) if kind.kind == "f" else 0.0


def numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return one finite number for each sample, as doubles.

    Raises:
        InputError: It is something else.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise InputError(f"`{name}` has shape {array.shape}: pass one number for each sample, and one sample at least")
    if not np.isfinite(array).all():
        raise InputError(f"`{name}` holds a value that is not finite: decide what it means before you test it")
    return array


def _truths(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    array = numbers(name, values)
    if not np.isin(array, (0.0, 1.0)).all():
        raise InputError(f"`{name}` holds values besides 0 and 1: pass whether each sample is right")
    return array.astype(np.bool_)


def _same_length(first: NDArray[np.generic], second: NDArray[np.generic]) -> None:
    if len(first) != len(second):
        raise InputError(f"`first` has {len(first)} samples and `second` {len(second)}: both must be of the same ones")
