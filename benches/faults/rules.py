"""Optimizers for a fleet: every lane has its own moments, its own rate and its own count of updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from benches.faults.schedules import constant

if TYPE_CHECKING:
    from torch import Tensor

    from benches.faults.schedules import Schedule


class Rule(Protocol):
    """How a gradient moves the weights; nothing is changed in place."""

    @property
    def rate(self) -> float:
        """The learning rate that the schedule scales."""

    @property
    def moments(self) -> int:
        """How many numbers are kept for each weight."""

    def update(
        self, weights: Tensor, moments: Tensor, gradient: Tensor, rate: Tensor, updates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return new weights and moments; all have lanes first, `rate` and `updates` only lanes."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with heavy-ball momentum."""

    rate: float
    momentum: float = 0.0
    moments: int = 1

    def update(
        self, weights: Tensor, moments: Tensor, gradient: Tensor, rate: Tensor, updates: Tensor
    ) -> tuple[Tensor, Tensor]:
        del updates
        velocity = self.momentum * moments[:, 0] + gradient
        return weights - rate[:, None] * velocity, velocity[:, None]


@dataclass(frozen=True)
class Adam:
    """Adam, with the weight decay of AdamW."""

    rate: float
    decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    moments: int = 2

    def update(
        self, weights: Tensor, moments: Tensor, gradient: Tensor, rate: Tensor, updates: Tensor
    ) -> tuple[Tensor, Tensor]:
        count = updates[:, None] + 1
        first = self.beta1 * moments[:, 0] + (1 - self.beta1) * gradient
        second = self.beta2 * moments[:, 1] + (1 - self.beta2) * gradient.square()
        direction = (first / (1 - self.beta1**count)) / ((second / (1 - self.beta2**count)).sqrt() + 1e-8)
        moved = weights * (1 - rate[:, None] * self.decay) - rate[:, None] * direction
        return moved, torch.stack((first, second), dim=1)


@dataclass(frozen=True)
class Recipe:
    """How a family is trained: the optimizer, its schedule, and the norm that gradients are clipped to."""

    rule: Rule
    schedule: Schedule = constant
    clip: float | None = None
