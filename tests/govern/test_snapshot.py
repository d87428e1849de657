"""Properties 15 to 24, 28 and 30: what a snapshot holds, and that a restore gives it back, all or nothing."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor
from torch.optim.swa_utils import AveragedModel

from flyball.errors import InputError, RollbackFailed, SnapshotError
from flyball.govern.snapshot import mirror, restore
from flyball.govern.snapshot import ring as snapshot
from flyball.govern.snapshot.components import Counters, Module, Optimizer
from flyball.govern.snapshot.ring import SnapshotRing
from flyball.govern.snapshot.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Tree: TypeAlias = Any

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "adam, rate as tensor": lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(0.01), foreach=False),
}


@dataclass
class Run:
    """A small training run with one of everything."""

    optimizer_kind: str = "adam"
    scaled: bool = False
    model: nn.Module = field(init=False)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.ReLU(), nn.Linear(12, 3))
        self.model.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.optimizer = OPTIMIZERS[self.optimizer_kind](self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=200)
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=3) if self.scaled else None
        self.average = AveragedModel(self.model)
        self.noise = torch.Generator().manual_seed(5)
        self.counters: dict[str, Any] = {"step": 0, "seen": [0]}
        self.state = TrainingState(
            self.model,
            self.optimizer,
            scheduler=self.scheduler,
            scaler=self.scaler,
            average=self.average,
            generators={"noise": self.noise},
            counters=self.counters,
        )
        self.ring = SnapshotRing(self.state)

    def step(self) -> float:
        inputs = torch.randn(16, 6, generator=self.noise) + 0.01 * random.random() + 0.01 * float(np.random.rand())  # noqa: NPY002
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.scaled):
            loss = self.model(inputs).float().pow(2).mean()
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.average.update_parameters(self.model)
        self.model.get_buffer("calls").add_(1)
        self.counters["step"] += 1
        self.counters["seen"].append(self.counters["step"])
        return float(loss.item())

    def picture(self) -> Tree:
        """Everything, read by other means than the code under test."""
        return bits(
            {
                "model": [*self.model.named_parameters(), *self.model.named_buffers()],
                "average": list(self.average.state_dict().items()),
                "flags": [parameter.requires_grad for parameter in self.model.parameters()],
                "modes": [module.training for module in self.model.modules()],
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict() if self.scaler is not None else None,
                "random": [random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()],  # noqa: NPY002
                "noise": self.noise.get_state(),
                "counters": self.counters,
            }
        )


def bits(tree: Tree) -> Tree:
    """Turn a tree into one that is equal exactly if every bit is."""
    if isinstance(tree, torch.Tensor):
        return (
            str(tree.dtype),
            tuple(tree.shape),
            bytes(tree.detach().contiguous().view(-1).view(torch.uint8).numpy()),
        )
    if isinstance(tree, np.ndarray):
        return (tree.dtype.str, tree.shape, tree.tobytes())
    if isinstance(tree, dict):
        return {key: bits(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [bits(value) for value in tree]
    return repr(tree)


def spoil(tensor: torch.Tensor) -> bool:
    with torch.no_grad():
        tensor.fill_(float("nan") if tensor.dtype.is_floating_point else 7)
    return True


def spoil_gradients(run: Run) -> None:
    for parameter in run.model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)


def forget_state(run: Run) -> None:
    run.optimizer.state.clear()


def invent_state(run: Run) -> None:
    for parameter in run.model.parameters():
        run.optimizer.state[parameter] = {"exp_avg": torch.ones_like(parameter), "oddity": {"depth": [1, 2]}}


def change_rate(run: Run) -> None:
    for group in run.optimizer.param_groups:
        group["lr"] = 77.0
        group["invented"] = "yes"
        group["weight_decay"] = -1.0


def change_flags(run: Run) -> None:
    for parameter in list(run.model.parameters())[::2]:
        parameter.requires_grad = False


def change_random(run: Run) -> None:
    random.seed(99)
    np.random.seed(98)  # noqa: NPY002
    torch.manual_seed(97)
    run.noise.manual_seed(96)


def change_counters(run: Run) -> None:
    run.counters["seen"].append("nonsense")
    run.counters.pop("step", None)
    run.counters["more"] = 1


DAMAGE: dict[str, Callable[[Run], object]] = {
    "weights": lambda run: [spoil(one) for one in run.model.parameters()],
    "one weight": lambda run: spoil(next(run.model.parameters())),
    "buffers": lambda run: [spoil(one) for one in run.model.buffers()],
    "moments": lambda run: [spoil(v) for s in run.optimizer.state.values() for v in s.values() if torch.is_tensor(v)],
    "state forgotten": forget_state,
    "state invented": invent_state,
    "rate": change_rate,
    "flags": change_flags,
    "modes": lambda run: run.model.eval(),
    "one mode": lambda run: run.model.get_submodule("1").eval(),
    "random": change_random,
    "counters": change_counters,
    "average": lambda run: [spoil(one) for one in run.average.parameters()],
    "scheduler": lambda run: run.scheduler.__dict__.update(last_epoch=150, _last_lr=[0.0]),
    "gradients": spoil_gradients,
    "training": lambda run: run.step(),
}


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(sorted(OPTIMIZERS)),
    steps=st.integers(0, 2),
    damage=st.lists(st.sampled_from(sorted(DAMAGE)), max_size=6, unique=True),
)
def test_property_15_every_component_is_bit_equal_after_any_damage(kind: str, steps: int, damage: list[str]) -> None:
    run = Run(kind)
    for _ in range(steps):
        run.step()
    info = run.ring.promote(run.ring.capture(steps).id)
    before = run.picture()
    for name in sorted(damage, key=lambda one: one != "training"):  # nobody can train what is damaged
        DAMAGE[name](run)
    report = run.ring.restore(info.id)
    assert run.picture() == before
    assert report.differs == ()
    assert set(report.components) == set(info.components)
    assert all(parameter.grad is None for parameter in run.model.parameters())


@pytest.mark.parametrize(
    ("kind", "scaled"), [*((kind, False) for kind in OPTIMIZERS), ("momentum", True), ("adam", True)]
)
@pytest.mark.parametrize("before", [0, 3])
def test_property_16_ten_steps_after_a_restore_are_the_ten_before_it(kind: str, scaled: bool, before: int) -> None:  # noqa: FBT001
    run = Run(kind, scaled)
    for _ in range(before):
        run.step()
    info = run.ring.promote(run.ring.capture(before).id)
    first = [run.step() for _ in range(10)]
    after = run.picture()
    run.ring.restore(info.id)
    assert [run.step() for _ in range(10)] == first
    assert run.picture() == after


def test_property_16_a_scaler_forgets_the_step_it_was_in_the_middle_of() -> None:
    run = Run("momentum", scaled=True)
    run.step()
    info = run.ring.promote(run.ring.capture(1).id)
    assert run.scaler is not None
    run.scaler.scale(run.model(torch.randn(4, 6)).sum()).backward()
    run.scaler.unscale_(run.optimizer)
    run.ring.restore(info.id)
    run.step()  # unscales again, without an error


def test_property_18_later_training_never_changes_a_committed_snapshot() -> None:
    run = Run()
    pictures = {}
    for step in range(8):
        info = run.ring.promote(run.ring.capture(step).id)
        pictures[info.id] = run.picture()
        run.step()
    kept = [info.id for info in run.ring.committed]
    assert len(kept) == 3
    for id_ in kept:
        run.ring.verify(id_)
        run.ring.restore(id_)
        assert run.picture() == pictures[id_]
        run.step()


def test_property_19_nothing_stored_or_restored_is_tracked_by_autograd() -> None:
    run = Run()
    run.step()
    info = run.ring.promote(run.ring.capture(1).id)
    forget_state(run)
    run.ring.restore(info.id)
    tensors = [value for state in run.optimizer.state.values() for value in state.values()]
    assert tensors and not any(tensor.requires_grad or tensor.grad_fn is not None for tensor in tensors)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in run.model.parameters())


def test_property_19_a_graph_that_saved_the_old_values_is_not_used_silently() -> None:
    weight = nn.Parameter(torch.ones(3))
    module = nn.ParameterList([weight])
    ring = SnapshotRing(TrainingState(module))
    id_ = ring.promote(ring.capture(0).id).id
    loss = (weight * weight.exp()).sum()
    ring.restore(id_)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["4.weight", "1.running_var", "exp_avg_sq"])
def test_property_20_a_state_that_is_not_finite_is_never_promoted(where: str, value: float) -> None:
    run = Run()
    run.step()
    good = run.ring.promote(run.ring.capture(1).id)
    before = run.picture()
    state = dict(run.model.named_parameters()) | dict(run.model.named_buffers())
    tensor = state[where] if where in state else list(run.optimizer.state.values())[-1][where]
    with torch.no_grad():
        tensor.view(-1)[-1] = value
    with pytest.raises(
        SnapshotError, match=rf"`(model|optimizer).*{where}` holds a value that is not finite"
    ) as caught:
        run.ring.capture(2)
    assert caught.value.reason == "not-finite"
    assert run.ring.candidates == () and run.ring.committed == (good,)
    run.ring.restore(good.id)
    assert run.picture() == before
    run.ring.promote(run.ring.capture(3).id)


def test_property_20_a_mask_with_infinities_may_keep_them() -> None:
    model = nn.Linear(3, 3)
    model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    state = TrainingState(model)
    assert state.unchecked == ("model.mask",)
    ring = SnapshotRing(state)
    assert not ring.capture(0).finite


class Stubborn:
    """Has a state, and can be told to refuse its next loads."""

    def __init__(self) -> None:
        self.value: Any = torch.arange(3.0)
        self.refusals = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "list": [self.value, {"deep": 1}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.refusals:
            self.refusals -= 1
            self.value = "half loaded"
            raise KeyError("no")
        self.value = state["value"]


def stubborn_run() -> tuple[Run, Stubborn]:
    run, stubborn = Run(), Stubborn()
    run.state.register("stubborn", stubborn)
    run.step()
    return run, stubborn


CAPTURE_POINTS = [
    (TrainingState, "capture"), (snapshot, "bind"), (mirror, "lay_out"), (mirror, "snapshot_gather"),
    (snapshot, "Arena"), (mirror.Capture, "finish"), (snapshot, "_info"), (mirror, "inspect"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "name"), CAPTURE_POINTS)
@pytest.mark.parametrize("failure", [MemoryError("full"), RuntimeError("broken"), KeyboardInterrupt()])
def test_property_21_a_failure_at_any_point_of_a_capture_keeps_the_snapshot_before(
    monkeypatch: pytest.MonkeyPatch, place: Tree, name: str, failure: BaseException
) -> None:
    run = Run()
    first = run.ring.promote(run.ring.capture(0).id)
    before = run.picture()
    run.step()  # the optimizer's state is new, so the layout and the buffers are, too

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail)
        with pytest.raises((type(failure), SnapshotError)):
            run.ring.capture(1)
    assert run.ring.committed == (first,) and run.ring.candidates == ()
    run.ring.restore(first.id)
    assert run.picture() == before
    run.step()
    run.ring.promote(run.ring.capture(2).id)
    assert run.ring.bytes <= run.ring.bound


RESTORE_POINTS = [
    (TrainingState, "plan", False), (restore, "plan_writes", False), (restore, "verify", False),
    (restore, "made_anew", False), (TrainingState, "keep_foreign", False),
    (mirror, "snapshot_scatter", True), (Module, "_apply", True), (Optimizer, "_apply", True),
    (mirror.Writes, "run", True), (torch, "set_rng_state", True),
]  # fmt: skip


@pytest.mark.parametrize(("place", "name", "begun"), RESTORE_POINTS)
@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt()])
def test_property_21_a_failure_at_any_point_of_a_restore_is_old_or_loud(
    monkeypatch: pytest.MonkeyPatch,
    place: Tree,
    name: str,
    begun: bool,  # noqa: FBT001
    failure: BaseException,
) -> None:
    run, _ = stubborn_run()
    info = run.ring.promote(run.ring.capture(0).id)
    saved = run.picture()
    run.step()
    old = run.picture()

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail)
        with pytest.raises((type(failure), SnapshotError, RollbackFailed)) as caught:
            run.ring.restore(info.id)
    assert isinstance(caught.value, RollbackFailed) == begun
    if begun:
        assert isinstance(caught.value, RollbackFailed)
        assert {*caught.value.restored, *caught.value.not_restored} == set(info.components)
        assert caught.value.not_restored
    else:
        assert run.picture() == old
    run.ring.restore(info.id)
    assert run.picture() == saved


def test_property_21_a_component_that_refuses_its_state_leaves_everything_as_it_was() -> None:
    run, stubborn = stubborn_run()
    info = run.ring.promote(run.ring.capture(0).id)
    run.step()
    stubborn.value = now = torch.full((3,), 9.0)
    old = run.picture()
    stubborn.refusals = 1
    with pytest.raises(SnapshotError, match="`stubborn` refused the state of snapshot 1") as caught:
        run.ring.restore(info.id)
    assert caught.value.reason == "refused"
    assert run.picture() == old and torch.equal(stubborn.value, now)
    stubborn.refusals = 2
    with pytest.raises(RollbackFailed, match="putting back what was there failed") as failed:
        run.ring.restore(info.id)
    assert "stubborn" in failed.value.not_restored
    run.ring.restore(info.id)
    assert torch.equal(stubborn.value, torch.arange(3.0))


def test_property_21_what_a_component_keeps_on_purpose_is_reported() -> None:
    run, stubborn = stubborn_run()
    info = run.ring.promote(run.ring.capture(0).id)
    stubborn.load_state_dict = lambda _: None  # type: ignore[method-assign,assignment]
    stubborn.value = torch.zeros(3)
    assert run.ring.restore(info.id).differs == ("stubborn",)


def test_property_21_a_component_that_cannot_be_read_back_does_not_hide_that_the_run_is_restored() -> None:
    run, stubborn = stubborn_run()
    info = run.ring.promote(run.ring.capture(0).id)
    before = run.picture()
    run.step()
    state = run.state.capture

    def unreadable() -> None:
        raise RuntimeError("gone")

    def load(value: dict[str, Any]) -> None:
        stubborn.value = value["value"]
        stubborn.state_dict = unreadable  # type: ignore[method-assign,assignment]

    stubborn.load_state_dict = load  # type: ignore[method-assign,assignment]
    assert run.ring.restore(info.id).differs == ("stubborn",)
    assert run.picture() == before
    with pytest.raises(RuntimeError, match="gone"):
        state()


def test_property_21_memory_that_changes_between_check_and_copy_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    info = run.ring.promote(run.ring.capture(0).id)
    kept = run.ring._find(info.id)
    with monkeypatch.context() as patch:
        patch.setattr(restore, "verify", lambda _: kept.arena.array.__setitem__(0, kept.arena.array[0] ^ 1))
        with pytest.raises(RollbackFailed, match=r"`model\.0\.weight` was not what had been verified"):
            run.ring.restore(info.id)


def test_property_21_a_damaged_snapshot_is_refused_by_name() -> None:
    run = Run()
    ids = [run.ring.promote(run.ring.capture(step).id).id for step in range(2)]
    run.step()
    old = run.picture()
    kept = run.ring._find(ids[1])
    view = next(view for view in kept.layout.views if view.name == "model.4.weight")
    kept.arena.array[kept.layout.pieces[view.piece].offset + 5] ^= 1
    with pytest.raises(SnapshotError, match=r"snapshot 2 is damaged in `model\.4\.weight`") as caught:
        run.ring.restore(ids[1])
    assert caught.value.reason == "damaged"
    assert run.picture() == old
    run.ring.restore(ids[0])


def test_property_21_a_changed_structure_is_refused_by_name() -> None:
    run = Run()
    info = run.ring.promote(run.ring.capture(0).id)
    run.step()
    run.model.add_module("late", nn.Linear(2, 2))
    run.model.register_buffer("calls", None)
    run.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    old = run.picture()
    with pytest.raises(SnapshotError, match=r"new since: `late\.bias`, `late\.weight`") as caught:
        run.ring.restore(info.id)
    assert caught.value.reason == "structure"
    for part in ("buffers that are gone since: `calls`", "has 2 parameter groups and had 1", "modules that are new"):
        assert part in str(caught.value)
    assert run.picture() == old


@pytest.mark.parametrize("change", ["shape", "type"])
def test_property_21_a_changed_tensor_is_refused_by_name(change: str) -> None:
    model = nn.Linear(2, 3)
    ring = SnapshotRing(TrainingState(model))
    info = ring.promote(ring.capture(0).id)
    model.bias.data = torch.zeros(4) if change == "shape" else torch.zeros(3, dtype=torch.float64)
    with pytest.raises(SnapshotError, match=f"`model.bias` has {change} "):
        ring.restore(info.id)


def test_property_22_parameters_buffers_and_optimizer_state_stay_the_same_objects() -> None:
    run = Run()
    run.step()
    info = run.ring.promote(run.ring.capture(1).id)
    run.step()

    def objects() -> list[tuple[int, int]]:
        every = [*run.model.parameters(), *run.model.buffers(), *run.average.parameters()]
        every += [value for state in run.optimizer.state.values() for value in state.values()]
        return [(id(tensor), tensor.data_ptr()) for tensor in every]

    before = objects()
    run.ring.restore(info.id)
    assert objects() == before


def tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model.get_submodule("1").weight = model.get_submodule("0").weight
    return model


def aliased() -> nn.Module:
    model, base = nn.Module(), torch.arange(12.0)
    model.register_buffer("all", base)
    model.register_buffer("head", base[:5])
    model.register_buffer("tail", base[3:])
    model.register_buffer("as_bits", base.view(torch.int32)[2:4])
    return model


def expanded() -> nn.Module:
    model = nn.Module()
    model.register_buffer("wide", torch.arange(3.0)[:, None].expand(3, 1000))
    return model


def shared() -> nn.Module:
    model = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3)])
    model[1].running_mean = model[0].running_mean
    return model


def columns() -> nn.Module:
    model, base = nn.Module(), torch.arange(12.0).view(3, 4)
    model.left, model.right = nn.Parameter(base[:, :2]), nn.Parameter(base[:, 2:])
    return model


@pytest.mark.parametrize(
    ("build", "unique"),
    [(tied, 160), (aliased, 48), (expanded, 12), (shared, 3 * 4 * 7 + 16), (columns, 48), (nn.Module, 0)],
)
def test_property_23_shared_memory_is_stored_once(build: Callable[[], nn.Module], unique: int) -> None:
    model = build()
    ring = SnapshotRing(TrainingState(model))
    info = ring.promote(ring.capture(0).id)
    assert info.bytes == unique
    before = bits([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            (tensor if 0 not in tensor.stride() else tensor[:, 0]).zero_()
    ring.restore(info.id)
    after = bits([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])
    assert after == before
    other = SnapshotRing(TrainingState(build()))
    assert build is tied or other.capture(0).checksum == info.checksum


def test_property_23_what_lies_between_the_columns_is_nobodys() -> None:
    base = torch.arange(12.0).view(3, 4)
    model = nn.ParameterList([nn.Parameter(base[:, :2])])
    ring = SnapshotRing(TrainingState(model))
    info = ring.promote(ring.capture(0).id)
    base.fill_(5.0)
    ring.restore(info.id)
    assert base.tolist() == [[0.0, 1.0, 5.0, 5.0], [4.0, 5.0, 5.0, 5.0], [8.0, 9.0, 5.0, 5.0]]


def test_property_23_tensors_that_were_tied_since_are_refused_and_untied_ones_restored() -> None:
    model = nn.ParameterList([nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))])
    ring = SnapshotRing(TrainingState(model))
    apart = ring.promote(ring.capture(0).id).id
    separate = model[1].data
    model[1].data = model[0].data
    together = ring.promote(ring.capture(1).id).id
    with pytest.raises(SnapshotError, match=r"`model\.0`, `model\.1` share memory now"):
        ring.restore(apart)
    model[1].data = separate
    ring.restore(together)
    assert model[1].tolist() == [1.0] * 4


def test_property_23_memory_read_as_two_types_is_checked_as_each() -> None:
    ring = SnapshotRing(TrainingState(model := aliased()))
    ring.discard(ring.capture(0).id)
    model.get_buffer("all")[9] = torch.nan
    with pytest.raises(SnapshotError, match=r"`model\.all` holds"):
        ring.capture(1)
    model.get_buffer("all")[9] = 0.0


def many_types() -> nn.Module:
    model = nn.Module()
    floating = [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
    others = [torch.complex64, torch.complex128, torch.int8, torch.uint8, torch.uint16, torch.int64, torch.bool]
    for number, dtype in enumerate([*floating, *others]):
        model.register_buffer(f"t{number}", torch.arange(7).to(dtype))
    model.register_buffer("nothing", torch.empty(0, 3))
    model.register_buffer("number", torch.tensor(2.5))
    model.register_buffer("conjugate", torch.view_as_complex(torch.arange(8.0).view(4, 2)).conj())
    model.register_buffer(
        "last_channels", torch.arange(120.0).view(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    )
    model.wave = nn.Parameter(torch.arange(6).to(torch.complex64))
    return model


@pytest.mark.parametrize("build", [nn.Module, lambda: nn.BatchNorm1d(4, affine=False), many_types])
def test_property_24_models_without_parameters_and_every_type_of_tensor(build: Callable[[], nn.Module]) -> None:
    model = build()
    ring = SnapshotRing(TrainingState(model))
    info = ring.promote(ring.capture(0).id)
    before = {name: tensor.clone() for name, tensor in [*model.named_buffers(), *model.named_parameters()]}
    with torch.no_grad():
        for tensor in [*model.buffers(), *model.parameters()]:
            tensor.copy_(torch.zeros_like(tensor))
    ring.restore(info.id)
    for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        assert bits(tensor.resolve_conj()) == bits(before[name].resolve_conj()), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.float8_e5m2])
def test_property_24_every_floating_type_is_checked(dtype: torch.dtype) -> None:
    model = nn.Module()
    model.register_buffer("odd", torch.zeros(300).to(dtype))
    ring = SnapshotRing(TrainingState(model))
    model.get_buffer("odd")[299:] = torch.tensor([torch.inf]).to(dtype)
    with pytest.raises(SnapshotError, match=r"`model\.odd` holds"):
        ring.capture(0)


def test_property_24_a_layout_that_changed_since_is_copied_by_value() -> None:
    model = nn.Conv2d(3, 4, 3)
    ring = SnapshotRing(TrainingState(model))
    info = ring.promote(ring.capture(0).id)
    before = model.weight.clone()
    model.to(memory_format=torch.channels_last)
    spoil(model.weight)
    ring.restore(info.id)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(3).to_sparse(), "of layout `torch.sparse_coo`: keep it dense"),
        (torch.empty(3, device="meta"), "on the meta device: materialise it"),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name_at_once(tensor: torch.Tensor, words: str) -> None:
    model = nn.Module()
    model.odd = nn.Parameter(tensor)
    with pytest.raises(SnapshotError, match=f"`model.odd` is {words}") as caught:
        TrainingState(model)
    assert caught.value.reason == "unsupported"


def test_lazy_parameters_are_refused_until_they_are_there() -> None:
    with pytest.raises(
        SnapshotError, match=r"`model\.(weight|bias)` is not initialised yet: run one forward pass first"
    ):
        TrainingState(nn.LazyLinear(3))


def test_a_state_that_is_not_plain_is_refused_by_name() -> None:
    class Odd:
        def state_dict(self) -> dict[str, object]:
            return {"inner": [1, object()]}

        def load_state_dict(self, _: object) -> None: ...

    with pytest.raises(SnapshotError, match=r"`odd\.inner\[1\]` is a `builtins\.object`, which a snapshot cannot copy"):
        TrainingState(nn.Linear(1, 1), extra={"odd": Odd()})
    with pytest.raises(InputError, match="`odd` is a `int` without `state_dict`"):
        TrainingState(nn.Linear(1, 1), extra={"odd": 3})
    with pytest.raises(InputError, match="`model` is registered already"):
        TrainingState(nn.Linear(1, 1), extra={"model": nn.Linear(1, 1)})


class WithExtra(nn.Linear):
    amax = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"amax": self.amax}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.amax = state["amax"]


def test_several_models_optimizers_and_extras_each_have_their_name() -> None:
    host, seed = nn.Linear(2, 2), WithExtra(2, 2)
    optimizers = {name: torch.optim.SGD(one.parameters(), lr=0.1) for name, one in (("host", host), ("seed", seed))}
    position = {"batch": 3}
    state = TrainingState(
        {"host": host, "seed": seed}, optimizers, extra={"teacher": nn.Linear(1, 1), "dice": torch.Generator()}
    )
    state.register_functions("position", lambda: position["batch"], lambda batch: position.update(batch=batch))
    assert state.components == (
        "model.host", "model.seed", "model.seed.extra_state", "optimizer.host", "optimizer.seed", "teacher", "dice",
        "random", "position",
    )  # fmt: skip
    ring = SnapshotRing(state)
    info = ring.promote(ring.capture(0).id)
    seed.amax, position["batch"] = 5.0, 9
    ring.restore(info.id)
    assert (seed.amax, position["batch"]) == (1.0, 3)


def test_every_scheduler_of_torch_that_is_stateful_goes_round() -> None:
    schedule = torch.optim.lr_scheduler
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    schedulers = [
        schedule.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
        schedule.MultiStepLR(optimizer, [2, 4]),
        schedule.CosineAnnealingWarmRestarts(optimizer, 3),
        schedule.SequentialLR(optimizer, [schedule.ConstantLR(optimizer), schedule.StepLR(optimizer, 2)], [2]),
        schedule.ReduceLROnPlateau(optimizer),
        schedule.CyclicLR(optimizer, 0.1, 0.2),
        torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05),
    ]
    ring = SnapshotRing(TrainingState(model, optimizer, scheduler=schedulers))
    info = ring.promote(ring.capture(0).id)
    before = bits([copy.deepcopy(one.state_dict()) for one in schedulers])
    optimizer.step()
    for _ in range(3):
        for one in schedulers:
            one.step(1.0) if isinstance(one, schedule.ReduceLROnPlateau) else one.step()
    assert ring.restore(info.id).differs == ()
    assert bits([one.state_dict() for one in schedulers]) == before


def test_an_optimizer_with_nested_state_goes_round() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), history_size=3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = (model(torch.eye(3)) - 1).pow(2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    ring = SnapshotRing(TrainingState(model, optimizer))
    info = ring.promote(ring.capture(0).id)
    before = bits(optimizer.state_dict())
    optimizer.state.clear()
    ring.restore(info.id)
    assert bits(optimizer.state_dict()) == before
    assert len(Counters({}).capture()) == 0


def test_a_sharded_model_stores_this_ranks_shard_and_gets_it_back_in_place(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        whole = torch.arange(6.0).view(2, 3)
        model = nn.ParameterList([nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

        def step() -> list[float]:
            (model[0] * model[0]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            values: list[float] = model[0].detach().full_tensor().view(-1).tolist()
            return values

        step()
        ring = SnapshotRing(TrainingState(model, optimizer))
        info = ring.promote(ring.capture(0).id)
        assert info.bytes == 3 * 24 + 4
        after = step()
        ring.restore(info.id)
        assert step() == after
        optimizer.state.clear()
        with pytest.raises(
            SnapshotError, match=r"`optimizer\.state\[0\]\.exp_avg` was a shard of a distributed tensor"
        ):
            ring.restore(info.id)
    finally:
        torch.distributed.destroy_process_group()


@gpu
@needs_gpu
def test_property_28_a_restore_takes_no_device_memory() -> None:
    model = nn.Sequential(*[nn.Linear(512, 512) for _ in range(4)]).cuda()
    ring = SnapshotRing(TrainingState(model))
    info = ring.promote(ring.capture(0).id)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        spoil(parameter)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    ring.restore(info.id)
    assert torch.cuda.max_memory_allocated() - held <= 512 * 512 * 4
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


@gpu
@needs_gpu
def test_property_30_a_capture_that_overlaps_training_is_never_torn() -> None:
    model = nn.ParameterList([nn.Parameter(torch.zeros(1 << 20)) for _ in range(8)]).cuda()
    ring = SnapshotRing(TrainingState(model))
    for round_ in range(20):
        id_ = ring.begin(round_)
        with torch.no_grad():
            for parameter in model:
                parameter.add_(1.0)
        with pytest.raises(SnapshotError, match="promote it first"):
            ring.restore(id_)
        ring.promote(id_)
        ring.restore(id_)
        values = {float(value) for parameter in model for value in parameter.aminmax()}
        assert values == {float(round_)}
        with torch.no_grad():
            for parameter in model:
                parameter.add_(1.0)
