"""The ring of snapshots: which stay, what they may take, and the copy on the disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from flyball._native import snapshot_gather, snapshot_inspect, snapshot_scatter
from flyball.errors import InputError, SnapshotError
from flyball.govern.snapshot import mirror, spill
from flyball.govern.snapshot.plain import Leaf, freeze, leaves, same, thaw
from flyball.govern.snapshot.ring import SnapshotRing, superfluous
from flyball.govern.snapshot.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable


Tree: TypeAlias = Any


def ring_of(size: int = 100, **options: Tree) -> tuple[nn.ParameterList, SnapshotRing]:
    model = nn.ParameterList([nn.Parameter(torch.zeros(size))])
    return model, SnapshotRing(TrainingState(model), **options)


def take(ring: SnapshotRing, step: int) -> int:
    return ring.promote(ring.capture(step).id).id


def test_older_snapshots_stand_further_apart() -> None:
    _, ring = ring_of()
    kept = []
    for step in range(1, 16):
        take(ring, step)
        kept.append([info.step for info in ring.committed])
    assert kept[7:] == [
        [4, 6, 8],
        [4, 8, 9],
        [4, 8, 10],
        [8, 10, 11],
        [8, 10, 12],
        [8, 12, 13],
        [8, 12, 14],
        [12, 14, 15],
    ]


@given(slots=st.integers(1, 6), promotions=st.integers(1, 80))
def test_the_newest_stays_and_the_oldest_is_as_old_as_is_said(slots: int, promotions: int) -> None:
    numbers: list[int] = []
    for number in range(1, promotions + 1):
        numbers.append(number)
        if len(numbers) > slots:
            numbers.remove(superfluous(numbers, slots))
    assert numbers[-1] == promotions
    assert len(numbers) == min(slots, promotions)
    if promotions >= 2**slots:
        ages = [promotions - number for number in numbers]
        assert slots - 1 <= ages[0] <= 2**slots - 1
        assert all(age <= 2 ** (level + 1) - 1 for level, age in enumerate(reversed(ages)))


def test_buffers_are_allocated_once_and_used_again() -> None:
    _, ring = ring_of()
    for step in range(4):
        take(ring, step)
    size = ring.bytes
    addresses = {kept.arena.tensor.data_ptr() for kept in ring._holders()} | {
        one.tensor.data_ptr() for one in ring._free
    }
    for step in range(12):
        take(ring, step)
        assert ring.bytes == size == ring.bound
        now = {kept.arena.tensor.data_ptr() for kept in ring._holders()} | {one.tensor.data_ptr() for one in ring._free}
        assert now == addresses


def test_buffers_of_vanished_tensors_are_given_back() -> None:
    model = nn.ParameterDict({"small": nn.Parameter(torch.zeros(4)), "large": nn.Parameter(torch.zeros(1000))})
    ring = SnapshotRing(TrainingState(model))
    for step in range(5):
        take(ring, step)
    large = ring.bytes
    del model["large"]
    for step in range(8):  # until the spacing lets go of the last one that still has it
        take(ring, step)
        assert ring.bytes <= large
    assert ring.bytes <= 4 * 64


def test_a_candidate_on_probation_is_not_restored_not_overwritten_and_not_lost() -> None:
    _, ring = ring_of()
    first = take(ring, 0)
    candidate = ring.capture(1)
    assert list(ring.candidates) == [candidate]
    with pytest.raises(SnapshotError, match="snapshot 2 is not committed: promote it first"):
        ring.restore(candidate.id)
    with pytest.raises(SnapshotError, match="snapshot 2 is still on probation") as caught:
        ring.capture(2)
    assert caught.value.reason == "busy"
    ring.discard(candidate.id)
    assert list(ring.candidates) == []
    with pytest.raises(SnapshotError, match="there is no candidate 2: the candidates are none"):
        ring.promote(candidate.id)
    with pytest.raises(SnapshotError, match="the only committed one"):
        ring.discard(first)
    take(ring, 3)
    ring.discard(first)
    with pytest.raises(SnapshotError, match="snapshot 1 is not committed: the committed ones are 3"):
        ring.restore(first)


def test_a_memory_cap_is_kept_and_names_what_is_needed() -> None:
    _, ring = ring_of(memory_cap=4 * 448)
    take(ring, 0)
    assert ring.bound == 4 * 448
    _, ring = ring_of(memory_cap=4 * 448 - 1)
    with pytest.raises(
        SnapshotError, match=r"need 1792 bytes \(3 slots and 1 to write to, of 448 each\).*allows 1791"
    ) as caught:
        ring.capture(0)
    assert caught.value.reason == "memory"
    for name in ("slots", "memory_cap", "candidates"):
        with pytest.raises(InputError, match=f"`{name}` is 0: it must be at least 1"):
            ring_of(**{name: 0})


def test_memory_that_cannot_be_had_keeps_the_snapshots_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ring = ring_of()
    first = take(ring, 0)
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")

        patch.setattr(mirror, "_room", full)
        with pytest.raises(SnapshotError, match=r"no memory for a snapshot of 448 bytes .*can't allocate memory\)"):
            ring.capture(1)
    with torch.no_grad():
        model[0].fill_(3.0)
    ring.restore(first)
    assert not model[0].any()


def trained() -> tuple[nn.Module, torch.optim.Optimizer, Any, TrainingState]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    state = TrainingState(model, optimizer, scheduler=scheduler, counters={"step": 4, "best": float("inf")})
    return model, optimizer, scheduler, state


def train(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Tree, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(8, 4)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        losses.append(loss.item())
    return losses


PROGRAM = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
import test_snapshot_ring as here
model, optimizer, scheduler, state = here.trained()
ring = here.SnapshotRing(state)
info = ring.load(here.spill.found(pathlib.Path(sys.argv[1]))[-1])
ring.restore(info.id)
print(info.step, *here.train(model, optimizer, scheduler, 5))
"""


