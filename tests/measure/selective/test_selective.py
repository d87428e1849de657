"""Selective prediction: numbers that do not depend on how ties were sorted, thresholds that are the best there are."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InputError
from flyball.measure import selective as s

CASES = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


def brute(scores: list[int], right: list[bool]) -> tuple[float, float]:
    """AURC and AUGRC by their definitions, averaged over every order of falling score."""
    n = len(scores)
    orders = [
        o for o in itertools.permutations(range(n)) if all(scores[a] >= scores[b] for a, b in itertools.pairwise(o))
    ]
    areas = [
        (
            sum(sum(not right[i] for i in order[:k]) / k for k in range(1, n + 1)) / n,
            sum(sum(not right[i] for i in order[:k]) / n for k in range(1, n + 1)) / n,
        )
        for order in orders
    ]
    return float(np.mean([a for a, _ in areas])), float(np.mean([b for _, b in areas]))


@settings(max_examples=60)
@given(CASES)
def test_areas_are_their_definition_averaged_over_ties(case: tuple[list[int], list[bool]]) -> None:
    curve = s.risk_coverage(*case)
    aurc, augrc = brute(*case)
    best, _ = brute([int(right) for right in sorted(case[1], reverse=True)], sorted(case[1], reverse=True))
    assert (curve.aurc, curve.augrc) == pytest.approx((aurc, augrc), abs=1e-12)
    assert curve.e_aurc == pytest.approx(aurc - best, abs=1e-12)
    assert curve.e_aurc >= 0.0


@given(CASES)
def test_neither_permutation_nor_a_rising_map_changes_a_value(case: tuple[list[int], list[bool]]) -> None:
    scores, right = np.array(case[0], float), np.array(case[1])
    order = np.random.default_rng(len(scores)).permutation(len(scores))
    whole, moved = s.risk_coverage(scores, right), s.risk_coverage(np.exp(scores[order]), right[order])
    assert (whole.aurc, whole.e_aurc, whole.augrc) == pytest.approx((moved.aurc, moved.e_aurc, moved.augrc), abs=1e-13)
    assert (whole.answered == moved.answered).all()
    assert (whole.errors == moved.errors).all()


def test_a_constant_score_is_the_risk_and_a_perfect_one_the_oracle() -> None:
    right = np.array([1, 0, 1, 1, 0, 1])
    assert s.risk_coverage(np.full(6, 0.3), right).aurc == pytest.approx(1 / 3)  # and not 0, "perfect"
    assert s.risk_coverage(right, right).e_aurc == pytest.approx(0.0, abs=1e-15)


def test_risk_at_coverage_and_coverage_at_risk_by_hand() -> None:
    curve = s.risk_coverage([0.9, 0.8, 0.8, 0.5], [1, 0, 1, 0])
    assert curve.risk_at(0.25) == 0.0
    assert curve.risk_at(0.5) == 0.25  # one of the two tied, each as likely
    assert (curve.risk_at(0.75), curve.risk_at(1.0)) == pytest.approx((1 / 3, 0.5))
    assert (curve.coverage_at(0.0), curve.coverage_at(0.4), curve.coverage_at(0.5)) == (0.25, 0.75, 1.0)
    assert s.risk_coverage([0.9], [0]).coverage_at(0.1) == 0.0
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert [round(r.value, 3) for r in curve.risk_interval()] == [0.0, 0.333, 0.5]


def test_report_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> s.RiskCoverage:
        score = rng.random(n)
        return s.risk_coverage(score, rng.random(n) < score)

    truth = draw(400_000)
    held = np.zeros(3)
    for seed in range(200):
        report = draw(200).report(draws=200, seed=seed, coverages=(0.8,))
        pairs = ((report.aurc, truth.aurc), (report.augrc, truth.augrc), (report.risk_at[0.8], truth.risk_at(0.8)))
        held += [number.low <= true <= number.high for number, true in pairs]
    assert (held / 200 > 0.89).all()


def test_report_is_the_same_on_any_number_of_threads_and_plain_data() -> None:
    rng = np.random.default_rng(1)
    curve = s.risk_coverage(rng.random(500).round(1), rng.random(500) < 0.7)
    one, three = curve.report(threads=1, draws=600), curve.report(threads=3, draws=600)
    assert one.to_dict() == three.to_dict()
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["samples"] == 500
    assert "risk at coverage 0.9" in str(one)
    assert one.aurc.value == pytest.approx(curve.aurc)


@given(CASES, st.sampled_from(["accuracy", "coverage", "balance"]), st.floats(0.0, 1.0))
def test_no_threshold_is_better_than_the_best(case: tuple[list[int], list[bool]], objective: str, limit: float) -> None:
    scores, right = np.array(case[0], float), np.array(case[1])
    conditions = {"accuracy": {"coverage": limit}, "coverage": {"accuracy": limit}, "balance": {}}[objective]
    found = s.best_threshold(scores, right, objective, **conditions)  # type: ignore[arg-type]
    values = []
    for threshold in np.linspace(-1.0, 4.0, 101):
        taken = scores >= threshold
        if not taken.any():
            continue
        coverage, accuracy = taken.mean(), right[taken].mean()
        if objective == "accuracy" and coverage >= limit:
            values.append(accuracy)
        elif objective == "coverage" and accuracy >= limit:
            values.append(coverage)
        elif objective == "balance":
            values.append(math.sqrt(accuracy * coverage))
    if not values:
        assert found.value == math.inf
        assert found.accuracy is None
        return
    assert found.accuracy is not None
    reached = {
        "accuracy": found.accuracy,
        "coverage": found.coverage,
        "balance": math.sqrt(found.accuracy * found.coverage),
    }
    assert reached[objective] == pytest.approx(max(values), abs=1e-12)
    assert found.answered == (scores >= found.value).sum()


@settings(max_examples=40)
@given(CASES, st.floats(0.0, 1.0))
def test_no_pair_of_thresholds_is_better_than_the_best(case: tuple[list[int], list[bool]], limit: float) -> None:
    first, right = np.array(case[0], float), np.array(case[1])
    second = np.random.default_rng(len(first)).integers(0, 3, len(first)).astype(float)
    a, b, found = s.best_pair(first, second, right, "coverage", accuracy=limit)
    best = 0.0
    for one, other in itertools.product(range(5), range(3)):
        taken = (first >= one) & (second >= other)
        if taken.any() and right[taken].mean() >= limit:
            best = max(best, taken.mean())
    assert found.coverage == pytest.approx(best)
    assert found.answered == ((first >= a) & (second >= b)).sum()


def test_decisions_never_see_a_label() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random(200), rng.random(200)
    gate = s.Cascade(accept=0.8, reject=0.3, second=0.5)
    decided = gate.decide(first, second)
    assert (decided.answered == ((first >= 0.8) | ((first >= 0.3) & (first < 0.8) & (second >= 0.5)))).all()
    asked: list[int] = []

    def dear(places: np.ndarray) -> Any:
        asked.extend(places.tolist())
        return second[places]

    lazy = gate.decide(first, dear)
    assert (lazy.answered == decided.answered).all()
    assert sorted(asked) == np.flatnonzero((first >= 0.3) & (first < 0.8)).tolist()  # and nobody else is paid for
    assert np.isnan(lazy.second[~lazy.asked]).all()  # no placeholder that could enter a statistic
    right = rng.random(200) < 0.5
    accuracy = decided.accuracy(right)
    assert accuracy is not None
    assert accuracy.value == pytest.approx(right[decided.answered].mean())
    assert decided.share_asked.value == len(asked) / 200
    for short in (second[:150], 0.5):
        with pytest.raises(InputError, match="`second` has shape"):
            gate.decide(first, short)
    nobody = s.Cascade(accept=2.0, reject=2.0, second=0.0).decide(first, second)
    assert nobody.accuracy(right) is None
    with pytest.raises(InputError, match="must lie below"):
        s.Cascade(accept=0.1, reject=0.2, second=0.0)
    with pytest.raises(InputError, match="undecided"):
        gate.decide(first, lambda _: second[:1])


def test_on_new_samples_a_threshold_keeps_less_than_it_promised() -> None:
    rng = np.random.default_rng(4)
    promised: list[float] = []
    kept: list[float] = []
    for _ in range(60):
        score, right = rng.random(60), rng.random(60) < 0.7  # the score says nothing
        promised.append(s.best_threshold(score, right, coverage=0.2).accuracy or 0.0)
        found = s.on_new_samples(score, right, coverage=0.2, folds=5)
        assert found.accuracy is not None
        kept.append(found.accuracy.value)
    assert np.mean(promised) > 0.75
    assert np.mean(kept) == pytest.approx(0.7, abs=0.03)


def test_a_guaranteed_threshold_breaks_its_promise_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(5)
    broken = given_up = 0
    for _ in range(200):
        score = rng.random(300)
        found, bound = s.guaranteed_threshold(score, rng.random(300) < score, risk=0.3, delta=0.1)
        assert bound <= 0.3
        if math.isinf(found.value):
            given_up += 1
        else:
            broken += (1.0 - found.value) / 2.0 > 0.3  # the true risk above a threshold t is (1 - t) / 2
    assert broken <= 20
    assert given_up < 20
    hopeless, _ = s.guaranteed_threshold([0.5, 0.6], [0, 0], risk=0.1)
    assert hopeless.answered == 0


@pytest.mark.parametrize("parts", [7, 10, 29, 100, 1000])
def test_a_condition_that_is_met_exactly_is_met(parts: int) -> None:
    """7 of 10 is a coverage of 0.7, although 0.7 is not a number that a computer has."""
    scores = np.arange(parts, 0, -1.0)
    for k in range(1, parts + 1):
        right = np.arange(parts) < k
        assert s.best_threshold(scores, right, "coverage", accuracy=k / parts).answered == parts
        assert s.best_threshold(scores, np.ones(parts), coverage=k / parts).coverage == 1.0
        curve = s.risk_coverage(scores, ~right)
        assert curve.coverage_at(k / parts) == 1.0
        falling = s.risk_coverage(scores, np.arange(parts) >= k)
        assert falling.risk_at(k / parts) == 1.0
        assert s.best_threshold(scores, right, coverage=k / parts).answered == k


def test_a_threshold_that_answers_nothing_answers_no_infinite_confidence_either() -> None:
    score, right = np.full(20, math.inf), np.zeros(20)
    found = s.best_threshold(score, right, "coverage", accuracy=0.5)
    assert found.value == math.inf
    assert not found.takes(score).any()
    assert s.on_new_samples(score, right, "coverage", accuracy=0.5).coverage.value == 0.0
    guaranteed, _ = s.guaranteed_threshold(score, right, risk=0.1)
    assert not guaranteed.takes(score).any()
    surely = s.best_threshold(score, 1 - right, "coverage", accuracy=0.5)
    assert surely.takes(score).all()


def test_scores_are_ordered_alike_and_bounded() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, -2.0]])
    for score in (s.largest_probability, s.margin, s.certainty):
        values = score(logits)
        assert values[0] == pytest.approx(1.0)
        assert values[0] > values[2] > values[1]
    assert (s.margin(logits)[1], s.certainty(logits)[1]) == pytest.approx((0.0, 0.0))
    with pytest.raises(InputError, match="not finite"):
        s.margin([[math.nan, 0.0]])


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "`confidence` has shape"),
        ([0.1], [0, 1], "`correct` has shape"),
        ([0.1, math.nan], [0, 1], "NaN for sample 1"),
        ([0.1, 0.2], [0, 2], "besides 0 and 1"),
    ],
)
def test_what_is_no_curve_is_named(confidence: list[float], correct: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        s.risk_coverage(confidence, correct)


def test_conditions_that_are_missing_or_not_wanted_are_named() -> None:
    with pytest.raises(InputError, match="`coverage` is None"):
        s.best_threshold([0.1], [1])
    with pytest.raises(InputError, match="has no such condition"):
        s.best_threshold([0.1], [1], coverage=0.5, accuracy=0.5)
    with pytest.raises(InputError, match="`objective` is 'best'"):
        s.best_threshold([0.1], [1], "best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`coverage` is 0"):
        s.risk_coverage([0.1], [1]).risk_at(0.0)
    for argument in ("seed", "threads", "draws"):
        with pytest.raises(InputError, match=f"`{argument}` holds -1"):
            s.risk_coverage([0.1], [1]).report(**{argument: -1})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`seed` holds -1"):
        s.on_new_samples([0.1, 0.2], [1, 0], coverage=0.5, seed=-1)
    with pytest.raises(InputError, match="`folds` is 1"):
        s.on_new_samples([0.1, 0.2], [1, 0], coverage=0.5, folds=1)
