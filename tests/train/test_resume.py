"""A run that is broken off anywhere and resumed is the run that was not: the same losses and weights, bit for bit."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from flyball.events import StepSample, read
from flyball.govern import Policy
from flyball.objective import Task
from flyball.train import Callback, History, Step, Trainer

EPOCHS, BATCHES = 3, 8


class Broken(Exception):
    """Ends a run as an error anywhere in it does."""


class Points(Dataset[tuple[torch.Tensor, int]]):
    """Two clusters, with an augmentation that draws from every generator there is."""

    def __init__(self, *, noisy: bool) -> None:
        generator = torch.Generator().manual_seed(5)
        self.targets = torch.arange(60) % 2
        self.inputs = torch.randn(60, 6, generator=generator) + self.targets[:, None]
        self.noisy = noisy

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        inputs = self.inputs[index]
        if self.noisy:
            legacy = float(np.random.random())  # noqa: NPY002 -- what many augmentations draw from
            inputs = inputs + 0.1 * torch.randn(6) + 0.1 * random.random() + 0.1 * legacy
        return inputs, int(self.targets[index])


@dataclass(frozen=True)
class Kind:
    """How a run is made."""

    adam: bool = False
    noisy: bool = False
    workers: int = 0
    persistent: bool = False
    accumulate: int = 1
    average: bool = False
    scheduler: bool = False
    policy: Policy | None = None
    max_norm: float | None = None


KINDS = {
    "sgd": Kind(),
    "adamw, dropout, scheduler": Kind(adam=True, scheduler=True),
    "augmented": Kind(noisy=True, adam=True),
    "accumulated, averaged": Kind(adam=True, noisy=True, accumulate=3, average=True, max_norm=1.0),
    "governed": Kind(adam=True, noisy=True, average=True, scheduler=True, policy=Policy(snapshot_every=4)),
    "governed, accumulated": Kind(noisy=True, accumulate=3, policy=Policy(snapshot_every=2), max_norm=0.5),
}
WITH_WORKERS = {
    "workers": Kind(noisy=True, workers=2, adam=True),
    "persistent workers, governed": Kind(noisy=True, workers=2, persistent=True, policy=Policy(snapshot_every=4)),
}


@dataclass
class Breaks(Callback):
    """Notes every loss, and breaks the run off after a step or an epoch."""

    step: int | None = None
    epoch: int | None = None
    losses: dict[int, float] = field(default_factory=dict)

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        self.losses[step.number] = float(step.loss)
        if step.number == self.step:
            raise Broken

    def epoch_begins(self, trainer: Trainer, epoch: int) -> None:  # noqa: ARG002
        if epoch == self.epoch:
            raise Broken


def run(
    kind: Kind, folder: Path | None, *, seed: int, breaks: Breaks, every: int | None = None, epochs: int = EPOCHS
) -> tuple[list[torch.Tensor], History]:
    """Build everything anew, as a new process would, and train; `seed` is of what a resume must bring back."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    parameters = model.parameters()
    optimizer = (
        torch.optim.AdamW(parameters, lr=0.01) if kind.adam else torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=24) if kind.scheduler else None
    average = AveragedModel(model, use_buffers=True) if kind.average else None
    loader = DataLoader(
        Points(noisy=kind.noisy),
        batch_size=8,
        shuffle=True,
        num_workers=kind.workers,
        persistent_workers=kind.persistent,
        multiprocessing_context="fork" if kind.workers else None,
    )
    trainer = Trainer(
        model,
        Task(),
        optimizer,
        scheduler=scheduler,
        average=average,
        accumulate=kind.accumulate,
        policy=kind.policy,
        max_norm=kind.max_norm,
        run=folder,
        checkpoint_every=every,
        callbacks=[breaks],
    )
    history = trainer.fit(loader, epochs=epochs, resume=None if folder is None else "auto")
    state = [*model.state_dict().values(), *([] if average is None else average.state_dict().values())]
    for one in optimizer.state_dict()["state"].values():
        state += [value for value in one.values() if isinstance(value, torch.Tensor)]
    return [*state, torch.tensor(optimizer.param_groups[0]["lr"]), torch.rand(2)], history


@pytest.fixture(autouse=True)
def _fork_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        yield


REFERENCES: dict[str, tuple[list[torch.Tensor], dict[int, float], History]] = {}


def reference(name: str, kind: Kind) -> tuple[list[torch.Tensor], dict[int, float], History]:
    """The run that is never broken off, and leaves nothing."""
    if name not in REFERENCES:
        breaks = Breaks()
        state, history = run(kind, None, seed=1, breaks=breaks)
        REFERENCES[name] = state, breaks.losses, history
    return REFERENCES[name]


def check(name: str, kind: Kind, folder: Path, *, breaks: list[Breaks], every: int | None) -> None:
    state, losses, history = reference(name, kind)
    seen: dict[int, float] = {}
    for number, one in enumerate(breaks):
        with pytest.raises(Broken):
            run(kind, folder, seed=1 if number == 0 else 100 + number, breaks=one, every=every)
        seen |= one.losses
    last = Breaks()
    resumed, told = run(kind, folder, seed=99, breaks=last, every=every)
    seen |= last.losses
    assert seen == losses
    assert all(map(torch.equal, resumed, state)), "the weights are those of the run that was not broken off"
    assert [(e.epoch, e.step, e.loss, e.samples) for e in told] == [
        (e.epoch, e.step, e.loss, e.samples) for e in history
    ]
    assert journal(folder) == losses


def journal(folder: Path) -> dict[int, float]:
    """The loss of each step; of one that was made twice, as it was last."""
    samples = [one.event for one in read(folder / "events.jsonl") if isinstance(one.event, StepSample)]
    return {sample.step: sample.loss for sample in samples}


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_resumed_anywhere_it_is_the_run_that_was_not_broken_off(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = KINDS[name]
    steps = EPOCHS * -(-BATCHES // kind.accumulate)
    first = data.draw(st.integers(1, steps - 1), label="broken off after")
    every = data.draw(st.integers(1, 5), label="checkpoint every")
    again = data.draw(st.none() | st.integers(first + 1, steps), label="and again after")
    breaks = [Breaks(step=first), *([] if again is None else [Breaks(step=again)])]
    check(name, kind, tmp_path_factory.mktemp("run") / "run", breaks=breaks, every=every)


@pytest.mark.parametrize("name", WITH_WORKERS)
@pytest.mark.parametrize("where", ["middle", "last step", "between"])
def test_workers_and_their_augmentation_go_on_where_they_stood(name: str, where: str, tmp_path: Path) -> None:
    breaks, every = {
        "middle": (Breaks(step=12), 3),
        "last step": (Breaks(step=2 * BATCHES), BATCHES),
        "between": (Breaks(epoch=2), None),
    }[where]
    check(name, WITH_WORKERS[name], tmp_path / "run", breaks=[breaks], every=every)
