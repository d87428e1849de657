"""Governed trainings on several ranks, whole or sharded, with faults on one of them; run by `support.ranks`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from flyball.errors import FlyballError
from flyball.govern.agreement import Measured, own_part
from flyball.govern.governor import Governor
from flyball.govern.policy import Policy

Batch = tuple[torch.Tensor, ...]
Spoil = Callable[[int, Batch], Batch]


def data(rank: int, samples: int = 512) -> TensorDataset:
    """A rank's share of four Gaussian clusters with some labels wrong."""
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % 4
    inputs = (torch.randn(4, 8, generator=chance) * 1.5)[labels] + torch.randn(samples, 8, generator=chance)
    wrong = torch.rand(samples, generator=chance) < 0.1
    labels = torch.where(wrong, (labels + 1) % 4, labels)
    mine = slice(rank, None, dist.get_world_size())
    return TensorDataset(inputs[mine], labels[mine])


@dataclass
class Training:
    """A training of one rank: the same weights on all, data and random state of its own."""

    rank: int
    kind: str = "ddp"
    norm: bool = True
    model: nn.Module = field(init=False)
    head: nn.Linear = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    loader: DataLoader[Batch] = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.head = nn.Linear(32, 4)
        body: list[nn.Module] = [nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), self.head]
        if self.norm:
            body.insert(1, nn.BatchNorm1d(32))
        self.model = nn.Sequential(*body)
        if self.kind == "ddp":
            self.model = DistributedDataParallel(self.model)
        elif self.kind == "fsdp":
            fully_shard(self.head)
            fully_shard(self.model)
        torch.manual_seed(self.rank)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3)
        self.loader = DataLoader(data(self.rank), batch_size=16, shuffle=True)

    def loss(self, batch: Batch) -> torch.Tensor:
        inputs, targets = batch
        return functional.cross_entropy(self.model(inputs), targets)

    def state(self) -> list[torch.Tensor]:
        """Every tensor of the weights and the optimizer that this rank holds, copied."""
        tensors = [own_part(one) for one in self.model.parameters()]
        for one in self.optimizer.state.values():
            tensors += [own_part(value) for value in one.values() if isinstance(value, torch.Tensor)]
        return [tensor.detach().clone() for tensor in tensors]

    def governor(self, **policy: Any) -> Governor:
        return Governor(self.model, self.optimizer, policy=Policy(**policy), max_norm=self.max_norm)

    @property
    def max_norm(self) -> float | None:
        """Shards are clipped; replicas are not, so that they can be compared to the bit."""
        return 1.0 if self.kind == "fsdp" else None

    def governed(
        self, governor: Governor, epochs: int, spoil: Spoil = lambda _, batch: batch
    ) -> Iterator[tuple[str, ...]]:
        """Train; yield what was decided at each step."""
        number = 0
        for _ in range(epochs):
            feed = governor.feed(self.loader)
            for batch in feed:
                if not feed.probing:
                    batch = spoil(number, batch)  # noqa: PLW2901 -- the fault under test
                    number += 1
                loss = self.loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                verdict = governor.step(loss)
                yield (verdict.level.name, verdict.action.value, *verdict.reasons, str(verdict))


def plain(training: Training, epochs: int) -> None:
    """Train without a governor, clipped as torch does."""
    for _ in range(epochs):
        for batch in training.loader:
            training.loss(batch).backward()  # type: ignore[no-untyped-call]
            if training.max_norm is not None:
                nn.utils.clip_grad_norm_(training.model.parameters(), training.max_norm)
            training.optimizer.step()
            training.optimizer.zero_grad()


def healthy(rank: int, kind: str) -> tuple[list[tuple[str, ...]], list[torch.Tensor], list[torch.Tensor]]:
    """Return what was decided, and the states of a governed and of a plain run."""
    # Before a normalisation a bias has no gradient but rounding, which Adam makes steps of: with shards it is left out.
    governed, bare = (Training(rank, kind, norm=kind == "ddp") for _ in range(2))
    torch.manual_seed(rank + 10)
    plain(bare, 2)
    torch.manual_seed(rank + 10)
    # Without questions, so that there is nothing but the steps of the plain run.
    decided = list(governed.governed(governed.governor(diagnosis=False, snapshot_every=20), 2))
    return decided, governed.state(), bare.state()


def spoilt(rank: int, kind: str, fault: str) -> dict[str, Any]:
    """Spoil three batches of rank 1 in a healthy run."""
    training = Training(rank, kind)
    governor = training.governor(snapshot_every=20)
    at = {70, 80, 81}

    def spoil(number: int, batch: Batch) -> Batch:
        if number not in at or rank != 1:
            return batch
        inputs, targets = batch
        return (inputs * (float("nan") if fault == "nan" else 100.0), targets)

    decided, unchanged = [], True
    before = training.state()
    for step in training.governed(governor, 20 * dist.get_world_size(), spoil):
        decided.append(step)
        now = training.state()
        if step[1] != "apply":
            unchanged = unchanged and all(map(torch.equal, before, now))
        before = now
        if len(decided) >= 100:
            break
    finite = all(bool(torch.isfinite(one).all()) for one in before)
    return {"decided": decided, "unchanged": unchanged, "finite": finite}


