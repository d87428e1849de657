"""Weights that training itself finds: give one to a term as its `weight`, or multiply the term with it."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

from flyball.errors import ConfigError

if TYPE_CHECKING:
    from flyball.objective.context import StepContext


class Dynamic(nn.Module):
    """A weight that follows from what was measured; its state and its parameters belong to the objective."""

    def join(self, name: str) -> None:
        """Take a term in, by the name it has in the objective."""

    @abstractmethod
    def weigh(self, name: str, raw: torch.Tensor, step: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the term of this name adds to the loss, and the weight that it has."""


class Uncertainty(Dynamic):
    """Weight a term by how uncertain it is: exp(-s) L + s, where s is learnt (Kendall, Gal and Cipolla, 2018).

    Each term needs one of its own. Give the objective's parameters to the optimizer, or nothing is learnt.

    Args:
        initial: s at first, the logarithm of the variance.

    Raises:
        ConfigError: `initial` is not finite.
    """

    def __init__(self, initial: float = 0.0) -> None:
        super().__init__()
        if not math.isfinite(initial):
            raise ConfigError(f"`initial` of `Uncertainty` is {initial}: pass a finite number")
        self.initial = initial
        self.log_variance = nn.Parameter(torch.tensor(float(initial)))

    def weigh(self, name: str, raw: torch.Tensor, step: StepContext) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        """Return exp(-s) L + s, and exp(-s)."""
        weight = torch.exp(-self.log_variance)
        return weight * raw + self.log_variance, weight.detach()

    def __repr__(self) -> str:
        return f"Uncertainty({self.initial or ''})"


class DynamicWeightAverage(Dynamic):
    """Weight the terms that share it by how slowly they fall (Liu, Johns and Davison, 2019).

    With r the ratio of a term's mean loss in the last epoch to that in the epoch before, its weight among K terms is
    K exp(r / T) / sum exp(r / T); 1 in the first two epochs.

        balance = DynamicWeightAverage()
        objective = balance * Task() + balance * Depth()

    Args:
        temperature: T; the larger, the more equal the weights.

    Raises:
        ConfigError: `temperature` is not above 0.
    """

    epoch: torch.Tensor
    full: torch.Tensor
    mean: torch.Tensor
    count: torch.Tensor
    last: torch.Tensor
    before: torch.Tensor

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        if not 0.0 < temperature < math.inf:
            raise ConfigError(f"`temperature` of `DynamicWeightAverage` is {temperature}: pass a number above 0")
        self.temperature = temperature
        self._names: list[str] = []
        self._begin()

    def _begin(self) -> None:
        size = len(self._names)
        self.register_buffer("epoch", torch.tensor(-1))
        self.register_buffer("full", torch.tensor(0))  # epochs that ended
        for name in ("mean", "count", "last", "before"):
            self.register_buffer(name, torch.zeros(size))

    def join(self, name: str) -> None:
        """Take a term in; what was remembered begins anew."""
        if name not in self._names:
            self._names.append(name)
            self._begin()

    def leave(self) -> None:
        """Let all terms go, because an objective with others is made."""
        self._names = []

    @torch.no_grad()
    def weigh(self, name: str, raw: torch.Tensor, step: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted value and the weight, from the last two whole epochs."""
        weights = step.share((DynamicWeightAverage, id(self)), lambda: self._weights(step))
        index = self._names.index(name)
        if step.training:
            value = raw.detach().float().clone()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(value)  # all ranks must weigh alike
                value /= torch.distributed.get_world_size()
            self.count[index] += 1
            self.mean[index] += (value - self.mean[index]) / self.count[index]
        weight = weights[index]
        with torch.enable_grad():
            return raw * weight.to(raw.dtype), weight

    def _weights(self, step: StepContext) -> torch.Tensor:
        """Close the epoch if a new one has begun, all on the device and without a branch; return the weights."""
        if step.training:
            begun = step.epoch > self.epoch
            ended = begun & (self.count > 0).any()
            self.before.copy_(torch.where(ended, self.last, self.before))
            self.last.copy_(torch.where(ended, self.mean, self.last))
            self.full += ended
            kept = (~begun).float()
            self.mean *= kept
            self.count *= kept
            self.epoch.fill_(step.epoch)
        ratios = torch.where(self.full >= 2, self.last / self.before, torch.ones_like(self.last))
        return torch.softmax(ratios / self.temperature, 0) * len(self._names)

    def __repr__(self) -> str:
        return f"DynamicWeightAverage({self.temperature if self.temperature != 2.0 else ''})"
