"""One training of a family as a user would write it: a module, an optimizer of torch, a scheduler."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from benches.faults.fleet import Fleet
from benches.faults.rules import Adam

if TYPE_CHECKING:
    from torch import Tensor

    from benches.faults.faults import Fault
    from benches.faults.task import Task


class Batch(NamedTuple):
    """A batch, and its number in the data."""

    number: int
    inputs: Tensor
    targets: Tensor


class Model(nn.Module):
    """The model of a family, for its only replica: inputs and targets in, loss out."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.named = {name: name.replace(".", "/") for name in task.shapes}
        for name, view in task.views(task.start()).items():
            self.register_parameter(self.named[name], nn.Parameter(view[0].clone()))
        for name, shape in task.buffers.items():
            self.register_buffer(name.replace(".", "/"), torch.zeros(shape))

    def forward(self, batch: Batch) -> Tensor:
        weights = {name: self.get_parameter(own)[None] for name, own in self.named.items()}
        buffers = {name: self.get_buffer(name.replace(".", "/"))[None].clone() for name in self.task.buffers}
        loss = self.task.losses(weights, batch.inputs, batch.targets, buffers)[0]
        with torch.no_grad():
            for name, buffer in buffers.items():
                self.get_buffer(name.replace(".", "/")).copy_(buffer[0])
        return loss

    @torch.no_grad()
    def strike(self, fault: Fault, step: int) -> None:
        """Do to the state what the fault does to it."""
        named = list(self.named.values())
        flat = torch.cat([self.get_parameter(name).flatten() for name in named])[None]
        fleet = Fleet(
            task=self.task,
            replica=torch.zeros(1, dtype=torch.long),
            step=step,
            weights=flat,
            moments=torch.zeros(1, 1, flat.shape[1]),
            updates=torch.zeros(1),
            buffers={name: self.get_buffer(name.replace(".", "/"))[None].clone() for name in self.task.buffers},
        )
        fault.strike(fleet, self.task.generator(f"{fault.name} at {step}"))
        for name, view in self.task.views(fleet.weights).items():
            parameter = self.get_parameter(self.named[name])
            if not torch.equal(parameter, view[0]):
                parameter.copy_(view[0])
        for name, buffer in fleet.buffers.items():
            self.get_buffer(name.replace(".", "/")).copy_(buffer[0])

    @torch.no_grad()
    def grind(self, fault: Fault, step: int) -> None:
        """Do to the gradients what the fault does to them."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        ground = fault.grind(torch.cat([one.flatten() for one in gradients])[None], step)[0]
        parts = torch.split(ground, [one.numel() for one in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def finite(self) -> bool:
        """Tell whether every parameter and buffer is finite."""
        return all(bool(one.isfinite().all()) for one in (*self.parameters(), *self.buffers()))


class Training:
    """Everything that is trained, from the beginning or from a state.

    Args:
        task: The family; only its first replica is trained.
        state: What `state` gave; by default the beginning.
    """

    def __init__(self, task: Task, state: dict[str, Any] | None = None) -> None:
        rule = task.recipe.rule
        self.task = task
        self.model = Model(task)
        parameters = list(self.model.parameters())
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, rule.rate, weight_decay=rule.decay)
            if isinstance(rule, Adam)
            else torch.optim.SGD(parameters, rule.rate, momentum=getattr(rule, "momentum", 0.0))
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda done: task.recipe.schedule(min(1.0, done / task.steps))
        )
        if state is not None:
            self.restore(state)

    def state(self) -> dict[str, Any]:
        """Return a copy of everything."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state over; it stays as it is."""
        self.model.load_state_dict(state["model"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        return Batch(step, *self.task.batch_at(step))

    def backward(self, batch: Batch) -> tuple[float, float]:
        """Run forward and backward, clip, and return the loss and the norm before clipping."""
        loss = self.model(batch)
        loss.backward()
        limit = self.task.recipe.clip
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), math.inf if limit is None else limit)
        return float(loss.detach()), float(norm)

    def update(self) -> None:
        """Apply the gradients."""
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def mean_loss(self, batches: list[Batch]) -> float:
        """Return the mean loss on some batches; infinite where it is not finite."""
        mean = sum(float(self.model(batch)) for batch in batches) / len(batches)
        return mean if math.isfinite(mean) else math.inf
