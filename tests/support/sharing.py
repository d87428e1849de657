"""What ranks run when the tests of averages and of dynamic weights start some."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flyball.batch import Batch
from flyball.objective import DynamicWeightAverage, StepContext, Term
from flyball.train.average import SWA


class Said(Term):
    """A term whose value is in the batch."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        value: torch.Tensor = batch.inputs[:, self.column].mean()
        return value


def weigh(rank: int, losses: torch.Tensor) -> list[list[float]]:
    """Measure the losses of this rank, epoch by epoch, and return the weights of each."""
    balance = DynamicWeightAverage()
    objective = balance * Said(0) + balance * Said(1)
    outcomes = [objective.measure(None, Batch(row), epoch=epoch) for epoch, row in enumerate(losses[rank])]
    return [[float(part.weight) for part in outcome.parts] for outcome in outcomes]


def refresh(rank: int, state: dict[str, Any], parts: list[list[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Refresh an average on the batches of this rank."""
    model = normalised()
    model.load_state_dict(state)
    average = SWA(model, start=0)
    average.refresh(parts[rank])
    return {name: value for name, value in average.module.state_dict().items() if "running" in name}


def normalised() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
