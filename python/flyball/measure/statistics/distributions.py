"""Tails and quantiles of the few distributions that the tests need, without scipy.

The incomplete beta function carries them all: binomial bounds, Student's t. Its continued fraction is DLMF 8.17.22; the
factor before it is taken in Loader's form (Fast and accurate computation of binomial probabilities, 2000), which does
not lose digits in large counts as a difference of log-gammas does.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_LONGEST = 100_000  # terms; about the square root of the larger parameter are needed


def normal_tail(z: float) -> float:
    """Return the probability that a standard normal is above z."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def chi_square_tail(x: float) -> float:
    """Return the probability that a chi-square of one degree of freedom is above x."""
    return math.erfc(math.sqrt(x / 2.0))


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for 0 <= x <= 1 and positive a, b."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_front(1.0 - x, b, a) * _fraction(1.0 - x, b, a) / b
    return _beta_front(x, a, b) * _fraction(x, a, b) / a


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return the x with I_x(a, b) = p."""
    if p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    if beta_cdf(0.5, a, b) < p:
        return 1.0 - _quantile_below_half(1.0 - p, b, a)  # near 1 the distance from 1 is what has the digits
    return _quantile_below_half(p, a, b)


def _quantile_below_half(p: float, a: float, b: float) -> float:
    low, high = 0.0, 0.5
    x = min(a / (a + b), 0.5)
    for _ in range(200):
        below = beta_cdf(x, a, b) - p
        if below > 0.0:
            high = x
        else:
            low = x
        slope = _beta_front(x, a, b) / (x * (1.0 - x)) if 0.0 < x < 1.0 else 0.0
        newton = x - below / slope if slope > 0.0 else -1.0
        # Newton where it stays inside, the middle where it does not: of the logarithm when the bracket touches zero.
        following = newton if low < newton < high else (0.5 * (low + high) if low > 0.0 else high * 0.125)
        if abs(following - x) <= 1e-15 * x:
            return following
        x = following
    return x


def student_tail(t: float, degrees: float) -> float:
    """Return the probability that Student's t is above t."""
    if math.isinf(t):
        return 0.0 if t > 0.0 else 1.0
    square = t * t
    if square < 1.0:  # degrees / (degrees + square) would lose the digits of a small square
        half = 0.5 - 0.5 * beta_cdf(square / (degrees + square), 0.5, 0.5 * degrees)
    else:
        half = 0.5 * beta_cdf(degrees / (degrees + square), 0.5 * degrees, 0.5)
    return half if t >= 0.0 else 1.0 - half


def student_quantile(tail: float, degrees: float) -> float:
    """Return the t that Student's t exceeds with probability `tail`, at most one half."""
    if tail > 0.25:
        y = beta_quantile(1.0 - 2.0 * tail, 0.5, 0.5 * degrees)
        return math.sqrt(degrees * y / (1.0 - y))
    x = beta_quantile(2.0 * tail, 0.5 * degrees, 0.5)
    return math.sqrt(degrees * (1.0 - x) / x) if x > 0.0 else math.inf


def _beta_front(x: float, a: float, b: float) -> float:
    """Return x^a (1 - x)^b / B(a, b)."""
    n = a + b
    exponent = _stirling(n) - _stirling(a) - _stirling(b) - _deviance(a, n * x) - _deviance(b, n * (1.0 - x))
    return math.sqrt(a * b / (2.0 * math.pi * n)) * math.exp(exponent)


def _stirling(n: float) -> float:
    """Return ln Gamma(n + 1) less Stirling's formula for it."""
    if n < 16.0:
        return math.lgamma(n + 1.0) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2.0 * math.pi)
    s = 1.0 / (n * n)
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - s / 1188) * s) * s) * s) / n


def _deviance(x: float, mean: float) -> float:
    """Return x ln(x / mean) + mean - x, without cancellation where the two are close."""
    if abs(x - mean) > 0.1 * (x + mean):
        return x * math.log(x / mean) + mean - x
    v = (x - mean) / (x + mean)
    total = (x - mean) * v
    term = 2.0 * x * v
    k = 1
    while True:
        term *= v * v
        following = total + term / (2 * k + 1)
        if following == total:
            return total
        total, k = following, k + 1


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _LONGEST):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 + term * d
            c = 1.0 + term / c
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return value
