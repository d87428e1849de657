"""Trainings of several ranks by the trainer; run by `support.ranks`."""

from __future__ import annotations

import copy
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from flyball.errors import FlyballError
from flyball.govern import Policy
from flyball.objective import Task, Uncertainty
from flyball.train import Callback, EarlyStopping, Epoch, Step, Trainer
from flyball.train.distributed import Part, load_sharded, newest_of_all, save_sharded, seed
from support.governed import data

_POLICY = Policy(diagnosis=False, snapshot_every=5)


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4)]
    if kind == "fsdp":
        layers.pop(1)
    model: nn.Module = nn.Sequential(*layers)
    if kind == "ddp":
        return DistributedDataParallel(model)
    fully_shard(layers[-1])
    fully_shard(model)
    return model


def trainer_of(rank: int, kind: str, **more: Any) -> Trainer:
    model = model_of(kind)
    torch.manual_seed(rank + 10)
    return Trainer(model, Task(), torch.optim.AdamW(model.parameters(), lr=3e-3), **more)


def loader_of(rank: int) -> DataLoader[Any]:
    return DataLoader(data(rank, 256), batch_size=16, shuffle=True)


def tensors(model: nn.Module) -> list[torch.Tensor]:
    """What this rank holds, copied."""
    values = model.state_dict().values()
    return [(one.to_local() if hasattr(one, "to_local") else one).detach().clone() for one in values]


def like_a_loop(rank: int, kind: str, governed: bool) -> bool:  # noqa: FBT001 -- a case of the test
    """Train by the trainer and by hand; say whether all weights are the same to the bit."""
    trainer = trainer_of(rank, kind, policy=_POLICY if governed else None)
    trainer.fit(loader_of(rank), epochs=2)
    model = model_of(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(rank + 10)
    loader = loader_of(rank)
    for _ in range(2):
        for inputs, targets in loader:
            nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return all(map(torch.equal, tensors(trainer.model), tensors(model)))


class Stop(Callback):
    """End one rank, or all, at a step."""

    def __init__(self, at: int, how: signal.Signals) -> None:
        self.at, self.how = at, how

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002 -- the protocol
        if step.number == self.at:
            os.kill(os.getpid(), self.how)


def resumed(rank: int, kind: str, governed: bool, folder: Path) -> dict[str, Any]:  # noqa: FBT001 -- a case
    """Stop rank 1 by a signal, so that all stop; resume; compare with the run that was never stopped."""
    policy = _POLICY if governed else None
    whole = trainer_of(rank, kind, policy=policy)
    whole.fit(loader_of(rank), epochs=3)
    stop = [Stop(9, signal.SIGTERM)] if rank == 1 else []
    first = trainer_of(
        rank, kind, policy=policy, run=folder, checkpoint_every=4, callbacks=stop, log_ranks=not governed
    )
    stopped = None
    try:
        first.fit(loader_of(rank), epochs=3)
    except SystemExit as end:
        stopped = (str(end), first.step)
    dist.barrier()
    torch.manual_seed(77)  # what the random state is now does not matter
    second = trainer_of(rank, kind, policy=policy, run=folder, checkpoint_every=4, log_ranks=not governed)
    second.fit(loader_of(rank), epochs=3, resume="auto")
    return {
        "stopped": stopped,
        "same": all(map(torch.equal, tensors(second.model), tensors(whole.model))),
        "folders": [
            str(path.relative_to(folder))  # found without a walk through checkpoints that another rank removes
            for path in (folder / "events.jsonl", *sorted(folder.glob("ranks/*/events.jsonl")))
            if path.exists()
        ],
    }


def drawn(rank: int, folder: Path) -> dict[str, Any]:  # noqa: ARG001 -- every rank does the same
    """Seed, train with dropout, break off, resume with other seeds; return what was drawn, and the weights at first."""
    seed(3)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), nn.Linear(32, 4)))
    first = [one.detach().clone() for one in model.parameters()]
    masks: list[torch.Tensor] = []
    model.module[1].register_forward_hook(lambda _, __, said: masks.append(said.detach() != 0))
    seed(3, apart=True)
    state = model.state_dict()

    def fit(epochs: int, **more: Any) -> list[torch.Tensor]:
        masks.clear()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Trainer(model, Task(), optimizer, run=folder, log_ranks=True).fit(
            [(torch.ones(4, 8), torch.arange(4))] * 3, epochs=epochs, **more
        )
        return [*masks]

    one = fit(1)
    model.load_state_dict(state)
    seed(99)
    again = fit(2, resume="auto")
    return {"first": first, "one": one, "again": again, "numpy": float(np.random.random()), "python": random.random()}  # noqa: NPY002


def bound(rank: int) -> dict[str, Any]:
    """Learn the weights of two terms on this rank's data, by the trainer and as one module under DDP."""
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    start = copy.deepcopy(model.state_dict())
    batches = [batch for batch, _ in zip(loader_of(rank), range(6), strict=False)]
    found = {}
    for how in ("trainer", "bound"):
        model.load_state_dict(start)
        objective = Uncertainty(float(rank) if how == "trainer" else 0.0) * Task() + Uncertainty() * Task("focal")
        optimizer = torch.optim.SGD([*model.parameters(), *objective.parameters()], lr=0.1)
        if how == "trainer":
            Trainer(DistributedDataParallel(model), objective, optimizer).fit(batches, epochs=2)
        else:
            together = DistributedDataParallel(objective.bound_to(model))
            for number in range(12):
                together(batches[number % 6], step=number).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        found[how] = [one.detach().clone() for one in (*model.parameters(), *objective.parameters())]
    return found