def test_a_fresh_process_goes_on_from_the_disk_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer, scheduler, state = trained()
    ring = SnapshotRing(state, spill=tmp_path / "snapshots")
    train(model, optimizer, scheduler, 3)
    take(ring, 3)
    losses = train(model, optimizer, scheduler, 5)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "snapshots"), str(Path(__file__).parent)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert [float(one) for one in output[1:]] == losses
    assert output[0] == "3"


def test_the_disk_holds_what_the_ring_holds_and_names_every_tensor(tmp_path: Path) -> None:
    model, optimizer, scheduler, state = trained()
    ring = SnapshotRing(state, slots=2, spill=tmp_path)
    (tmp_path / ".snapshot-7.123.part").mkdir()
    for step in range(5):
        train(model, optimizer, scheduler, 1)
        take(ring, step)
    assert [path.name for path in spill.found(tmp_path)] == [f"snapshot-{info.id:08}" for info in ring.committed]
    assert len(list(tmp_path.iterdir())) == 2
    with safe_open(spill.found(tmp_path)[-1] / spill.TENSORS, framework="pt") as file:
        named = {key.split(":", 1)[1]: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- it is no dict
    for name, parameter in model.named_parameters():
        assert torch.equal(named[f"model.{name}"], parameter)
    assert named["optimizer.state[0].exp_avg"].shape == (8, 4)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_by_name(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("spill")
    model, optimizer, scheduler, state = trained()
    ring = SnapshotRing(state, spill=folder)
    train(model, optimizer, scheduler, 1)
    take(ring, 1)
    (path,) = spill.found(folder)
    name = data.draw(st.sampled_from([spill.TENSORS, spill.PLAIN]))
    content = bytearray((path / name).read_bytes())
    body = 8 + int.from_bytes(content[:8], "little") if name == spill.TENSORS else content.index(b"\n") + 1
    if data.draw(st.booleans()):
        at = data.draw(st.integers(body, len(content) - 4))
        content[at] ^= data.draw(st.integers(1, 127))
    else:
        del content[data.draw(st.integers(0, len(content) - 3)) :]
    (path / name).write_bytes(content)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = SnapshotRing(state)
    with pytest.raises(SnapshotError, match=r"snapshot-00000001") as caught:
        other.load(path)
    assert caught.value.reason == "damaged"
    assert other.committed == ()
    assert same(before, dict(model.state_dict()))
    shutil.rmtree(folder)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    _, ring = ring_of(spill=tmp_path)
    take(ring, 0)
    (path,) = spill.found(tmp_path)
    (path / spill.TENSORS).unlink()
    with pytest.raises(SnapshotError, match=r"tensors\.safetensors` cannot be read \(No such file"):
        ring_of()[1].load(path)
    with pytest.raises(
        SnapshotError, match=r"snapshot\.json` cannot be read \(No such file or directory\): restore an older"
    ):
        ring_of()[1].load(tmp_path)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    _, ring = ring_of(spill=tmp_path)
    take(ring, 0)
    (path,) = spill.found(tmp_path)
    document = json.loads((path / spill.PLAIN).read_text())
    (path / spill.PLAIN).write_text(json.dumps(document | {"format": 2}))
    with pytest.raises(SnapshotError, match="its format is 2, and this version reads 1"):
        ring_of()[1].load(path)


@pytest.mark.parametrize("fails", ["fsync", "rename", "mkdir"])
def test_a_full_disk_keeps_the_snapshot_in_memory_and_the_files_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    _, ring = ring_of(spill=tmp_path)
    take(ring, 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os if fails == "fsync" else Path, fails, full)
        with pytest.raises(
            SnapshotError, match="snapshot 2 is committed in memory, but could not be written"
        ) as caught:
            take(ring, 1)
    assert caught.value.reason == "disk"
    assert [info.id for info in ring.committed] == [1, 2]
    (run,) = tmp_path.iterdir()
    assert [path.name for path in run.iterdir()] == ["snapshot-00000001"]
    ring.restore(2)
    ring_of()[1].load(spill.found(tmp_path)[0])


def test_two_runs_in_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    rings = [ring_of(spill=tmp_path)[1] for _ in range(2)]
    for step in range(3):
        for ring in rings:
            take(ring, step)
    for ring in rings:
        ring.discard(ring.committed[0].id)
    runs = [sorted(path.name for path in run.iterdir()) for run in tmp_path.iterdir()]
    assert runs == [["snapshot-00000002", "snapshot-00000003"]] * 2
    assert [path.name for path in spill.found(tmp_path)] == ["snapshot-00000002", "snapshot-00000003"] * 2
    for path in spill.found(tmp_path):
        ring_of()[1].load(path)


class Odd:
    def __init__(self, state: Tree) -> None:
        self.state = state

    def state_dict(self) -> Tree:
        return self.state

    def load_state_dict(self, state: Tree) -> None:
        self.state = state


PLAIN = {
    "numbers": [1, -2.5, float("inf"), float("nan"), 3 + 4j, True, None, 2**70],
    3: ("tuple", {"set"}, frozenset({1}), b"\x00\xff", {"dict": "dict"}),
    "arrays": [np.arange(4, dtype=np.uint32), np.float32(1.5), np.zeros((0, 2))],
    "kinds": [torch.float32, torch.device("cpu"), torch.Size([2, 3])],
    "collections": [Counter({3: 1}), OrderedDict(a=1), defaultdict(list, x=[1]), deque([1, 2], maxlen=5)],
    "tensor": torch.arange(3),
}


def test_plain_data_go_to_the_disk_and_back_unchanged(tmp_path: Path) -> None:
    odd = Odd(PLAIN)
    ring = SnapshotRing(TrainingState(nn.Linear(1, 1), extra={"odd": odd}), spill=tmp_path)
    take(ring, 0)
    fresh = Odd(None)
    other = SnapshotRing(TrainingState(nn.Linear(1, 1), extra={"odd": fresh}))
    other.restore(other.load(spill.found(tmp_path)[0]).id)
    assert same(fresh.state, PLAIN)
    assert [type(one) for one in fresh.state["collections"]] == [Counter, OrderedDict, defaultdict, deque]
    assert fresh.state["collections"][3].maxlen == 5


def test_what_has_no_form_in_a_file_is_refused_by_name(tmp_path: Path) -> None:
    ring = SnapshotRing(TrainingState(nn.Linear(1, 1), extra={"odd": Odd({"f": len})}), spill=tmp_path)
    candidate = ring.capture(0)
    with pytest.raises(
        SnapshotError, match=r"`state\.odd\.f` is a `builtins\.builtin_function_or_method`, which has no form"
    ):
        ring.promote(candidate.id)
    assert list(tmp_path.iterdir()) == []


def test_a_frozen_tree_shares_nothing_with_what_it_was_made_from() -> None:
    tensors: list[torch.Tensor] = []
    names: list[str] = []

    def take_out(name: str, tensor: torch.Tensor) -> int:
        names.append(name)
        tensors.append(tensor)
        return len(tensors) - 1

    tree = {"a": [1, {"b": torch.ones(2)}], 5: (np.zeros(2), deque([torch.zeros(1)])), "set": {1}}
    frozen = freeze(tree, "tree", take_out)
    assert names == ["tree.a[1].b", "tree[5][1][0]"]
    assert list(leaves(frozen)) == [0, 1]
    assert frozen["a"][1]["b"] == Leaf(0)
    copy = thaw(frozen, tensors.__getitem__)
    assert same(copy, tree)
    tree["a"].append(2)  # type: ignore[attr-defined]
    copy[5][0][0] = 9.0
    assert frozen["a"] == [1, {"b": Leaf(0)}] and frozen[5][0][0] == 0.0
    assert not same(copy, tree)


def array(*values: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(values, np.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: snapshot_gather(array(0), [0], [array(1, 2)], ["opaque"], 1),
            "needs bytes 0 to 2, but the arena has 1",
        ),
        (
            lambda: snapshot_gather(array(0), [], [array(1)], ["opaque"], 1),
            "`offsets` has 0 items, but `sources` has 1",
        ),
        (lambda: snapshot_inspect(array(0), [0], [1], ["float31"], 1), "`lanes` holds `float31`: use `opaque` or"),
        (lambda: snapshot_inspect(array(0), [0], [1], [], 1), "`lanes` has 0 items"),
        (lambda: snapshot_scatter(array(0, 0), [0], [array(1, 2, 3)[::2]], 1), "not contiguous"),
    ],
)
def test_the_native_pass_refuses_what_does_not_fit(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_the_native_pass_refuses_memory_that_is_read_only() -> None:
    target = array(1, 2)
    target.flags.writeable = False
    with pytest.raises(InputError, match="read-only or in use"):
        snapshot_scatter(array(3, 4), [0], [target], 1)
    assert target.tolist() == [1, 2]


def test_the_native_pass_says_where_the_first_bad_value_is() -> None:
    values = np.zeros(40, np.float32)
    values[[7, 30]] = np.nan
    arena = np.zeros(400, np.uint8)
    ((checksum, first),) = snapshot_gather(arena, [64], [values.view(np.uint8)], ["float32"], 2)
    assert first == 28
    assert snapshot_inspect(arena, [64, 64], [160, 28], ["float32", "float32"], 1)[0] == (checksum, 28)
    assert snapshot_inspect(arena, [64], [28], ["float32"], 1)[0][1] is None
    back = np.zeros(160, np.uint8)
    assert snapshot_scatter(arena, [64], [back], 1) == [checksum]
    assert (back == values.view(np.uint8)).all()
