"""Tails and quantiles, against scipy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from flyball.measure.statistics import distributions as d

SIZES = st.floats(-0.5, 6.0).map(lambda power: 10.0**power)
CHANCES = st.floats(1e-9, 1.0 - 1e-9)


@given(SIZES, SIZES, CHANCES)
def test_the_incomplete_beta_function_is_scipys(a: float, b: float, p: float) -> None:
    x = float(special.betaincinv(a, b, p))
    assert d.beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


@given(SIZES, SIZES, CHANCES)
def test_the_beta_quantile_inverts_it(a: float, b: float, p: float) -> None:
    x = d.beta_quantile(p, a, b)
    assert 0.0 <= x <= 1.0
    # The probability lies between those of the neighbours of x: near 1 its own last bits move it far.
    below, above = (d.beta_cdf(min(x * (1.0 + ulps * 2.0**-52), 1.0), a, b) for ulps in (-16, 16))
    assert below * (1.0 - 1e-9) - 1e-12 <= p <= above * (1.0 + 1e-9) + 1e-12


@given(st.floats(-50.0, 50.0), st.integers(1, 100_000))
def test_students_tail_is_scipys(t: float, degrees: int) -> None:
    assert d.student_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-9, abs=1e-300)


@given(st.floats(1e-6, 0.5), st.integers(1, 10_000))
def test_students_quantile_is_scipys(tail: float, degrees: int) -> None:
    assert d.student_quantile(tail, degrees) == pytest.approx(stats.t.isf(tail, degrees), rel=1e-9, abs=1e-7)


def test_the_ends_are_exact() -> None:
    assert (d.beta_cdf(0.0, 2, 3), d.beta_cdf(1.0, 2, 3)) == (0.0, 1.0)
    assert (d.beta_quantile(0.0, 2, 3), d.beta_quantile(1.0, 2, 3)) == (0.0, 1.0)
    assert (d.student_tail(math.inf, 3), d.student_tail(-math.inf, 3), d.normal_tail(0.0)) == (0.0, 1.0, 0.5)
    assert d.chi_square_tail(3.841458820694124) == pytest.approx(0.05, rel=1e-12)