def over(rank: int) -> list[Any]:
    """Let only rank 1 have waited too long for an improvement; return where this rank stopped."""
    stopping = EarlyStopping(patience=2)
    told = [Patience(stopping)] if rank == 1 else []
    found = []
    for policy in (None, _POLICY):
        stopping.load_state_dict({"best": None, "waited": 0})
        one = trainer_of(rank, "ddp", policy=policy, stopping=stopping, callbacks=told)
        rows = Rows(16)
        history = one.fit(loader_of(rank), DataLoader(rows, batch_size=8, sampler=Part(rows)), epochs=5)
        found.append((len(history), history.reason))
    return found


def accumulated(rank: int, kind: str) -> Any:
    """Train on groups that count unlike many samples, in which each rank has its own; return the weights.

    Beside them those of the definition: the mean over the ranks of the weighted mean of each.
    """
    generator = torch.Generator().manual_seed(rank)
    batches = []
    for number in range(5):  # the last group has one batch; the last batch of the first counts for nothing on rank 1
        mask = torch.rand(8, generator=generator) < (0.0 if (rank, number, kind) == (1, 1, "ddp") else 0.6)
        batches.append((torch.randn(8, 8, generator=generator), torch.arange(8) % 4, None, mask))
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    start = copy.deepcopy(model.state_dict())
    if kind == "fsdp":
        fully_shard(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Trainer(model, Task(), optimizer, accumulate=2).fit(batches, epochs=1)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Trainer(wrapped, Task(), optimizer, accumulate=2).fit(batches, epochs=2)
    found = [one.detach().clone() for one in model.parameters()]
    model.load_state_dict(start)
    for group in 2 * [batches[:2], batches[2:4], batches[4:]]:
        inputs, targets, mask = (torch.cat([batch[part] for batch in group]) for part in (0, 1, 3))  # type: ignore[misc]
        nn.functional.cross_entropy(model(inputs)[mask], targets[mask]).backward()  # type: ignore[no-untyped-call]
        for gradient in [one.grad for one in model.parameters() if one.grad is not None]:
            dist.all_reduce(gradient)
            gradient /= 2  # noqa: PLW2901 -- in place
        optimizer.step()
        optimizer.zero_grad()
    return found, [one.detach().clone() for one in model.parameters()]


class Patience(Callback):
    """Lose it after the second epoch."""

    def __init__(self, stopping: EarlyStopping) -> None:
        self.stopping = stopping

    def epoch_ends(self, trainer: Trainer, epoch: Epoch) -> None:  # noqa: ARG002 -- the protocol
        if epoch.epoch == 2:
            self.stopping.waited = 99


def killed(rank: int, kind: str, governed: bool, folder: Path) -> None:  # noqa: FBT001 -- a case
    """Kill rank 1 in a training."""
    stop = [Stop(9, signal.SIGKILL)] if rank == 1 else []
    trainer_of(rank, kind, policy=_POLICY if governed else None, run=folder, callbacks=stop).fit(
        loader_of(rank), epochs=3
    )


def common(rank: int, kind: str, folder: Path) -> Any:
    """Let the last checkpoint of rank 1 be damaged; return which one all go on from, or the error."""
    trainer = trainer_of(rank, kind, policy=_POLICY, run=folder, checkpoint_every=4)
    trainer.fit(loader_of(rank), epochs=2)
    own = folder / "checkpoints" if rank == 0 else folder / "ranks" / str(rank) / "checkpoints"
    if rank == 1:
        newest = max(own.iterdir(), key=lambda path: path.name)
        next(path for path in newest.iterdir() if path.suffix == ".json").unlink()
    dist.barrier()
    found = newest_of_all(own)
    assert found is not None
    step = found.path.name
    if rank == 1:
        for path in own.iterdir():
            if path.is_dir():
                path.rename(path.with_name("away-" + path.name))
    dist.barrier()
    try:
        newest_of_all(own)
    except FlyballError as error:
        return step, error
    return step, None


class Rows(Dataset[Any]):
    """So many samples, each with its number."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(8, generator=torch.Generator().manual_seed(index)), index % 4


def validated(rank: int, samples: int) -> tuple[float, float, float]:
    """Measure in parts, and all of it on this rank alone."""
    trainer = trainer_of(rank, "ddp")
    rows = Rows(samples)
    together = trainer.validate(DataLoader(rows, batch_size=8, sampler=Part(rows)))
    from flyball.evaluation import evaluate

    model = trainer.model
    assert isinstance(model, DistributedDataParallel)
    alone = evaluate(model.module, DataLoader(rows, batch_size=8))
    numbers = [{name: one.value for name, one in result.numbers().items()} for result in (together, alone)]
    return numbers[0]["loss"], numbers[1]["loss"], numbers[0]["accuracy"] - numbers[1]["accuracy"]


def saved(rank: int, folder: Path) -> list[torch.Tensor]:
    """Train a sharded model a little and save it; return all of its weights."""
    trainer = trainer_of(rank, "fsdp")
    trainer.fit(loader_of(rank), epochs=1)
    save_sharded(folder, trainer.model, trainer._optimizers)
    return _whole(trainer)


def loaded(rank: int, folder: Path) -> list[torch.Tensor]:
    """Load it, perhaps over other shards; return all of its weights."""
    trainer = trainer_of(rank, "fsdp")
    load_sharded(folder, trainer.model, trainer._optimizers)
    return _whole(trainer)


def _whole(trainer: Trainer) -> list[torch.Tensor]:
    moments = [one for state in trainer._optimizers[0].state.values() for one in state.values()]
    found = [*trainer.model.state_dict().values(), *moments]
    return [(one.full_tensor() if hasattr(one, "full_tensor") else one).detach().clone() for one in found]
