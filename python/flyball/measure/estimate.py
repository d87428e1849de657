"""A measured number with its interval, and the intervals that have a closed form."""

from __future__ import annotations

import math
from statistics import NormalDist

from flyball import events
from flyball.errors import InputError
from flyball.measure.inputs import number


class Estimate(events.Estimate):
    """A measured number with its interval; `float(estimate)` is the number.

    An interval is what the number says about the population that the samples were drawn from,
    independently of each other. An end that nothing is known about is infinite.
    """

    __slots__ = ()

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def to_dict(self) -> dict[str, float | None]:
        """Return plain data; an infinite number or end, which JSON does not have, is None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: number if math.isfinite(number) else None for name, number in numbers.items()}


def normal_quantile(confidence: float) -> float:
    """Return how many standard errors the interval reaches to each side.

    Raises:
        InputError: `confidence` is not between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:  # false for NaN, too
        raise InputError(f"`confidence` is {confidence}: it must be between 0 and 1, as 0.95 is for 95 %")
    return -NormalDist().inv_cdf((1.0 - confidence) / 2.0)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Estimate a rate from counts, with Wilson's score interval.

    It covers well from a handful of trials on, also near 0 and 1, where the textbook interval of
    value plus and minus standard errors claims certainty.

    Raises:
        InputError: There are no trials, or more successes than trials.
    """
    successes, trials = number(successes, "successes"), number(trials, "trials")
    if successes > trials or trials == 0:
        raise InputError(
            f"`successes` is {successes} of {trials} `trials`: a rate needs at least one trial, "
            "and no more successes than trials"
        )
    z2 = normal_quantile(confidence) ** 2
    total = trials + z2
    center = (successes + z2 / 2.0) / total
    failures = trials - successes
    half = math.sqrt(z2 * (successes * failures / trials + z2 / 4.0)) / total
    return Estimate(
        value=successes / trials,
        # In exact arithmetic these two are 0 and 1.
        low=max(0.0, center - half) if successes else 0.0,
        high=min(1.0, center + half) if failures else 1.0,
    )


def score_interval(value: float, trials: float, confidence: float = 0.95) -> Estimate:
    """Estimate a rate from its value in so many trials, which need not be whole: Wilson's interval.

    Of a rate whose trials are not independent, `trials` is how many independent ones would vary as it does.
    """
    z2 = normal_quantile(confidence) ** 2
    total = trials + z2
    center = (value * trials + z2 / 2.0) / total
    half = math.sqrt(z2 * (trials * value * (1.0 - value) + z2 / 4.0)) / total
    return Estimate(value=value, low=max(0.0, min(value, center - half)), high=min(1.0, max(value, center + half)))


def f1(hits: int, misses: int, confidence: float = 0.95) -> Estimate:
    """Estimate the F1 of one class from its true positives and its errors of both kinds.

    F1 is 2J / (1 + J) with J = hits / (hits + misses), the Jaccard index. J is a rate among the
    samples that have the class as target or as prediction, so its Wilson interval maps to F1.
    """
    jaccard = wilson(hits, hits + misses, confidence)
    value, low, high = (2.0 * j / (1.0 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
    return Estimate(value=value, low=low, high=high)


def mean(total: float, total_squares: float, count: int, confidence: float = 0.95) -> Estimate:
    """Estimate a mean from the sum and the sum of squares, by the central limit theorem.

    One sample says nothing about the spread: its interval is infinite. The fewer the samples and
    the more skewed their distribution, the more often the interval misses.
    """
    z = normal_quantile(confidence)
    value = total / count
    if count == 1:
        return Estimate(value=value, low=-math.inf, high=math.inf)
    variance = max(0.0, total_squares - total * value) / (count - 1)
    half = z * math.sqrt(variance / count)
    return Estimate(value=value, low=value - half, high=value + half)
