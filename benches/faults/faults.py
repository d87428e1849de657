"""What goes wrong: in a batch, in the state, in the gradient, or slowly.

A fault begins at step 0 of a fork of a healthy run. It may strike the state before that step, spoil a batch, grind the
gradient or stretch the rate; `bad` names the steps whose update a perfect detector would refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from benches.faults.fleet import Fleet

    Kind = Literal["batch", "gradient", "state", "slow"]

FP16_MAX = 65504.0


@dataclass(frozen=True)
class Fault:
    """A fault that does nothing: the healthy run, and the base of the others.

    Attributes:
        name: Its name in the tables.
        kind: A bad batch or gradient is refused at its step; damaged state is found after it; a slow one at some time.
        steps: How many steps of the fork are recorded.
        bad: The steps that carry a bad batch or gradient.
        shows: The first step whose loss can show a fault of the state.
    """

    name: str = "none"
    kind: Kind = "batch"
    steps: int = 60
    bad: frozenset[int] = field(default_factory=frozenset)
    shows: int = 0

    def possible(self, fleet: Fleet) -> bool:
        """Tell whether this family can have the fault at all."""
        del fleet
        return True

    def strike(self, fleet: Fleet, generator: torch.Generator) -> None:
        """Damage the state before step 0."""

    def spoil(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what becomes of a bad batch."""
        del generator
        return inputs, targets

    def grind(self, gradient: Tensor, step: int) -> Tensor:
        """Return what becomes of the gradient of a bad step."""
        del step
        return gradient

    def rate(self, step: int) -> float:
        """Return the factor on the learning rate."""
        del step
        return 1.0


@dataclass(frozen=True)
class Shuffled(Fault):
    """Targets permuted within the batch."""

    def spoil(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return inputs, targets[:, torch.randperm(targets.shape[1], generator=generator)]


@dataclass(frozen=True)
class Scaled(Fault):
    """All inputs times a hundred."""

    def spoil(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        del generator
        return inputs * 100.0, targets


@dataclass(frozen=True)
class Poisoned(Fault):
    """One number of the batch is not finite."""

    value: float = math.nan

    def spoil(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        del generator
        spoilt = inputs.clone()
        spoilt.flatten(1)[:, 0] = self.value
        return spoilt, targets


@dataclass(frozen=True)
class Overflow(Fault):
    """A gradient scaler whose scale is 2^6 too large: half precision overflows until six halvings are done."""

    def grind(self, gradient: Tensor, step: int) -> Tensor:
        largest = gradient.abs().amax(1, keepdim=True).clamp(min=1e-30)
        scale = FP16_MAX * 2.0 ** (6 - step) / largest
        return (gradient * scale).half().float() / scale


@dataclass(frozen=True)
class Leap(Fault):
    """The learning rate is a hundred times too large, for one step."""

    def rate(self, step: int) -> float:
        return 100.0 if step == 0 else 1.0


@dataclass(frozen=True)
class Headless(Fault):
    """The weights of the last layer are zero."""

    def strike(self, fleet: Fleet, generator: torch.Generator) -> None:
        del generator
        fleet.weights = fleet.weights.clone()
        fleet.task.views(fleet.weights)[fleet.task.head].zero_()


@dataclass(frozen=True)
class Weight(Fault):
    """One weight of the largest tensor is 50."""

    def strike(self, fleet: Fleet, generator: torch.Generator) -> None:
        del generator
        fleet.weights = fleet.weights.clone()
        largest = max(fleet.task.shapes, key=lambda name: math.prod(fleet.task.shapes[name]))
        lanes = len(fleet.weights)
        part = fleet.task.views(fleet.weights)[largest].view(lanes, -1)
        part[:, part.shape[1] // 2] = 50.0


@dataclass(frozen=True)
class Noise(Fault):
    """Every weight is moved by noise of one standard deviation of its tensor."""

    def strike(self, fleet: Fleet, generator: torch.Generator) -> None:
        parts = []
        for part in torch.split(fleet.weights, fleet.task.sizes(), dim=1):
            spread = part.std(1, correction=0, keepdim=True)
            noise = torch.randn(fleet.task.replicas, part.shape[1], generator=generator)
            parts.append(part + spread * noise[fleet.replica])
        fleet.weights = torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Statistics(Fault):
    """A running statistic of BatchNorm is NaN; in training mode no loss shows it."""

    def possible(self, fleet: Fleet) -> bool:
        return bool(fleet.buffers)

    def strike(self, fleet: Fleet, generator: torch.Generator) -> None:
        del generator
        name = next(iter(fleet.buffers))
        fleet.buffers[name] = fleet.buffers[name].clone()
        fleet.buffers[name][:, 0] = math.nan


@dataclass(frozen=True)
class Drift(Fault):
    """The learning rate grows by two per cent a step."""

    def rate(self, step: int) -> float:
        return 1.02 ** (step + 1)


@dataclass(frozen=True)
class Shift(Fault):
    """From now on half of every batch has the targets of others: the loss has a new level, for good."""

    def spoil(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        half = targets.shape[1] // 2
        order = torch.cat((torch.randperm(half, generator=generator), torch.arange(half, targets.shape[1])))
        return inputs, targets[:, order]


ONCE = frozenset({0})
ROW = frozenset(range(20))

FAULTS: tuple[Fault, ...] = (
    Shuffled("shuffled once", bad=ONCE),
    Shuffled("burst of 20", bad=frozenset(range(0, 40, 2)), steps=80),
    Shuffled("20 in a row", bad=ROW),
    Scaled("inputs x100", bad=ONCE),
    Poisoned("NaN", bad=ONCE, steps=150),
    Poisoned("inf", bad=ONCE, steps=150, value=math.inf),
    Overflow("fp16 overflow", kind="gradient", bad=frozenset(range(6))),
    Leap("rate x100", kind="state", shows=1),
    Headless("head zeroed", kind="state"),
    Weight("weight = 50", kind="state"),
    Noise("weights + noise", kind="state"),
    Statistics("BatchNorm NaN", kind="state"),
    Drift("rate +2 %", kind="slow", steps=200),
    Shift("level shift", kind="slow", bad=frozenset(range(200)), steps=200),
)