def damaged(rank: int, kind: str) -> dict[str, Any]:
    """Damage the state of every rank, and let the governor find it."""
    training = Training(rank, kind, norm=False)
    governor = training.governor(snapshot_every=20)
    decided: list[tuple[str, ...]] = []
    for step in training.governed(governor, 40):
        decided.append(step)
        if len(decided) == 80:
            with torch.no_grad():
                own_part(training.head.weight).mul_(-20.0)
        if len(decided) > 80 and step[1] == "rollback":
            break
    return {"decided": decided, "updates": governor.updates, "ids": [one.id for one in governor.snapshots]}


def rolled_back(rank: int, kind: str, spoil: str) -> dict[str, Any]:
    """Go back where a rank does not have every snapshot whole."""
    training = Training(rank, kind)
    governor = training.governor(snapshots=8)
    steps = training.governed(governor, 40)
    kept = []
    for _ in range(3):
        for _ in range(5):
            next(steps)
        governor.snapshot()
        kept.append(training.state())
    ring = governor._keeper._ring
    if rank == 1:
        for one in ring._committed[-1:] if spoil == "newest" else ring._committed if spoil == "all" else ():
            one.arena.array[one.layout.pieces[0].offset] ^= 1
    before = training.state()
    try:
        report = governor.rollback("a test")
    except FlyballError as error:
        return {"error": error, "as before": all(map(torch.equal, before, training.state()))}
    now = training.state()
    wanted = kept[-2] if spoil == "newest" else kept[-1]
    return {
        "id": report.snapshot_id,
        "to": report.taken_at,
        "digest": report.digest,
        "passed over": report.passed_over,
        "whole": all(map(torch.equal, wanted, now)),
        "ids": [one.id for one in governor.snapshots],
        "after": [next(steps)[1] for _ in range(3)],
    }


def drifted(rank: int) -> list[tuple[str, ...]]:
    """Write to a weight of one rank alone."""
    training = Training(rank)
    governor = training.governor(snapshot_every=20)
    decided = []
    for step in training.governed(governor, 40):
        decided.append(step)
        if len(decided) == 30 and rank == 1:
            with torch.no_grad():
                training.head.bias[2] += 1e-6
        if step[1] == "rollback" or len(decided) == 60:
            break
    return decided


def different_weights(rank: int) -> None:
    """Govern replicas that never were alike."""
    training = Training(rank, "alone")
    with torch.no_grad():
        training.head.bias[2] += rank
    next(training.governed(training.governor(), 1))


def snapshot_on_one(rank: int) -> None:
    training = Training(rank, "alone")
    governor = training.governor()
    steps = training.governed(governor, 1)
    next(steps)
    if rank == 1:
        governor.snapshot()
    next(steps)


def uneven(rank: int) -> None:
    """Give one rank fewer batches."""
    training = Training(rank)
    if rank == 1:
        training.loader = DataLoader(data(rank), batch_size=32, shuffle=True)
    list(training.governed(training.governor(), 1))


def norms(rank: int, kind: str) -> tuple[float | None, float]:
    """Return the norm that the governor judges by and clips by, and the one that torch puts together."""
    training = Training(rank, kind)
    governor = training.governor()
    seen = []
    agreement: Any = governor._agreement
    agree = agreement.step

    def noted(own: Measured) -> Measured:
        agreed: Measured = agree(own)
        seen.append(agreed.norm)
        return agreed

    agreement.step = noted
    for batch in governor.feed(training.loader):
        loss = training.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.get_total_norm([one.grad for one in training.model.parameters() if one.grad is not None])
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        governor.step(loss)
        return seen[0], float(whole)
    raise AssertionError("there was no batch")


def killed(rank: int, kind: str, victim: int) -> None:
    """One rank is killed in the middle of a training."""
    training = Training(rank, kind)
    governor = training.governor()
    with governor.naming_ranks():
        for number, _ in enumerate(training.governed(governor, 40)):
            if number == 5 and rank == victim:
                os.kill(os.getpid(), signal.SIGKILL)


def accumulated(rank: int) -> list[tuple[str, ...]]:
    """Make each step of two batches, with the gradients averaged at the second; spoil one of them on rank 1."""
    training = Training(rank)
    governor = training.governor(snapshot_every=20)
    decided: list[tuple[str, ...]] = []
    number = 0
    for _ in range(20 * dist.get_world_size()):
        feed = governor.feed(training.loader, accumulate=2)
        total = 0.0
        for batch in feed:
            inputs, targets = batch
            if not feed.probing:
                number += 1
                if number == 110 and rank == 1:
                    inputs = inputs * float("nan")
            model = training.model
            assert isinstance(model, DistributedDataParallel)
            due = governor.due
            with model.no_sync() if not due else torch.enable_grad():
                loss = training.loss((inputs, targets)) / 2
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            if due:
                verdict = governor.step(total)
                total = 0.0
                decided.append((verdict.level.name, verdict.action.value, *verdict.reasons))
            if len(decided) == 64:
                return decided
    return decided
