"""Tails and quantiles of the few distributions that the tests need, without scipy.

The incomplete beta function carries them all: binomial bounds, Student's t. Its continued fraction is that of Didonato
and Morris (Significant digit computation of the incomplete beta function ratios, 1992), which takes x, 1 - x and the
distance from the mean apart, so that none of them is lost in the others; the factor before it is taken in Loader's form
(Fast and accurate computation of binomial probabilities, 2000), which does not lose digits in large counts as a
difference of log-gammas does.
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
    return _lower(x, a, b) if _is_low(x, a, b) else 1.0 - _upper(x, a, b)


def beta_tail(x: float, a: float, b: float) -> float:
    """Return 1 - I_x(a, b), to all digits also where it is close to 0, and where x is."""
    if x <= 0.0:
        return 1.0
    if x >= 1.0:
        return 0.0
    return 1.0 - _lower(x, a, b) if _is_low(x, a, b) else _upper(x, a, b)


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return the x with I_x(a, b) = p."""
    if p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    if beta_cdf(0.5, a, b) < p:
        return 1.0 - _quantile_below_half(1.0 - p, b, a)  # near 1 the distance from 1 is what has the digits
    return _quantile_below_half(p, a, b)


def beta_tail_quantile(tail: float, a: float, b: float) -> float:
    """Return the x with I_x(a, b) = 1 - tail, to all digits also where it is close to 0."""
    if beta_tail(0.5, a, b) > tail:
        return 1.0 - _quantile_below_half(tail, b, a)
    return _quantile_below_half(tail, a, b, of_tail=True)


def _quantile_below_half(p: float, a: float, b: float, *, of_tail: bool = False) -> float:
    low, high = 0.0, 0.5
    x = min(a / (a + b), 0.5)
    for _ in range(200):
        below = p - beta_tail(x, a, b) if of_tail else beta_cdf(x, a, b) - p
        if below > 0.0:
            high = x
        else:
            low = x
        slope = _front(x, a, b) / (x * (1.0 - x)) if 0.0 < x < 1.0 else 0.0
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


def _is_low(x: float, a: float, b: float) -> bool:
    return x <= (a + 1.0) / (a + b + 2.0)


def _lower(x: float, a: float, b: float) -> float:
    return _front(x, a, b) / _fraction(x, 1.0 - x, a, b, -_above(x, a, b))


def _upper(x: float, a: float, b: float) -> float:
    return _front(x, a, b) / _fraction(1.0 - x, x, b, a, _above(x, a, b))


def _above(x: float, a: float, b: float) -> float:
    """Return (a + b) x - a, by how much x is above the mean, without losing the smaller of x and 1 - x."""
    return (a + b) * x - a if x <= 0.5 else b - (a + b) * (1.0 - x)


def _front(x: float, a: float, b: float) -> float:
    """Return x^a (1 - x)^b / B(a, b)."""
    n, above = a + b, _above(x, a, b)
    exponent = (
        _stirling(n) - _stirling(a) - _stirling(b) - _deviance(a, n * x, -above) - _deviance(b, n * (1.0 - x), above)
    )
    return math.sqrt(a * b / (2.0 * math.pi * n)) * math.exp(exponent)


def _stirling(n: float) -> float:
    """Return ln Gamma(n + 1) less Stirling's formula for it."""
    if n < 16.0:
        return math.lgamma(n + 1.0) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2.0 * math.pi)
    s = 1.0 / (n * n)
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - s / 1188) * s) * s) * s) / n


def _deviance(x: float, mean: float, above: float) -> float:
    """Return x ln(x / mean) + mean - x, without cancellation where x is but a little `above` its mean."""
    both = x + mean
    if abs(above) > 0.1 * both:
        return x * math.log(x / mean) - above
    v = above / both
    total = above * v
    term = 2.0 * x * v
    k = 1
    while True:
        term *= v * v
        following = total + term / (2 * k + 1)
        if following == total:
            return total
        total, k = following, k + 1


def _fraction(x: float, y: float, a: float, b: float, excess: float) -> float:
    """Return the continued fraction that x^a y^b / (B(a, b) I_x(a, b)) is, by Lentz's method.

    `y` is 1 - x, and `excess` a y - b x.
    """
    value = (a / (a + 1.0)) * (excess + 1.0)
    value = value if abs(value) > _TINY else _TINY
    c, d = value, 0.0
    for m in range(1, _LONGEST):
        step = a + 2 * m
        numerator = (((a + (m - 1)) / (step - 1.0)) * ((a + b + (m - 1)) / (step - 1.0))) * m * (b - m) * x * x
        term = m + m * (b - m) * x / (step - 1.0) + ((a + m) / (step + 1.0)) * (excess + 1.0 + m * (1.0 + y))
        d = term + numerator * d
        c = term + numerator / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return value
