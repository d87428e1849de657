"""What a family of tasks is, and the layers they are built from, for many replicas side by side.

Every tensor has the replicas (or lanes, which may be several to a replica) as its first dimension, and no operation
mixes them: the sum of the losses then has the gradient of each replica, and twelve trainings cost little more than one.
A batch is a function of (family, seed, step) alone, so that a run can be forked anywhere.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from benches.faults.rules import Recipe

    Shape = tuple[int, ...]


class Task(ABC):
    """A model, its data and its optimizer, replicated with different data and different starts.

    Args:
        replicas: How many trainings run side by side.
        seed: Decides data and starts of all of them.
        steps: The length of the run; by default the family's own.
    """

    name: ClassVar[str]
    batch: ClassVar[int]
    length: ClassVar[int] = 2500
    recipe: ClassVar[Recipe]
    held_out: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    shapes: ClassVar[Mapping[str, Shape]]
    head: ClassVar[str]
    buffers: ClassVar[Mapping[str, Shape]] = MappingProxyType({})

    def __init__(self, replicas: int, seed: int, steps: int | None = None) -> None:
        self.replicas = replicas
        self.seed = seed
        self.steps = self.length if steps is None else steps
        self.prepare(self.generator("constants"))

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator of its own for each purpose."""
        return torch.Generator().manual_seed(zlib.crc32(f"{self.name}/{self.seed}/{purpose}".encode()))

    def prepare(self, generator: torch.Generator) -> None:
        """Draw what stays the same over the run: centres, teachers, a finite data set; by default nothing."""
        del generator

    @abstractmethod
    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs (float, so that they can be spoilt) and targets, replicas x batch x ..."""

    @abstractmethod
    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        """Return the loss of each lane; running statistics in `buffers` are replaced, not changed."""

    def batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of one step, for all replicas."""
        return self.draw(self.generator(f"batch {step}"), step)

    def start(self) -> Tensor:
        """Return the first weights, replicas x all parameters."""
        generator = self.generator("weights")
        parts = []
        for name, shape in self.shapes.items():
            if name.endswith("gain"):
                part = torch.ones(self.replicas, *shape)
            elif len(shape) == 1:
                part = torch.zeros(self.replicas, *shape)
            else:
                part = torch.randn(self.replicas, *shape, generator=generator) / math.sqrt(shape[-2])
            parts.append(part.flatten(1))
        return torch.cat(parts, dim=1)

    def sizes(self) -> list[int]:
        """Return the number of elements of each parameter."""
        return [math.prod(shape) for shape in self.shapes.values()]

    def views(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the parameters by name, as views of the flat weights."""
        parts = torch.split(weights, self.sizes(), dim=1)
        return {
            name: part.view(len(weights), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def dense(p: Mapping[str, Tensor], layer: str, x: Tensor) -> Tensor:
    """Apply one linear layer to lanes x rows x features, each lane with its own weights."""
    return torch.baddbmm(p[f"{layer}.bias"][:, None], x, p[f"{layer}.weight"])


def layer(name: str, before: int, after: int) -> dict[str, Shape]:
    """Return the shapes of one linear layer."""
    return {f"{name}.weight": (before, after), f"{name}.bias": (after,)}


def parameters(*parts: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """Return the shapes of all parts of a model, in their order."""
    return MappingProxyType({name: shape for part in parts for name, shape in part.items()})


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of each lane; classes last."""
    picked = functional.log_softmax(logits, dim=-1).gather(-1, targets[..., None])
    return -picked.flatten(1).mean(1)


def pick(data: Tensor, index: Tensor) -> Tensor:
    """Return `data[r, index[r]]` for each replica r."""
    return data[torch.arange(len(data))[:, None], index]
