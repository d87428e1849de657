"""Kinds of task that no setting of any detector here was chosen on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from benches.faults.rules import Adam, Recipe, Sgd
from benches.faults.schedules import cosine, linear_decay, warm_restarts
from benches.faults.task import Task, cross_entropy, dense, layer, parameters, pick

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Contrastive(Task):
    """Two views of the same thing must find each other in the batch."""

    name = "contrastive"
    batch = 32
    recipe = Recipe(Adam(2e-3), cosine)
    held_out = True
    shapes = parameters(layer("hidden", 16, 32), layer("head", 32, 8))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.mixing = torch.randn(self.replicas, 6, 16, generator=generator) / 2.0

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        thing = torch.bmm(torch.randn(self.replicas, self.batch, 6, generator=generator), self.mixing)
        noise = 0.5 * torch.randn(2, *thing.shape, generator=generator)
        return thing + noise[0], thing + noise[1]

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        one, two = (
            functional.normalize(dense(p, "head", dense(p, "hidden", view).relu()), dim=-1)
            for view in (inputs, targets)
        )
        return cross_entropy(one @ two.mT / 0.2, torch.arange(inputs.shape[1]).expand(inputs.shape[:2]))


class Likelihood(Task):
    """Mean and spread predicted together, Gaussian log-likelihood: the loss changes its sign."""

    name = "Gaussian likelihood, signed"
    batch = 32
    recipe = Recipe(Adam(2e-3))
    held_out = True
    signed = True
    shapes = parameters(layer("hidden", 6, 24), layer("head", 24, 2))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.direction = torch.randn(self.replicas, 6, 1, generator=generator) / 2.0

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        x = torch.randn(self.replicas, self.batch, 6, generator=generator)
        noise = torch.randn(self.replicas, self.batch, 1, generator=generator)
        return x, torch.bmm(x, self.direction).sin() + 0.1 * (1 + x[..., :1].abs()) * noise

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        mean, spread = dense(p, "head", dense(p, "hidden", inputs).tanh()).chunk(2, dim=-1)
        return (spread + 0.5 * ((targets - mean) * (-spread).exp()).square()).flatten(1).mean(1)


class Counts(Task):
    """Poisson regression with a logarithmic link."""

    name = "Poisson regression"
    batch = 16
    recipe = Recipe(Sgd(0.01, momentum=0.9), linear_decay)
    held_out = True
    shapes = parameters(layer("head", 12, 1))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.direction = torch.randn(self.replicas, 12, 1, generator=generator) / 4.0

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        x = torch.randn(self.replicas, self.batch, 12, generator=generator)
        return x, torch.poisson(torch.bmm(x, self.direction).exp(), generator=generator)

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        rate = dense(p, "head", inputs)
        return (rate.exp() - targets * rate + torch.lgamma(targets + 1)).flatten(1).mean(1)


class SkipGram(Task):
    """Which words stand together, with negative sampling; words have Zipf's frequencies."""

    name = "skip-gram"
    batch = 16
    recipe = Recipe(Sgd(0.5), linear_decay)
    held_out = True
    shapes = parameters({"words": (60, 8), "contexts": (60, 8)})
    head = "contexts"

    def prepare(self, generator: torch.Generator) -> None:
        often = 1.0 / torch.arange(1, 61)
        near = torch.softmax(2.0 * torch.randn(self.replicas, 60, 60, generator=generator), dim=-1)
        self.often = often / often.sum()
        self.near = near * self.often
        self.near /= self.near.sum(-1, keepdim=True)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        shape = (self.replicas, self.batch)
        words = torch.multinomial(self.often, math.prod(shape), replacement=True, generator=generator).view(shape)
        right = torch.multinomial(pick(self.near, words).view(-1, 60), 1, generator=generator).view(*shape, 1)
        wrong = torch.multinomial(self.often, 4 * math.prod(shape), replacement=True, generator=generator)
        return functional.one_hot(words, 60).float(), torch.cat((right, wrong.view(*shape, 4)), dim=-1)

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        scores = (torch.bmm(inputs, p["words"]) @ p["contexts"].mT).gather(-1, targets)
        sign = torch.tensor([1.0, -1.0, -1.0, -1.0, -1.0])
        return -functional.logsigmoid(scores * sign).sum(-1).mean(1)


class Residual(Task):
    """Two residual blocks with BatchNorm on two spirals in twelve dimensions, warm restarts."""

    name = "residual with BatchNorm"
    batch = 128
    recipe = Recipe(Sgd(0.05, momentum=0.9), warm_restarts)
    held_out = True
    shapes = parameters(
        layer("in", 12, 24),
        layer("one", 24, 24),
        {"one.gain": (24,)},
        layer("two", 24, 24),
        {"two.gain": (24,)},
        layer("head", 24, 2),
    )
    buffers = parameters({"one.mean": (24,), "one.spread": (24,), "two.mean": (24,), "two.spread": (24,)})
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.plane = torch.randn(self.replicas, 2, 12, generator=generator)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        shape = (self.replicas, self.batch)
        arm = torch.randint(2, shape, generator=generator)
        turn = torch.rand(shape, generator=generator)
        angle = math.pi * (arm + 2 * turn)
        point = (0.2 + turn)[..., None] * torch.stack((angle.cos(), angle.sin()), dim=-1)
        return torch.bmm(point, self.plane) + 0.4 * torch.randn(*shape, 12, generator=generator), arm

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        x = dense(p, "in", inputs)
        for block in ("one", "two"):
            y = torch.bmm(x.relu(), p[f"{block}.weight"])
            mean, variance = y.mean(1), y.var(1, correction=0)
            for name, value in (("mean", mean), ("spread", variance)):
                buffers[f"{block}.{name}"] = 0.9 * buffers[f"{block}.{name}"] + 0.1 * value.detach()
            y = (y - mean[:, None]) * (variance[:, None] + 1e-5).rsqrt()
            x = x + y * p[f"{block}.gain"][:, None] + p[f"{block}.bias"][:, None]
        return cross_entropy(dense(p, "head", x.relu()), targets)


class Ratings(Task):
    """Factors of a matrix of ratings, eight entries at a time."""

    name = "ratings, batch 8"
    batch = 8
    recipe = Recipe(Adam(3e-3))
    held_out = True
    shapes = parameters({"users": (40, 6), "items": (60, 6)})
    head = "items"

    def prepare(self, generator: torch.Generator) -> None:
        users = torch.randn(self.replicas, 40, 3, generator=generator)
        self.ratings = users @ torch.randn(self.replicas, 3, 60, generator=generator)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        shape = (self.replicas, self.batch)
        user = torch.randint(40, shape, generator=generator)
        item = torch.randint(60, shape, generator=generator)
        rating = pick(self.ratings, user).gather(-1, item[..., None])
        rating = rating + 0.3 * torch.randn(rating.shape, generator=generator)
        return torch.cat((functional.one_hot(user, 40), functional.one_hot(item, 60)), dim=-1).float(), rating

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        user, item = torch.bmm(inputs[..., :40], p["users"]), torch.bmm(inputs[..., 40:], p["items"])
        return ((user * item).sum(-1, keepdim=True) - targets).square().flatten(1).mean(1)


FAMILIES: tuple[type[Task], ...] = (Contrastive, Likelihood, Counts, SkipGram, Residual, Ratings)
