"""Intervals of a rate: the one that covers well, and the one that never covers too little."""

from __future__ import annotations

from flyball.errors import InputError
from flyball.measure.estimate import Estimate, normal_quantile
from flyball.measure.estimate import wilson as wilson
from flyball.measure.inputs import number
from flyball.measure.statistics.distributions import beta_quantile, beta_tail_quantile


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Estimate a rate from counts with the interval that covers at least as often as it says (1934).

    It is wider than `wilson`, which covers as often on average. Take it where a promise is made, as in a bound on risk.

    Raises:
        InputError: There are no trials, or more successes than trials.
    """
    successes, trials = _checked(successes, trials)
    normal_quantile(confidence)  # raises if it is out of range
    tail = (1.0 - confidence) / 2.0
    failures = trials - successes
    return Estimate(
        value=successes / trials,
        low=beta_quantile(tail, successes, failures + 1.0) if successes else 0.0,
        high=beta_tail_quantile(tail, successes + 1.0, failures) if failures else 1.0,
    )


def upper_bound(events: int, trials: int, delta: float) -> float:
    """Return the rate that the true one is above with probability `delta` at most, whatever the distribution.

    The binomial tail: Clopper and Pearson's upper end, one-sided.

    Raises:
        InputError: There are no trials, more events than trials, or `delta` is not between 0 and 1.
    """
    events, trials = _checked(events, trials)
    if not 0.0 < delta < 1.0:
        raise InputError(f"`delta` is {delta}: it must be between 0 and 1, as 0.05 is for a bound that holds in 95 %")
    return beta_tail_quantile(delta, events + 1.0, trials - events) if events < trials else 1.0


def _checked(successes: int, trials: int) -> tuple[int, int]:
    """Return the two as Python's integers, which do not overflow."""
    successes, trials = number(successes, "successes"), number(trials, "trials")
    if successes > trials or trials == 0:
        raise InputError(f"{successes} of {trials} is no rate: pass one trial at least, and no more events than trials")
    return successes, trials
