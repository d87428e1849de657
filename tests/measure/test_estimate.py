"""Intervals in closed form, against references and against their own promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import InputError
from flyball.measure import Estimate, estimate
from flyball.measure.estimate import f1, mean, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # The last is from Newcombe (Statistics in Medicine 17, 1998), table I.
        (0, 10, 0.0, 0.2775327998628892),
        (10, 10, 0.7224672001371107, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_is_the_published_interval(successes: int, trials: int, low: float, high: float) -> None:
    rate = wilson(successes, trials)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**15).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_value_within_0_and_1_and_mirrors(case: tuple[int, int]) -> None:
    successes, trials = case
    rate, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0.0 <= rate.low <= rate.value <= rate.high <= 1.0
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((rate.low, rate.high), abs=1e-12)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_f1_from_jaccard_is_f1(hits: int, misses: int) -> None:
    if hits + misses > 0:
        score = f1(hits, misses)
        assert score.value == pytest.approx(2 * hits / (2 * hits + misses))
        assert 0.0 <= score.low <= score.value <= score.high <= 1.0


def test_mean_is_the_textbook_interval() -> None:
    sample = np.random.default_rng(0).exponential(size=1000)
    interval = mean(math.fsum(sample), math.fsum(sample**2), 1000)
    half = 1.959964 * sample.std(ddof=1) / math.sqrt(1000)
    assert interval.value == pytest.approx(sample.mean())
    assert interval.high - interval.value == pytest.approx(half, rel=1e-6)


def test_one_sample_says_nothing_about_the_spread() -> None:
    alone = mean(2.0, 4.0, 1)
    assert (alone.value, alone.low, alone.high) == (2.0, -math.inf, math.inf)
    assert alone.to_dict() == {"value": 2.0, "low": None, "high": None}


def test_an_estimate_is_a_number_and_reads_as_one() -> None:
    number = Estimate(value=0.98612, low=0.9678, high=0.994)
    assert float(number) == 0.98612
    assert str(number) == "0.9861 [0.9678, 0.9940]"


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -1.0, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match="`confidence` is"):
        estimate.normal_quantile(confidence)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 3)])
def test_a_rate_of_nothing_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(InputError, match=r"`successes` (is|holds)"):
        wilson(successes, trials)
