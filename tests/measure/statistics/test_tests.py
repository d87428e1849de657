"""Tests of significance: equal to scipy and statsmodels where these have them, exact where they are not."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, proportion

from flyball.errors import InputError
from flyball.measure import statistics as fs
from flyball.measure.statistics.paired import doubled_ranks

NUMBERS = st.floats(-100, 100, allow_nan=False)
PAIRS = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*(hnp.arrays(np.float64, n, elements=NUMBERS) for _ in range(2)))
)
COARSE = st.integers(1, 9).flatmap(lambda n: hnp.arrays(np.int64, n, elements=st.integers(-3, 3)))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 100))
def test_mcnemar_is_statsmodels_and_the_binomial_test(gained: int, lost: int, alike: int) -> None:
    outcome = fs.mcnemar_counts(gained, lost, gained + lost + alike)
    exact = gained + lost < 25
    if gained + lost:
        theirs = contingency_tables.mcnemar([[alike, gained], [lost, 0]], exact=exact, correction=True)
        if exact or gained != lost:
            assert outcome.p_value == pytest.approx(theirs.pvalue, rel=1e-10, abs=1e-300)
        if exact:
            assert outcome.p_value == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-10)
    if gained == lost:
        assert outcome.p_value == 1.0  # statsmodels' correction goes below zero here, and takes its square
    assert outcome.smallest_p <= outcome.p_value * (1 + 1e-12)


def test_mcnemar_takes_truths_and_names_what_is_not_one() -> None:
    first, second = [1, 1, 0, 1, 0], [1, 0, 0, 0, 0]
    assert fs.mcnemar(first, second) == fs.mcnemar_counts(2, 0, 5)
    with pytest.raises(InputError, match="`second` holds values besides 0 and 1"):
        fs.mcnemar(first, [0.5, 0, 0, 0, 0])
    with pytest.raises(InputError, match="`first` has 5 samples and `second` 4"):
        fs.mcnemar(first, second[:4])
    with pytest.raises(InputError, match="counts must fit"):
        fs.mcnemar_counts(3, 3, 5)


@given(PAIRS)
def test_paired_t_is_scipys_with_its_interval(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = pair
    outcome = fs.paired_t(first, second)
    spread = np.std(first - second, ddof=1)
    if spread > 1e-9 * max(1.0, float(np.abs(first - second).max())):
        theirs = stats.ttest_rel(first, second)
        ends = theirs.confidence_interval()
        assert outcome.difference is not None
        assert outcome.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-300)
        assert (outcome.difference.low, outcome.difference.high) == pytest.approx(
            (ends.low, ends.high), rel=1e-8, abs=1e-8
        )


def test_differences_without_spread_are_infinite_or_show_nothing() -> None:
    assert (fs.paired_t([3, 4], [1, 2]).statistic, fs.paired_t([3, 4], [1, 2]).p_value) == (math.inf, 0.0)
    assert fs.paired_t([1, 2], [3, 4]).statistic == -math.inf
    assert fs.paired_t([1, 2], [1, 2]).p_value == 1.0
    assert fs.cohen_dz([3, 4], [1, 2]) == math.inf
    assert fs.cohen_d([1, 1], [2, 2]) == -math.inf
    assert fs.cohen_d([1, 1], [1, 1]) == 0.0


FRACTIONS = st.integers(2, 9).flatmap(
    lambda n: st.tuples(*(hnp.arrays(np.int64, n, elements=st.integers(-9, 9)) for _ in range(2)))
)


@given(FRACTIONS, st.sampled_from([10, 7, 1000]), st.sampled_from([np.float64, np.float32]))
def test_rounding_makes_no_difference_and_breaks_no_tie(
    pair: tuple[np.ndarray, np.ndarray], parts: int, kind: type[np.floating]
) -> None:
    """Tenths say what whole numbers say, although 0.3 - 0.2 is not 0.2 - 0.1."""
    first, second = pair
    tenths = (first / parts).astype(kind), (second / parts).astype(kind)
    for test in (fs.wilcoxon, fs.permutation):
        assert test(*tenths).p_value == test(first, second).p_value
        assert test(*tenths).smallest_p == test(first, second).smallest_p
    if np.ptp(first - second) == 0:
        assert fs.paired_t(*tenths).statistic == fs.paired_t(first, second).statistic
        assert fs.cohen_dz(*tenths) == fs.cohen_dz(first, second)


def test_what_is_small_but_more_than_rounding_still_counts() -> None:
    base = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert fs.wilcoxon(base + 1e-12, base).p_value == 2 / 64
    assert fs.permutation(base + 1e-12, base).p_value == 2 / 64
    whole = np.arange(6) + 2**52
    assert fs.wilcoxon(whole + 1, whole).p_value == 2 / 64  # whole numbers have no rounding


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 9), st.integers(2, 9))
def test_groups_without_spread_are_infinitely_far_apart(a: float, b: float, n: int, m: int) -> None:
    expected = math.copysign(math.inf, a - b) if a != b else 0.0
    assert fs.cohen_d([a] * n, [b] * m) == expected


def test_counts_of_any_integer_type_are_counts() -> None:
    """Ten million squared does not fit 32 bits, nor 200 times 100 eight."""
    narrow: Any = np.array([10_000_000, 3_000_000, 70_000, 1], dtype=np.int32)
    n, some, few, one = narrow
    tiny: Any = np.array([200, 100], dtype=np.uint8)
    assert fs.mcnemar_counts(few, one, n) == fs.mcnemar_counts(70_000, 1, 10_000_000)
    assert fs.mcnemar_counts(tiny[0], tiny[1], 300) == fs.mcnemar_counts(200, 100, 300)
    assert fs.clopper_pearson(some, n) == fs.clopper_pearson(3_000_000, 10_000_000)
    assert fs.wilson(some, n) == fs.wilson(3_000_000, 10_000_000)
    for count in (fs.clopper_pearson, fs.wilson):
        with pytest.raises(InputError, match=r"`successes` holds 1\.5"):
            count(1.5, 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`gained` holds -1"):
        fs.mcnemar_counts(-1, 3, 5)


@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-6])
@pytest.mark.parametrize(("events", "trials"), [(0, 10**15), (1, 10**15), (1000, 10**12), (10**7, 10**13)])
def test_the_upper_end_of_a_rare_event_has_all_its_digits(events: int, trials: int, tail: float) -> None:
    expected = stats.beta.isf(tail, events + 1, trials - events)
    assert fs.upper_bound(events, trials, tail) == pytest.approx(expected, rel=1e-11)
    assert fs.clopper_pearson(events, trials, 1.0 - 2.0 * tail).high == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [-1, 2**70, 0.5])
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match="`seed` holds"):
        fs.permutation([1.0, 2.0], [0.0, 0.0], seed=seed)
    with pytest.raises(InputError, match="`seed` holds"):
        fs.bootstrap([1.0, 2.0], seed=seed)


@given(COARSE)
def test_wilcoxon_is_exact_with_ties_and_zeros(d: np.ndarray) -> None:
    outcome = fs.wilcoxon(d, np.zeros(len(d)))
    ranks = doubled_ranks(np.abs(d).astype(float))[d != 0]
    least = min(ranks[d[d != 0] > 0].sum(), ranks[d[d != 0] < 0].sum())
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    assert outcome.p_value == pytest.approx(min(1.0, 2 * np.mean(np.array(sums) <= least)), rel=1e-12)


@given(
    hnp.arrays(np.float64, st.integers(2, 50), elements=st.integers(1, 10**6).map(float), unique=True),
    st.integers(0, 2**50),
)
def test_wilcoxon_is_scipys_where_that_is_exact(sizes: np.ndarray, bits: int) -> None:
    d = sizes * np.where([bits >> i & 1 for i in range(len(sizes))], 1, -1)
    theirs = stats.wilcoxon(d, method="exact")
    assert fs.wilcoxon(d, np.zeros(len(d))).p_value == pytest.approx(theirs.pvalue, rel=1e-10)


@given(hnp.arrays(np.float64, st.integers(51, 90), elements=st.integers(-20, 20).map(float)))
def test_wilcoxon_of_many_pairs_is_scipys_with_pratts_zeros(d: np.ndarray) -> None:
    if np.count_nonzero(d) <= 20:
        assert fs.wilcoxon(d, np.zeros(len(d))).test == "Wilcoxon (exact)"
        return
    theirs = stats.wilcoxon(d, zero_method="pratt", correction=False, method="asymptotic")
    assert fs.wilcoxon(d, np.zeros(len(d))).p_value == pytest.approx(theirs.pvalue, rel=1e-9)


def test_three_pairs_cannot_give_a_small_p_and_the_outcome_says_so() -> None:
    outcome = fs.wilcoxon([1, 2, 3], [0, 0, 0])
    assert (outcome.p_value, outcome.smallest_p) == (0.25, 0.25)
    assert "show nothing either way" in str(outcome)
    alike = fs.paired_t([1, 2, 3, 4], [1, 3, 2, 4])
    assert "does not show that they are alike" in str(alike)


@given(hnp.arrays(np.float64, st.integers(2, 9), elements=st.integers(-5, 5).map(float)))
def test_permutation_tries_every_sign(d: np.ndarray) -> None:
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=len(d))]
    assert fs.permutation(d, np.zeros(len(d))).p_value == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-9))


def test_random_permutations_agree_with_all_of_them_and_with_themselves() -> None:
    d = np.random.default_rng(0).normal(0.3, 1.0, 200)
    few = fs.permutation(d[:18], np.zeros(18)).p_value
    outcome = fs.permutation(d, np.zeros(200), draws=5000, seed=3)
    assert outcome == fs.permutation(d, np.zeros(200), draws=5000, seed=3)
    assert outcome.p_value >= 1 / 5001
    assert outcome.p_value == pytest.approx(fs.paired_t(d, np.zeros(200)).p_value, abs=0.02)
    assert few == pytest.approx(fs.paired_t(d[:18], np.zeros(18)).p_value, abs=0.03)


def test_equivalence_is_two_one_sided_t_tests() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=40)
    second = first + rng.normal(0.02, 0.2, 40)
    d = first - second
    theirs = max(
        stats.ttest_1samp(d, -0.1, alternative="greater").pvalue, stats.ttest_1samp(d, 0.1, alternative="less").pvalue
    )
    outcome = fs.equivalence(first, second, margin=0.1)
    assert outcome.p_value == pytest.approx(theirs, rel=1e-10)
    assert outcome.difference is not None
    assert (outcome.p_value < 0.05) == (max(-outcome.difference.low, outcome.difference.high) < 0.1)
    with pytest.raises(InputError, match="`margin` is 0"):
        fs.equivalence(first, second, margin=0)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_statsmodels(p: list[float]) -> None:
    for ours, theirs in ((fs.holm, "holm"), (fs.bonferroni, "bonferroni"), (fs.benjamini_hochberg, "fdr_bh")):
        adjusted = ours(p)
        assert adjusted == pytest.approx(multitest.multipletests(p, method=theirs)[1], rel=1e-10, abs=1e-300)
        assert (adjusted >= np.array(p) * (1 - 1e-15)).all()
    with pytest.raises(InputError, match="`p_values`"):
        fs.holm([*p, 1.5])


@given(PAIRS)
def test_effect_sizes_flip_with_the_order(pair: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = pair
    for effect in (fs.cohen_d, fs.cohen_dz, fs.hedges_g):
        assert effect(first, second) == -effect(second, first)
    degrees = 2 * len(first) - 2
    assert fs.hedges_g(first, second) == pytest.approx(fs.cohen_d(first, second) * (1 - 3 / (4 * degrees - 1)))


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_statsmodels_and_holds_wilsons_value(case: tuple[int, int]) -> None:
    rate = fs.clopper_pearson(*case)
    low, high = proportion.proportion_confint(*case, method="beta")
    assert (rate.low, rate.high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)
    assert fs.upper_bound(*case, 0.025) == pytest.approx(rate.high, rel=1e-12)


@settings(max_examples=20)
@given(st.integers(5, 60), st.floats(0.02, 0.98))
def test_clopper_pearson_covers_at_least_as_often_as_it_says(n: int, p: float) -> None:
    held = sum(stats.binom.pmf(k, n, p) for k in range(n + 1) if (r := fs.clopper_pearson(k, n)).low <= p <= r.high)
    assert held >= 0.95 - 1e-12


def test_outcomes_are_plain_data() -> None:
    for outcome in (fs.paired_t([3, 4], [1, 2]), fs.wilcoxon([1.0], [0.0]), fs.mcnemar([1], [1])):
        assert json.loads(json.dumps(outcome.to_dict(), allow_nan=False))["test"] == outcome.test


@pytest.mark.parametrize("values", [[], [[1.0]], [1.0, math.nan]])
def test_what_is_not_one_finite_number_a_sample_is_named(values: list[float]) -> None:
    with pytest.raises(InputError, match="`first`"):
        fs.wilcoxon(values, values)


@pytest.mark.parametrize("differing", [4, 6])
def test_many_pairs_of_which_few_differ_are_tested_exactly(differing: int) -> None:
    d = np.zeros(51)
    d[:differing] = np.arange(1, differing + 1)
    outcome = fs.wilcoxon(d, np.zeros(51))
    assert outcome.p_value == outcome.smallest_p == 2.0 * 0.5**differing


@pytest.mark.parametrize("confidence", [0.0, 0.4, 95.0])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match="`confidence`"):
        fs.equivalence([1, 2, 3], [1, 2, 4], margin=1, confidence=confidence)
