"""Many trainings side by side, one to a lane: measured together, updated or held each by itself, forked anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from benches.faults.task import Task


@dataclass(frozen=True)
class Measured:
    """What is known after the backward pass and before the update."""

    losses: Tensor
    norms: Tensor
    gradient: Tensor
    buffers: dict[str, Tensor]


@dataclass
class Fleet:
    """The state of all lanes.

    Attributes:
        task: The family that is trained.
        replica: For each lane, whose data it is given.
        step: The number of the next batch, the same in all lanes.
        weights: Lanes x parameters.
        moments: Lanes x moments x parameters.
        updates: How many updates each lane has had.
        buffers: Running statistics, where the family has some.
    """

    task: Task
    replica: Tensor
    step: int
    weights: Tensor
    moments: Tensor
    updates: Tensor
    buffers: dict[str, Tensor]

    @classmethod
    def launch(cls, task: Task) -> Fleet:
        """Return one lane to a replica, at the first step."""
        weights = task.start()
        lanes = len(weights)
        return cls(
            task=task,
            replica=torch.arange(lanes),
            step=0,
            weights=weights,
            moments=weights.new_zeros(lanes, task.recipe.rule.moments, weights.shape[1]),
            updates=weights.new_zeros(lanes),
            buffers={name: torch.zeros(lanes, *shape) for name, shape in task.buffers.items()},
        )

    def fork(self, lanes: Tensor | None = None) -> Fleet:
        """Return a copy that goes its own way, of all lanes or of those that are named (as often as they are)."""
        which = torch.arange(len(self.weights)) if lanes is None else lanes
        return Fleet(
            task=self.task,
            replica=self.replica[which],
            step=self.step,
            weights=self.weights[which],
            moments=self.moments[which],
            updates=self.updates[which],
            buffers={name: buffer[which] for name, buffer in self.buffers.items()},
        )

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the batch of the next step for each lane."""
        inputs, targets = self.task.batch_at(self.step)
        return inputs[self.replica], targets[self.replica]

    def measure(self, inputs: Tensor, targets: Tensor) -> Measured:
        """Run forward and backward; the running statistics that a training would now have are in the result."""
        buffers = dict(self.buffers)
        leaf = self.weights.requires_grad_()
        losses = self.task.losses(self.task.views(leaf), inputs, targets, buffers)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        self.weights = leaf.detach()
        return Measured(losses.detach(), torch.linalg.vector_norm(gradient, dim=1), gradient, buffers)

    def clipped(self, measured: Measured, limit: Tensor | float | None) -> Tensor:
        """Return the gradient scaled to a norm of at most `limit`, as `clip_grad_norm_` does it."""
        if limit is None:
            return measured.gradient
        factor = (torch.as_tensor(limit) / (measured.norms + 1e-6)).clamp(max=1.0)
        return measured.gradient * factor[:, None]

    def moved(self, gradient: Tensor, rate: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the weights and moments after an update, changing nothing."""
        recipe = self.task.recipe
        base = recipe.rule.rate * recipe.schedule(min(1.0, self.step / self.task.steps))
        rates = torch.as_tensor(base * rate, dtype=self.weights.dtype).expand(len(self.weights))
        return recipe.rule.update(self.weights, self.moments, gradient, rates, self.updates)

    def apply(self, measured: Measured, *, rate: float = 1.0) -> None:
        """Update all lanes and go on to the next batch."""
        self.weights, self.moments = self.moved(self.clipped(measured, self.task.recipe.clip), rate)
        self.updates = self.updates + 1
        self.buffers = measured.buffers
        self.step += 1

    def skip(self) -> None:
        """Go on to the next batch as if this one had never been."""
        self.step += 1
