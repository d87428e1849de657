"""Loaders of every kind, small, whose batches say which samples they hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

SIZE = 11


class Counted(Dataset[torch.Tensor]):
    """Numbers that know how often each was fetched."""

    def __init__(self, size: int = SIZE, noise: Callable[[], float] = lambda: 0.0) -> None:
        self.size = size
        self.fetched: list[int] = []
        self.noise = noise

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        self.fetched.append(index)
        return torch.tensor(index + self.noise())


class Stream(IterableDataset[torch.Tensor]):
    """Numbers in an order that is drawn at the start of each pass."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from torch.randperm(SIZE)


class Eager(Sampler[int]):
    """Draws its permutation when it is asked for its iterator."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(SIZE).tolist())

    def __len__(self) -> int:
        return SIZE


class Shuffler(Sampler[int]):
    """Draws from a generator of its own and from Python's, and counts its epochs."""

    def __init__(self) -> None:
        self.generator = random.Random(3)
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = list(range(SIZE))
        random.shuffle(order)
        for index in order:
            yield (index + self.epoch + self.generator.randrange(3)) % SIZE

    def __len__(self) -> int:
        return SIZE


class Buckets(Sampler[list[int]]):
    """Batches of several sizes, shuffled as wholes and drawn at once."""

    def __iter__(self) -> Iterator[list[int]]:
        batches = [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9]]
        random.shuffle(batches)
        return iter(batches)


class Reiterable:
    """Not a loader of torch; draws when it is first asked for a batch."""

    def __iter__(self) -> Iterator[int]:
        yield from random.sample(range(SIZE), SIZE)


@dataclass
class Kind:
    """How to build a loader of one kind, and what can be done with it."""

    build: Callable[[], Iterable[Any]]
    touches: bool = False  # skipping reads


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


KINDS: dict[str, Kind] = {
    "list": Kind(lambda: [torch.tensor([i]) for i in range(5)]),
    "in order": Kind(lambda: DataLoader(Counted(), batch_size=3)),
    "shuffled": Kind(lambda: DataLoader(Counted(), batch_size=3, shuffle=True)),
    "own generator": Kind(lambda: DataLoader(Counted(), batch_size=3, shuffle=True, generator=generator())),
    "drop last": Kind(lambda: DataLoader(Counted(), batch_size=3, shuffle=True, drop_last=True)),
    "with replacement": Kind(
        lambda: DataLoader(
            Counted(), batch_size=7, sampler=RandomSampler(range(SIZE), replacement=True, num_samples=70)
        )
    ),
    "replacement, own generator": Kind(
        lambda: DataLoader(
            Counted(),
            batch_size=7,
            sampler=RandomSampler(range(SIZE), replacement=True, num_samples=70, generator=generator()),
        )
    ),
    "subset": Kind(lambda: DataLoader(Counted(), batch_size=2, sampler=SubsetRandomSampler(range(7)))),
    "weighted": Kind(lambda: DataLoader(Counted(), batch_size=2, sampler=WeightedRandomSampler([0.5] * SIZE, 9))),
    "distributed": Kind(
        lambda: DataLoader(Counted(), batch_size=2, sampler=DistributedSampler(Counted(), num_replicas=2, rank=1))
    ),
    "batch sampler": Kind(
        lambda: DataLoader(Counted(), batch_sampler=BatchSampler(RandomSampler(range(SIZE)), 4, drop_last=False))
    ),
    "eager": Kind(lambda: DataLoader(Counted(), batch_size=4, sampler=Eager())),
    "eager, no batches": Kind(lambda: DataLoader(Counted(), batch_size=None, sampler=Eager())),
    "own sampler": Kind(lambda: DataLoader(Counted(), batch_size=3, sampler=Shuffler())),
    "buckets": Kind(lambda: DataLoader(Counted(), batch_sampler=Buckets())),
    "no batches": Kind(lambda: DataLoader(Counted(), batch_size=None, shuffle=True)),
    "iterable dataset": Kind(lambda: DataLoader(Stream(), batch_size=3), touches=True),
    "re-iterable": Kind(Reiterable, touches=True),
}


def numbers(batch: object) -> list[float]:
    """What a batch holds, as numbers that compare."""
    return torch.as_tensor(batch).flatten().tolist()


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 -- the generator that plain loops draw from
    torch.manual_seed(value)
