"""Schedules are closed forms of the step, to 1e-12, and remember nothing."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ConfigError, InputError
from flyball.objective.schedule import (
    Constant,
    Cosine,
    Delay,
    Exponential,
    Function,
    Linear,
    Schedule,
    Step,
    Warmup,
    as_schedule,
)

if TYPE_CHECKING:
    from collections.abc import Callable

values = st.floats(-1e3, 1e3)
lengths = st.integers(2, 500)


def within(found: float, wanted: float, scale: float = 1.0) -> bool:
    return abs(found - wanted) <= 1e-12 * max(1.0, abs(scale))


@given(values, values, lengths, st.data())
def test_a_line_is_its_closed_form(start: float, end: float, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    exact = Fraction(start) + (Fraction(end) - Fraction(start)) * Fraction(step, steps - 1)
    assert within(Linear(start, end).at(step, steps), float(exact), abs(start) + abs(end))


@given(values, values, lengths, st.data())
def test_half_a_wave_is_its_closed_form(start: float, end: float, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    # The same wave written another way: (1 - cos x) / 2 = sin(x / 2)^2.
    exact = start + (end - start) * math.sin(math.pi * step / (steps - 1) / 2) ** 2
    assert within(Cosine(start, end).at(step, steps), exact, abs(start) + abs(end))


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), lengths, st.data())
def test_a_factor_at_every_step_is_its_closed_form(start: float, end: float, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    exact = math.exp(math.log(start) + (math.log(end) - math.log(start)) * step / (steps - 1))
    assert within(Exponential(start, end).at(step, steps), exact, 100 * exact)


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
@given(start=st.floats(0.1, 9), end=st.floats(0.1, 9), steps=st.integers(1, 99), late=st.integers(0, 99))
def test_both_ends_are_reached_exactly_and_the_last_is_kept(
    kind: type[Linear | Cosine | Exponential], start: float, end: float, steps: int, late: int
) -> None:
    """Property C16."""
    schedule = kind(start, end)
    assert schedule.at(steps - 1 + late, steps) == end
    if steps > 1:
        assert schedule.at(0, steps) == start


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_rate_with_warmup_and_cosine_equals_the_closed_form_on_a_grid(steps: int, warm: int) -> None:
    """Property C43: also where the warm-up is longer than half of the training, or longer than it."""
    schedule = Warmup(warm, Cosine(0.1, 0.001))
    for step in range(steps):
        if step < warm:
            wanted = 0.1 * (step + 1) / warm
        elif step == steps - 1:
            wanted = 0.001
        else:
            wanted = 0.001 + 0.099 * (1 + math.cos(math.pi * (step - warm) / (steps - 1 - warm))) / 2
        assert within(schedule.at(step, steps), wanted)


@given(st.integers(1, 50), lengths)
def test_a_delayed_weight_switches_on_at_its_exact_step_and_not_before(delay: int, steps: int) -> None:
    """Property C17."""
    schedule = Delay(delay, Linear(0.5, 1.0))
    assert [schedule.at(step, steps) != 0.0 for step in range(steps)] == [step >= delay for step in range(steps)]


def test_a_value_holds_from_its_step_on() -> None:
    schedule = Step({0: 1.0, 10: 0.1, 0.5: 0.01})
    assert [schedule.at(step, 40) for step in (0, 9, 10, 19, 20, 39, 99)] == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01]


def test_a_fraction_counts_the_steps_that_it_says() -> None:
    assert [Delay(0.29).at(step, 100) for step in (28, 29)] == [0.0, 1.0]  # 0.29 * 100 is below 29 in binary
    assert Linear(0.0, 1.0, over=0.5).at(49, 100) == 1.0
    assert Linear(0.0, 1.0, over=11).at(5) == 0.5


@pytest.mark.parametrize("schedule", [Linear(0, 1), Cosine(0, 1), Warmup(0.1), Delay(0.5), Step({0: 1, 0.5: 2})])
def test_a_length_that_is_not_known_is_an_error_that_names_the_schedule(schedule: Schedule) -> None:
    with pytest.raises(InputError, match=f"`{type(schedule).__name__}.*how many steps"):
        schedule.at(3)


@pytest.mark.parametrize("schedule", [Constant(2.0), Linear(0, 1, over=5), Warmup(3), Delay(3), Step({0: 1, 7: 2})])
def test_lengths_in_steps_need_no_known_end(schedule: Schedule) -> None:
    assert schedule.at(100) == schedule.at(100, 1000)


@pytest.mark.parametrize(
    "written",
    [
        "Constant(0.5)",
        "Linear(0.0, 1.0)",
        "Cosine(0.0, 0.5, over=0.1)",
        "Exponential(1.0, 0.01)",
        "Warmup(10, Cosine(1.0, 0.0))",
        "Warmup(0.1)",
        "Delay(5, Constant(2.0))",
        "Step({0: 1.0, 0.5: 0.1})",
    ],
)
def test_a_schedule_is_shown_as_it_is_typed_and_survives_a_pickle(written: str) -> None:
    schedule = eval(written)  # noqa: S307 -- the texts above
    assert repr(schedule) == written
    again = pickle.loads(pickle.dumps(schedule))  # noqa: S301
    assert again == schedule
    assert hash(again) == hash(schedule)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Constant(math.nan), "`value` of `Constant` is nan"),
        (lambda: Cosine(0.0, math.inf), "`end` of `Cosine` is inf"),
        (lambda: Linear(0.0, "1"), "`end` of `Linear` is '1'"),  # type: ignore[arg-type]
        (lambda: Linear(0.0, 1.0, over=0), "`over` of `Linear` is 0"),
        (lambda: Linear(0.0, 1.0, over=1.5), "`over` of `Linear` is 1.5"),
        (lambda: Exponential(0.0, 1.0), "`start` of `Exponential` is 0.0"),
        (lambda: Warmup(-1), "`length` of `Warmup` is -1"),
        (lambda: Delay(math.nan), "`length` of `Delay` is nan"),
        (lambda: Step({}), "`Step` has values for"),
        (lambda: Step({5: 1.0}), "needs one for step 0"),
        (lambda: Step({0: 1.0, 2.5: 1.0}), "`values` of `Step` is 2.5"),
        (lambda: Step({0: math.nan}), "the value nan from 0 on"),
        (lambda: as_schedule("cosine"), "`weight` is 'cosine'"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_schedule_fails_where_it_is_made(make: Callable[[], Schedule], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()


def test_numbers_and_functions_of_the_step_are_schedules() -> None:
    assert as_schedule(2) == Constant(2.0)
    assert as_schedule(lambda step: step / 2).at(3) == 1.5
    assert repr(Function(math.sqrt)) == "sqrt"
    assert as_schedule(Cosine(0.0, 1.0)) == Cosine(0.0, 1.0)


@given(st.lists(st.integers(0, 40), max_size=20))
def test_the_order_in_which_steps_are_asked_for_changes_nothing(asked: list[int]) -> None:
    schedule = Warmup(5, Cosine(1.0, 0.0))
    fresh = [Warmup(5, Cosine(1.0, 0.0)).at(step, 40) for step in asked]
    assert [schedule.at(step, 40) for step in asked] == fresh
