"""Learning rates equal their closed form to 1e-12, and a run resumes from the number of its step alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InputError
from flyball.govern.governor import Governor
from flyball.objective import Cosine, Exponential, Linear, Step
from flyball.train.schedule import LearningRate


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates], lr=0.5)


@settings(deadline=None)
@given(steps=st.integers(1, 30), warm=st.integers(0, 30), low=st.floats(0.0, 1.0))
def test_every_rate_is_its_closed_form(steps: int, warm: int, low: float) -> None:
    """Property C43: warm-up (e + 1) / W, then half a wave over what remains, for each group's own rate."""
    made = optimizer(0.1, 0.01)
    schedule = LearningRate(made, Cosine(1.0, low), warmup=warm, steps=steps)
    for step in range(steps):
        if step < warm:
            factor = (step + 1) / warm
        elif step >= steps - 1:
            factor = low
        else:
            factor = low + (1 - low) * (1 + math.cos(math.pi * (step - warm) / (steps - 1 - warm))) / 2
        for group, rate in zip(made.param_groups, (0.1, 0.01), strict=True):
            assert abs(group["lr"] - rate * factor) <= 1e-12
        assert schedule.at(step) == schedule.get_last_lr()
        schedule.step()


REFERENCES = [
    (Step({0: 1.0, 10: 0.1, 20: 0.01}), lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.1)),
    (Exponential(1.0, 0.95**29), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.95)),
    (lambda step: 0.9**step, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    (Cosine(1.0, 0.0, over=30), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 29)),
    (Linear(1.0, 0.5, over=11), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.5, 10)),
]


@pytest.mark.parametrize(
    ("schedule", "reference"), REFERENCES, ids=["step", "exponential", "function", "cosine", "line"]
)
def test_a_schedule_is_what_torch_computes_as_far_as_that_is_exact(schedule: Any, reference: Any) -> None:
    """Property C44."""
    ours, theirs = optimizer(0.1), optimizer(0.1)
    mine, other = LearningRate(ours, schedule, steps=30), reference(theirs)
    for _ in range(30):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9, abs=1e-15)
        theirs.step()
        other.step()
        mine.step()


@settings(deadline=None)
@given(at=st.integers(0, 50))
def test_a_run_resumes_from_the_step_number_alone(at: int) -> None:
    whole = LearningRate(optimizer(0.1), Cosine(1.0, 0.0), warmup=0.1, steps=50)
    for _ in range(at):
        whole.step()
    resumed = LearningRate(optimizer(0.1), Cosine(1.0, 0.0), warmup=0.1, steps=50)
    assert whole.state_dict() == {"step": at}
    resumed.load_state_dict(whole.state_dict())
    for _ in range(3):
        assert resumed.get_last_lr() == whole.get_last_lr()
        resumed.step()
        whole.step()


def test_a_rate_does_not_drift_when_the_state_of_the_optimizer_is_loaded_too() -> None:
    made = optimizer(0.1)
    schedule = LearningRate(made, Cosine(1.0, 0.0), steps=20)
    for _ in range(7):
        schedule.step()
    again = optimizer(0.1)
    LearningRate(again, Cosine(1.0, 0.0), steps=20)
    again.load_state_dict(made.state_dict())
    resumed = LearningRate(again, Cosine(1.0, 0.0), steps=20)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.get_last_lr() == schedule.get_last_lr()


def test_a_group_that_comes_later_and_a_rate_in_a_tensor_are_scheduled_too() -> None:
    made = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.5), capturable=False, foreach=False)
    held = made.param_groups[0]["lr"]
    schedule = LearningRate(made, Linear(1.0, 0.0), steps=5)
    made.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.25})
    schedule.step()
    assert made.param_groups[0]["lr"] is held
    assert schedule.get_last_lr() == [0.375, 0.1875]


def test_a_rollback_takes_the_rate_back() -> None:
    model = torch.nn.Linear(2, 1)
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = LearningRate(made, Linear(1.0, 0.0), steps=10)
    governor = Governor(model, made, scheduler=schedule)
    for step in range(4):
        if step == 2:
            governor.snapshot()
        loss = model(torch.ones(3, 2)).square().mean()
        loss.backward()
        governor.step(loss)
    assert schedule.state_dict() == {"step": 4}
    governor.rollback()
    assert schedule.state_dict() == {"step": 2}
    assert schedule.get_last_lr() == schedule.at(2)


def test_what_cannot_be_scheduled_is_refused_where_it_is_made() -> None:
    with pytest.raises(InputError, match="needs to know how many steps"):
        LearningRate(optimizer(0.1), Cosine(1.0, 0.0))
    with pytest.raises(InputError, match="`step` of the state is -1"):
        LearningRate(optimizer(0.1)).load_state_dict({"step": -1})
    bare = optimizer(0.1)
    del bare.param_groups[0]["lr"]
    with pytest.raises(InputError, match="without `lr`"):
        LearningRate(bare)


def test_several_optimizers_follow_one_schedule_and_it_shows_itself() -> None:
    one, other = optimizer(0.1), optimizer(1.0)
    schedule = LearningRate([one, other], Linear(1.0, 0.0), steps=3)
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.5]
    assert repr(schedule) == "LearningRate(Linear(1.0, 0.0), steps=3, at step 1)"
