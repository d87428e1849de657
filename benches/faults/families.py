"""The kinds of task on which the settings of flyball's detector were chosen, generated anew."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from benches.faults import held_out
from benches.faults.rules import Adam, Recipe, Sgd
from benches.faults.schedules import cosine, one_cycle, step_decay, warm_cosine
from benches.faults.task import Task, cross_entropy, dense, layer, parameters, pick
from flyball.data import digits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Clusters(Task):
    """Ten Gaussian clusters with 15 % wrong labels, a multilayer perceptron."""

    name = "clusters, batch 64"
    batch = 64
    recipe = Recipe(Adam(3e-3, decay=0.01), warm_cosine, clip=1.0)
    shapes = parameters(layer("hidden", 16, 32), layer("head", 32, 10))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.centres = torch.randn(self.replicas, 10, 16, generator=generator)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        shape = (self.replicas, self.batch)
        labels = torch.randint(10, shape, generator=generator)
        noise = torch.randn(*shape, 16, generator=generator)
        wrong = torch.rand(shape, generator=generator) < 0.15
        other = torch.randint(10, shape, generator=generator)
        return pick(self.centres, labels) + noise, torch.where(wrong, other, labels)

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        return cross_entropy(dense(p, "head", dense(p, "hidden", inputs).relu()), targets)


class SmallClusters(Clusters):
    """The same at batch 4, where one batch says little."""

    name = "clusters, batch 4"
    batch = 4
    recipe = Recipe(Adam(1e-3, decay=0.01), warm_cosine, clip=1.0)


class Digits(Task):
    """Handwritten digits, 8 by 8 pixels, one convolution of 3 by 3 and a linear layer."""

    name = "convolution on digits"
    batch = 32
    recipe = Recipe(Sgd(0.03, momentum=0.9))
    shapes = parameters(layer("convolution", 9, 12), layer("head", 192, 10))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        del generator
        split = digits(seed=self.seed)
        self.images = torch.as_tensor(split.train.inputs)
        self.labels = torch.as_tensor(split.train.targets)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        index = torch.randint(len(self.images), (self.replicas, self.batch), generator=generator)
        return self.images[index], self.labels[index]

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        lanes, batch = inputs.shape[:2]
        patches = functional.unfold(inputs.flatten(0, 1), 3, padding=1, stride=2)  # rows x 9 x 16
        patches = patches.transpose(1, 2).reshape(lanes, batch * 16, 9)
        features = dense(p, "convolution", patches).relu().view(lanes, batch, 192)
        return cross_entropy(dense(p, "head", features), targets)


class Markov(Task):
    """The next token of a Markov chain, a causal transformer of one block."""

    name = "transformer on a Markov chain"
    batch = 16
    recipe = Recipe(Adam(3e-3, decay=0.01), warm_cosine, clip=1.0)
    shapes = parameters(
        {"tokens": (12, 16)},
        {"places": (16, 16)},
        layer("queries", 16, 48),
        layer("mix", 16, 16),
        layer("wide", 16, 32),
        layer("narrow", 32, 16),
        layer("head", 16, 12),
    )
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        table = torch.softmax(2.0 * torch.randn(self.replicas, 12, 12, generator=generator), dim=-1)
        token = torch.randint(12, (self.replicas, 64), generator=generator)
        chain = [token]
        for _ in range(255):
            rows = pick(table, token).view(-1, 12)
            token = torch.multinomial(rows, 1, generator=generator).view(self.replicas, 64)
            chain.append(token)
        self.corpus = torch.stack(chain, dim=-1)  # replicas x 64 x 256

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        row = torch.randint(64, (self.replicas, self.batch), generator=generator)
        first = torch.randint(256 - 17, (self.replicas, self.batch, 1), generator=generator)
        text = pick(self.corpus, row).gather(-1, first + torch.arange(17))
        return functional.one_hot(text[..., :-1], 12).float(), text[..., 1:]

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        lanes, batch, length, _ = inputs.shape
        x = torch.bmm(inputs.flatten(1, 2), p["tokens"]).view(lanes, batch, length, 16) + p["places"][:, None]
        x = x.flatten(1, 2)
        query, key, value = (
            part.view(lanes * batch, length, 16) for part in torch.split(dense(p, "queries", _normed(x)), 16, dim=-1)
        )
        ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = torch.softmax((query @ key.mT / 4.0).masked_fill(ahead, -math.inf), dim=-1)
        x = x + dense(p, "mix", (weights @ value).view(lanes, -1, 16))
        x = x + dense(p, "narrow", dense(p, "wide", _normed(x)).relu())
        logits = dense(p, "head", _normed(x)).view(lanes, batch, length, 12)
        return cross_entropy(logits, targets)


class HeavyTails(Task):
    """Regression with noise that has a power law, squared error."""

    name = "regression, power-law noise"
    batch = 32
    recipe = Recipe(Adam(1e-3))
    shapes = parameters(layer("hidden", 8, 24), layer("head", 24, 1))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.direction = torch.randn(self.replicas, 8, 1, generator=generator)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        x = torch.randn(self.replicas, self.batch, 8, generator=generator)
        tail = (1 - torch.rand(self.replicas, self.batch, 1, generator=generator)) ** (-1 / 3.0) - 1
        side = torch.randint(2, tail.shape, generator=generator) * 2 - 1
        clean = torch.bmm(x, self.direction)
        return x, clean + torch.sin(2 * clean) + side * tail

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        return (dense(p, "head", dense(p, "hidden", inputs).tanh()) - targets).square().flatten(1).mean(1)


class Imbalanced(Task):
    """Logistic regression with three positives in a hundred."""

    name = "logistic, 3 % positives"
    batch = 64
    recipe = Recipe(Sgd(0.1, momentum=0.9), step_decay)
    shapes = parameters(layer("head", 20, 1))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.direction = torch.randn(self.replicas, 1, 20, generator=generator) / 2.0

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        positive = (torch.rand(self.replicas, self.batch, 1, generator=generator) < 0.03).float()
        noise = torch.randn(self.replicas, self.batch, 20, generator=generator)
        return noise + positive * self.direction, positive

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        each = functional.binary_cross_entropy_with_logits(dense(p, "head", inputs), targets, reduction="none")
        return each.flatten(1).mean(1)


class Adding(Task):
    """The adding problem: remember two marked numbers out of ten, a gated recurrent network."""

    name = "recurrent, adding problem"
    batch = 32
    recipe = Recipe(Adam(3e-3), clip=1.0)
    shapes = parameters(layer("gates", 18, 32), layer("candidate", 18, 16), layer("head", 16, 1))
    head = "head.weight"

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        values = torch.rand(self.replicas, self.batch, 10, generator=generator)
        marks = torch.rand(self.replicas, self.batch, 10, generator=generator).argsort(-1) < 2
        total = (values * marks).sum(-1, keepdim=True)
        return torch.stack((values, marks.float()), dim=-1), total

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        state = inputs.new_zeros(*inputs.shape[:2], 16)
        for now in inputs.unbind(2):
            update, reset = dense(p, "gates", torch.cat((now, state), dim=-1)).sigmoid().chunk(2, dim=-1)
            candidate = dense(p, "candidate", torch.cat((now, reset * state), dim=-1)).tanh()
            state = torch.lerp(state, candidate, update)
        return (dense(p, "head", state) - targets).square().flatten(1).mean(1)


class Autoencoder(Task):
    """Sixteen numbers that hang on four, squeezed through four, one cycle of the rate."""

    name = "autoencoder, one cycle"
    batch = 32
    recipe = Recipe(Adam(5e-3), one_cycle)
    shapes = parameters(layer("in", 16, 24), layer("code", 24, 4), layer("out", 4, 24), layer("head", 24, 16))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.mixing = torch.randn(self.replicas, 4, 16, generator=generator) / 2.0

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        hidden = torch.randn(self.replicas, self.batch, 4, generator=generator)
        noise = torch.randn(self.replicas, self.batch, 16, generator=generator)
        seen = torch.bmm(hidden, self.mixing).tanh() + 0.05 * noise
        return seen, seen

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        code = dense(p, "code", dense(p, "in", inputs).tanh())
        return (dense(p, "head", dense(p, "out", code).tanh()) - targets).square().flatten(1).mean(1)


class Distilled(Task):
    """A small student of a random teacher, Kullback-Leibler divergence at temperature 2."""

    name = "distillation"
    batch = 64
    recipe = Recipe(Sgd(0.1, momentum=0.9), cosine)
    shapes = parameters(layer("hidden", 12, 16), layer("head", 16, 8))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.first = torch.randn(self.replicas, 12, 48, generator=generator) / math.sqrt(12)
        self.second = torch.randn(self.replicas, 48, 8, generator=generator) / 2.0

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        x = torch.randn(self.replicas, self.batch, 12, generator=generator)
        return x, functional.log_softmax(torch.bmm(torch.bmm(x, self.first).tanh(), self.second) / 2.0, dim=-1)

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        student = functional.log_softmax(dense(p, "head", dense(p, "hidden", inputs).relu()) / 2.0, dim=-1)
        return 4.0 * (targets.exp() * (targets - student)).sum(-1).mean(1)


class Hinge(Task):
    """Three hundred samples, reshuffled every epoch, learnt by heart: loss and norm reach exactly zero."""

    name = "hinge, memorised"
    batch = 20
    length = 2000
    recipe = Recipe(Sgd(0.03, momentum=0.9))
    shapes = parameters(layer("hidden", 20, 48), layer("head", 48, 5))
    head = "head.weight"

    def prepare(self, generator: torch.Generator) -> None:
        self.samples = torch.randn(self.replicas, 300, 20, generator=generator)
        self.labels = torch.randint(5, (self.replicas, 300), generator=generator)

    def draw(self, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        epoch, part = divmod(step, 300 // self.batch)
        generator = self.generator(f"epoch {epoch}")
        order = torch.rand(self.replicas, 300, generator=generator).argsort(-1)
        index = order[:, part * self.batch : (part + 1) * self.batch]
        return pick(self.samples, index), pick(self.labels, index)

    def losses(self, p: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        del buffers
        scores = dense(p, "head", dense(p, "hidden", inputs).relu())
        right = scores.gather(-1, targets[..., None])
        margins = (1.0 + scores - right).relu().scatter(-1, targets[..., None], 0.0)
        return margins.sum(-1).mean(1)


class Batch8(Clusters):
    """Cross-entropy at batch 8, plain gradient descent, the rate falling in steps."""

    name = "cross-entropy, batch 8"
    batch = 8
    recipe = Recipe(Sgd(0.1), step_decay)
    shapes = parameters(layer("hidden", 16, 24), layer("head", 24, 10))


def _normed(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


FAMILIES: tuple[type[Task], ...] = (
    Clusters,
    SmallClusters,
    Digits,
    Markov,
    HeavyTails,
    Imbalanced,
    Adding,
    Autoencoder,
    Distilled,
    Hinge,
    Batch8,
    *held_out.FAMILIES,
)
