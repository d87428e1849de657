"""Objectives with a state of their own in the trainer: they are trained, and a run resumes with all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flyball.govern import Policy
from flyball.objective import Cosine, DynamicWeightAverage, Objective, StepContext, Task, Term, Uncertainty
from flyball.train import Callback, Step, Trainer
from flyball.train.average import EMA
from flyball.train.groups import make_optimizer
from flyball.train.schedule import LearningRate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flyball.batch import Batch

EPOCHS, BATCHES = 4, 6


class Near(Term):
    """A term with a parameter: how far the scores are from a centre that is learnt."""

    def __init__(self, **pace: Any) -> None:
        super().__init__(**pace)
        self.centre = nn.Parameter(torch.zeros(3))

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        value: torch.Tensor = (step.scores - self.centre).square().mean()
        return value


class Breaks(Callback):
    """Breaks off in the middle of an epoch, past the last checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        if step.number == self.step:
            raise KeyboardInterrupt


def learnt() -> Objective:
    return Uncertainty() * Task() + 0.1 * Near(every=2)


def balanced() -> Objective:
    balance = DynamicWeightAverage()
    return balance * Task(smoothing=0.1) + balance * Near(weight=Cosine(1.0, 0.1))


def scheduled() -> Objective:
    return 0.5 * Task() + 0.5 * Near(weight=Cosine(0.0, 0.5), warmup=0.1)


def made(objective: Objective, run: Path | None, *, governed: bool, **more: Any) -> tuple[Trainer, DataLoader[Any]]:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8 * BATCHES, 5), torch.arange(8 * BATCHES) % 3)
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))
    optimizer = make_optimizer("adamw", model, objective, lr=0.01, weight_decay=0.1)
    rate = LearningRate(optimizer, Cosine(1.0, 0.1), warmup=0.2, steps=EPOCHS * BATCHES)
    trainer = Trainer(
        model,
        objective,
        optimizer,
        scheduler=rate,
        policy=Policy() if governed else None,
        average=EMA(model, decay=0.9),
        run=run,
        checkpoint_every=None if run is None else 5,
        **more,
    )
    return trainer, loader


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    parts = {"model": trainer.model, "objective": trainer.objective, "average": trainer.average.module}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("governed", [False, True])
@pytest.mark.parametrize("objective", [learnt, balanced, scheduled])
def test_a_run_that_is_resumed_ends_where_the_whole_one_ends(
    objective: Callable[[], Objective],
    governed: bool,  # noqa: FBT001 -- a case
    tmp_path: Path,
) -> None:
    """Property I3: parameters of terms, learnt weights, averages and the schedule included; measured on the way."""
    whole, loader = made(objective(), None, governed=governed)
    whole.fit(loader, loader, epochs=EPOCHS)
    before = everything(made(objective(), None, governed=governed)[0])
    first, loader = made(objective(), tmp_path / "run", governed=governed, callbacks=[Breaks(14)])
    with pytest.raises(KeyboardInterrupt):
        first.fit(loader, loader, epochs=EPOCHS)
    second, loader = made(objective(), tmp_path / "run", governed=governed)
    second.fit(loader, loader, epochs=EPOCHS, resume="auto")
    found, wanted = everything(second), everything(whole)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    assert any(not torch.equal(wanted[name], value) for name, value in before.items() if name.startswith("objective"))
    assert second.average.updates == EPOCHS * BATCHES
