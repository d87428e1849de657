"""What a governor writes to the disk: snapshots that survive the process, and bundles for a person."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

from flyball import Policy
from flyball.events import Event
from flyball.govern import records
from flyball.govern.governor import Governor
from flyball.govern.snapshot import SnapshotRing, TrainingState, spill

if TYPE_CHECKING:
    from pathlib import Path

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int = 60) -> list[Batch]:
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 16, 6, generator=chance)
    return [(one, (one[:, 0] > 0).long()) for one in inputs]


def built() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 2))
    return model, torch.optim.Adam(model.parameters(), lr=3e-3)


class Heard:
    """A journal in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event, /) -> None:
        self.events.append(event)


def train(governor: Governor, model: nn.Module, data: list[Batch]) -> None:
    for inputs, targets in governor.feed(data):
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        governor.step(loss)


def test_two_runs_that_spill_into_one_folder_keep_their_own_snapshots(tmp_path: Path) -> None:
    (first, _), (model, _) = pairs = built(), built()
    governors = [Governor(*pair, policy=Policy(snapshot_every=10), spill=tmp_path) for pair in pairs]
    governor = governors[1]
    train(governors[0], first, batches())
    train(governor, model, batches())
    written = [[path.name for path in spill.found(run)] for run in sorted(tmp_path.iterdir())]
    assert written == [[f"snapshot-{info.id:08}" for info in governor.snapshots]] * 2
    other, of_other = built()
    ring = SnapshotRing(TrainingState(other, of_other, counters={"updates": 0}, extra={"vitals": governor.vitals}))
    ring.restore(ring.load(spill.found(tmp_path)[-1]).id)
    governor.rollback("to the same")
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))


def test_a_full_disk_is_told_and_the_snapshot_is_trusted_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = built()
    heard = Heard()
    governor = Governor(model, optimizer, policy=Policy(snapshot_every=10), spill=tmp_path, journal=heard)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    train(governor, model, batches(30))
    unwritten = [one for one in heard.events if isinstance(one, records.SnapshotUnwritten)]
    assert [one.snapshot for one in unwritten] == [info.id for info in governor.snapshots]
    assert "make room there" in unwritten[0].reason
    assert spill.found(tmp_path) == []
    assert governor.rollback("a test").taken_at == 20
