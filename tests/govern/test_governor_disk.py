"""What a governor writes to the disk: snapshots that survive the process, and bundles for a person."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from flyball import Policy
from flyball.errors import SnapshotError
from flyball.events import Event
from flyball.govern import Level, records
from flyball.govern.bundle import open_bundle
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


def spoilt(data: list[Batch], at: int) -> list[Batch]:
    inputs, targets = data[at]
    return [*data[:at], (inputs * math.nan, targets), *data[at + 1 :]]


def test_a_bundle_gives_back_batch_state_and_chance_so_that_the_loss_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = built()
    governor = Governor(model, optimizer, bundles=tmp_path)
    data = batches()
    data[40] = (data[40][0] * 1e4, 1 - data[40][1])
    train(governor, model, data)
    (path,) = (path for run in tmp_path.iterdir() for path in run.iterdir())
    bundle = open_bundle(path)
    assert (bundle.verdict.step, bundle.verdict.level, bundle.position) == (40, Level.ANOMALY, "epoch 0, batch 40")
    assert "scales above" in str(bundle.verdict)
    other, of_other = built()
    debugged = Governor(other, of_other)
    debugged.replay(bundle)
    ((inputs, targets),) = bundle.batches
    assert torch.equal(inputs, data[40][0])
    assert debugged.updates == 40
    assert functional.cross_entropy(other(inputs), targets).item() == bundle.loss


def test_a_bundle_of_a_damaged_state_holds_it_as_it_is_and_the_batch_that_showed_it(tmp_path: Path) -> None:
    model, optimizer = built()
    governor = Governor(model, optimizer, bundles=tmp_path)
    train(governor, model, batches())
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = math.nan
    train(governor, model, batches())
    (path,) = (path for run in tmp_path.iterdir() for path in run.iterdir())
    bundle = open_bundle(path)
    assert bundle.verdict.level is Level.PANIC
    assert "nonfinite-parameters" in bundle.verdict.reasons
    assert math.isnan(bundle.loss)
    other, of_other = built()
    Governor(other, of_other).replay(bundle)
    assert torch.isnan(next(other.parameters())).sum() == 1


def test_bundles_are_few_one_for_a_row_of_refusals_and_off_unless_asked_for(tmp_path: Path) -> None:
    model, optimizer = built()
    governor = Governor(model, optimizer, policy=Policy(bundles=2), bundles=tmp_path / "bundles")
    data = batches(80)
    for at in (40, 41, 42, 50, 60):
        data = spoilt(data, at)
    train(governor, model, data)
    (run,) = (tmp_path / "bundles").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["bundle-00000050", "bundle-00000060"]
    other, of_other = built()
    train(Governor(other, of_other), other, data)
    assert [path.name for path in tmp_path.iterdir()] == ["bundles"]


def test_a_bundle_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    model, optimizer = built()
    place = tmp_path / "file"
    place.write_text("in the way")
    governor = Governor(model, optimizer, bundles=place)
    train(governor, model, spoilt(batches(), 40))
    assert governor.updates == 59


def test_a_batch_in_any_container_comes_back_by_its_field_names(tmp_path: Path) -> None:
    class Named(NamedTuple):
        inputs: torch.Tensor
        targets: torch.Tensor
        tag: str

    model, optimizer = built()
    governor = Governor(model, optimizer, bundles=tmp_path)
    for inputs, targets, _ in governor.feed([Named(*batch, f"batch {n}") for n, batch in enumerate(batches())]):
        bad = governor.updates == 40 and not governor.probing
        loss = functional.cross_entropy(model(inputs), targets) * (math.nan if bad else 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        governor.step(loss)
        if bad:
            break
    (path,) = (path for run in tmp_path.iterdir() for path in run.iterdir())
    (batch,) = open_bundle(path).batches
    assert batch["tag"] == "batch 40"
    assert torch.equal(batch["inputs"], batches()[40][0])


@pytest.mark.parametrize("name", ["bundle.json", "batch.safetensors", "state/snapshot.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_bundle_is_refused_by_name_and_changes_nothing(tmp_path: Path, name: str, damage: str) -> None:
    model, optimizer = built()
    governor = Governor(model, optimizer, bundles=tmp_path)
    train(governor, model, spoilt(batches(), 40))
    (path,) = (path for run in tmp_path.iterdir() for path in run.iterdir())
    file = path / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.unlink()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(SnapshotError, match="cannot be read"):
        governor.replay(open_bundle(path))
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
