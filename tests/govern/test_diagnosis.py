"""The arithmetic of a question, and the budget of rollbacks: pure parts of the governor."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball import Policy, Vitals
from flyball.errors import GovernorExhausted
from flyball.govern import Level
from flyball.govern.diagnosis import AGES, CANDIDATE_AGES, Diagnosis, Finding, Reference
from flyball.govern.recovery import Ladder

ALL = tuple(range(1, 9))
losses = st.floats(1e-6, 1e6)


@given(loss=losses, offset=st.floats(0.0, 10.0), scale=st.floats(1e-3, 10.0))
def test_an_unchanged_loss_scores_nothing(loss: float, offset: float, scale: float) -> None:
    assert Reference(loss, offset, scale).score(loss) == 0.0
    assert Reference(-loss, None, scale).score(-loss) == 0.0


@given(loss=losses, more=st.floats(1.0, 1e3), factor=st.floats(1e-3, 1e3))
def test_a_score_rises_with_the_loss_and_does_not_depend_on_its_unit(loss: float, more: float, factor: float) -> None:
    score = Reference(loss, 0.05 * loss, 0.1).score(loss * more)
    assert 0.0 <= score <= 30.0
    assert Reference(loss * factor, 0.05 * loss * factor, 0.1).score(loss * more * factor) == pytest.approx(score)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0])
def test_a_loss_that_cannot_be_compared_has_risen_most(loss: float) -> None:
    assert Reference(1.0, 0.05, 0.1).score(loss) == 30.0


def answers(scores: list[float], *, updates: int = 100, ages: tuple[int, ...] = ALL) -> Finding:
    diagnosis = Diagnosis(updates)
    finding = Finding.ASK
    for score in scores:
        assert finding is Finding.ASK
        assert diagnosis.age(ages) is not None
        finding = diagnosis.answer(score, ages)
    return finding


@pytest.mark.parametrize(
    ("scores", "finding"),
    [
        ([0.0], Finding.SOUND),
        ([3.1], Finding.DAMAGED),
        ([1.0, 2.1], Finding.DAMAGED),
        ([1.0, -0.7], Finding.SOUND),
        ([1.0, 1.0, 1.1], Finding.DAMAGED),
        ([0.6, 0.6, 0.6, 0.6], Finding.DAMAGED),
        ([0.6, 0.4, 0.5, 0.4], Finding.SOUND),
        ([-3.1], Finding.UNCLEAR),
    ],
)
def test_as_many_batches_are_asked_as_it_takes(scores: list[float], finding: Finding) -> None:
    assert answers(scores) is finding


def test_before_the_thirty_second_update_nothing_is_called_sound() -> None:
    assert answers([0.0], updates=31) is Finding.UNCLEAR
    assert answers([9.0], updates=31) is Finding.DAMAGED


def test_one_batch_alone_can_condemn_and_cannot_acquit() -> None:
    assert answers([0.0], ages=(4,)) is Finding.UNCLEAR
    assert answers([0.6], ages=(4,)) is Finding.DAMAGED


@given(ages=st.sets(st.integers(1, 8)))
def test_ages_that_are_missing_are_passed_over(ages: set[int]) -> None:
    diagnosis, asked = Diagnosis(100), []
    while (age := diagnosis.age(tuple(ages))) is not None:
        asked.append(age)
        diagnosis.scores.append(0.2)
    assert set(asked) <= ages
    assert asked == [age for age in AGES if age in ages] or asked == [max(ages)]
    assert bool(asked) == bool(ages)


def test_a_budget_is_of_a_window_and_comes_back() -> None:
    ladder = Ladder(Policy(max_rollbacks=2, rollback_window=100))
    assert [ladder.climb(step, "x").number for step in (0, 50)] == [1, 2]
    with pytest.raises(GovernorExhausted, match="step 0: x; step 50: x; step 99: y"):
        ladder.climb(99, "y")
    assert ladder.climb(149, "x").number == 2


def test_the_rate_is_lowered_from_the_second_rollback_on_and_rises_back() -> None:
    ladder = Ladder(Policy())
    assert ladder.rate(0) == 1.0
    first, second, third = (ladder.climb(step, "x") for step in (10, 20, 30))
    assert (first.rate, second.rate, third.rate) == (1.0, 0.5, 0.25)
    assert (first.older, second.older, third.older) == (0, 0, 1)
    assert ladder.rate(30) == 0.25
    assert ladder.rate(80) == pytest.approx(0.625)
    assert ladder.rate(130) == 1.0
    assert ladder.rate(10_000) == 1.0


def test_a_recovery_by_the_rate_lowers_it_from_the_first_rollback_on() -> None:
    ladder = Ladder(Policy(recovery="lr_backoff"))
    assert [ladder.climb(step, "x").rate for step in (10, 20, 30)] == [0.5, 0.25, 0.125]


def settled(*, steps: int = 200) -> Vitals:
    vitals = Vitals()
    for step in range(steps):
        vitals.observe(1.0 + 0.05 * math.sin(step * 1.7), 1.0 + 0.05 * math.sin(step * 2.3))
    return vitals


def test_refusals_of_bad_data_are_no_panic_however_many() -> None:
    vitals = settled()
    for _ in range(31):
        assert vitals.observe(50.0, 50.0).level is Level.ANOMALY
        vitals.found_sound()


def test_without_a_finding_the_fifth_refusal_is_a_panic() -> None:
    vitals = settled()
    assert [vitals.observe(50.0, 50.0).level for _ in range(5)] == [Level.ANOMALY] * 4 + [Level.PANIC]


def test_a_level_that_is_adopted_is_normal_from_then_on() -> None:
    vitals = settled()
    for _ in range(20):
        vitals.observe(50.0, 50.0)
        vitals.found_sound()
    assert vitals.held() == 20
    vitals.adopt_held()
    assert vitals.held() == 0
    assert {vitals.observe(50.0 + step % 3, 50.0 + step % 2).level for step in range(50)} == {Level.OK}


def test_a_reference_is_known_once_there_is_a_level() -> None:
    assert Vitals().loss_reference() is None
    found = settled().loss_reference()
    assert found is not None
    offset, scale = found
    assert offset == pytest.approx(0.05, rel=0.1)
    assert 0.0 < scale < 0.2
    signed = Vitals()
    for step in range(100):
        signed.observe(math.sin(step * 1.7))
    found = signed.loss_reference()
    assert found is not None
    assert found[0] is None


def test_a_snapshot_is_asked_about_with_older_batches() -> None:
    ages = tuple(range(1, 9)) + tuple(range(12, 33, 4))
    diagnosis, asked = Diagnosis(100, CANDIDATE_AGES), []
    while (age := diagnosis.age(ages)) is not None:
        asked.append(age)
        diagnosis.scores.append(0.2)
    assert asked == [8, 16, 12, 32]
