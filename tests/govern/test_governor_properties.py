"""What must hold of a rollback in a governed loop, each named after its property in the specification.

Properties 15 to 24, 28 and 30 hold of the snapshots alone as well, in `test_snapshot.py` (28 and 30 there, on a GPU).
Property 26 is in `test_governor_structure.py`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from flyball import Policy, events
from flyball.errors import GovernorExhausted, RollbackFailed
from flyball.events import Event
from flyball.govern import Action, records
from flyball.govern.governor import Governor
from flyball.govern.snapshot.restore import Prepared

PATIENCE = 60.0


class Run:
    """A small training with everything in it that a rollback must bring back."""

    def __init__(
        self, kind: str = "adam", *, amp: bool = False, policy: Policy | None = None, journal: Any = None
    ) -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 -- the global one is what is restored
        self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.model = nn.Sequential(self.body, nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), self.head)
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer
        if kind == "adam":
            self.optimizer = torch.optim.Adam(parameters, lr=3e-3)
        else:
            self.optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9 if kind == "momentum" else 0.0)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=200)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=7) if amp else None
        chance = torch.Generator().manual_seed(1)
        labels = torch.arange(192) % 3
        inputs = torch.randn(3, 8, generator=chance)[labels] * 1.5 + torch.randn(192, 8, generator=chance)
        self.loader = DataLoader(TensorDataset(inputs, labels, torch.arange(192)), batch_size=8, shuffle=True)
        self.governor = Governor(
            self.model,
            self.optimizer,
            policy=policy or Policy(max_rollbacks=8),
            scheduler=self.scheduler,
            scaler=self.scaler,
            journal=journal,
        )
        self.seen: list[tuple[int, ...]] = []
        self.steps = self.served()

    def served(self) -> Iterator[Any]:
        """Make a step each time it is asked, over as many epochs as it takes."""
        while True:
            feed = self.governor.feed(self.loader)
            for inputs, labels, samples in feed:
                if not feed.probing:
                    self.seen.append(tuple(samples.tolist()))
                loss = functional.cross_entropy(self.model(inputs), labels)
                scaled = loss if self.scaler is None else self.scaler.scale(loss)
                scaled.backward()  # type: ignore[no-untyped-call]
                yield self.governor.step(loss)

    def go(self, steps: int) -> None:
        for _ in range(steps):
            next(self.steps)

    def state(self) -> dict[str, Any]:
        saved = self.optimizer.state_dict()
        return {
            **{name: raw(value) for name, value in self.model.state_dict().items()},
            **{f"{key}.{name}": raw(value) for key, one in saved["state"].items() for name, value in one.items()},
            "groups": repr(saved["param_groups"]),
            "schedule": repr(sorted(self.scheduler.state_dict().items())),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "modes": [module.training for module in self.model.modules()],
            "flags": [parameter.requires_grad for parameter in self.model.parameters()],
            "updates": self.governor.updates,
        }


def raw(value: Any) -> Any:
    return value.detach().numpy().tobytes() if isinstance(value, torch.Tensor) else value


DAMAGE: dict[str, Any] = {
    "weights": lambda run: [one.data.normal_() for one in run.model.parameters()],
    "buffers": lambda run: [one.data.fill_(3) for one in run.model.buffers()],
    "optimizer": lambda run: run.optimizer.state.clear(),
    "rate": lambda run: run.optimizer.param_groups[0].update(lr=100.0),
    "schedule": lambda run: [run.scheduler.step() for _ in range(3)],
    "modes": lambda run: run.model.eval(),
    "flags": lambda run: run.body.requires_grad_(requires_grad=False),
    "draws": lambda _: (torch.rand(7), random.random(), np.random.random()),  # noqa: NPY002
    "not a number": lambda run: [one.data.fill_(math.nan) for one in run.model.parameters()],
}


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from(["sgd", "momentum", "adam"]),
    steps=st.integers(1, 30),
    damage=st.lists(st.sampled_from(sorted(DAMAGE)), min_size=1, unique=True),
)
def test_property_15_after_any_damage_a_rollback_brings_every_component_back(
    kind: str, steps: int, damage: list[str]
) -> None:
    run = Run(kind)
    run.go(steps)
    info, kept = run.governor.snapshot(), run.state()
    run.go(3)
    for one in damage:
        DAMAGE[one](run)
    assert run.governor.rollback("property 15").snapshot_id == info.id
    assert run.state() == kept


@settings(max_examples=8, deadline=None)
@given(kind=st.sampled_from(["sgd", "momentum", "adam"]), amp=st.booleans(), before=st.integers(1, 30))
def test_property_16_ten_steps_after_a_rollback_to_replay_are_the_ten_before_it(
    kind: str,
    amp: bool,  # noqa: FBT001 -- what hypothesis draws
    before: int,
) -> None:
    """With dropout and a loader that shuffles, over the end of an epoch too."""
    run = Run(kind, amp=amp, policy=Policy(recovery="replay"))
    run.go(before)
    run.governor.snapshot()
    run.seen.clear()
    states = []
    for _ in range(10):
        run.go(1)
        states.append(run.state())
    run.governor.rollback("property 16")
    for state in states:
        run.go(1)
        assert run.state() == state
    assert run.seen[10:] == run.seen[:10]


@settings(max_examples=8, deadline=None)
@given(before=st.integers(1, 30), after=st.integers(1, 20))
def test_property_17_to_skip_never_serves_a_discarded_batch_again(before: int, after: int) -> None:
    run = Run()
    run.go(before)
    run.governor.snapshot()
    run.go(after)
    run.governor.rollback("property 17")
    whole_epochs = 24 * (1 + (before + after) // 24)
    run.go(whole_epochs - before - after)
    for epoch in range(0, whole_epochs, 24):
        batches = run.seen[epoch : epoch + 24]
        assert sorted(sample for batch in batches for sample in batch) == list(range(192)), "each sample once an epoch"


def test_property_18_and_19_what_is_kept_is_not_changed_by_training_nor_tracked_by_autograd() -> None:
    run = Run()
    run.go(5)
    info = run.governor.snapshot()
    ring = run.governor._keeper._ring
    bytes_then = ring._find(info.id).arena.array.tobytes()
    run.go(30)
    ring.verify(info.id)
    assert ring._find(info.id).arena.array.tobytes() == bytes_then
    assert not ring._find(info.id).arena.tensor.requires_grad


@pytest.mark.parametrize("where", ["parameter", "buffer", "moment"])
def test_property_20_a_state_that_is_not_finite_is_never_trusted(where: str) -> None:
    heard = Heard()
    run = Run(policy=Policy(snapshot_every=4), journal=heard)
    run.go(20)
    if where == "moment":
        run.optimizer.state[run.body.weight]["exp_avg_sq"].view(-1)[0] = math.nan
    else:
        tensors = list(run.model.parameters() if where == "parameter" else run.model.buffers())
        tensors[0].data.view(-1)[0] = math.nan
    run.go(20)
    committed = [one for one in heard.events if isinstance(one, records.SnapshotCommitted)]
    back = [one for one in heard.events if isinstance(one, records.RolledBack)]
    assert len(back) == 1
    assert back[0].taken_at in {one.taken_at for one in committed}
    assert all(bool(torch.isfinite(one).all()) for one in [*run.model.parameters(), *run.model.buffers()])
    for info in run.governor.snapshots:
        kept = run.governor._keeper._ring._find(info.id)
        assert kept.info is not None
        assert kept.info.finite


@pytest.mark.parametrize("point", range(1, 7))
def test_property_21_a_rollback_that_fails_at_any_component_goes_back_to_the_next_older_state_whole(point: int) -> None:
    """The point is the how-manieth of the six components that is being put back."""
    run = Run()
    run.go(5)
    run.governor.snapshot()
    older = run.state()
    run.go(5)
    run.governor.snapshot()
    run.go(2)
    calls = 0
    parts = list(run.governor._state._components.values())

    def failing(plan_of: Any) -> Any:
        def plan(*arguments: Any) -> Any:
            made = plan_of(*arguments)
            apply = made.apply

            def counted(*given: Any) -> None:
                nonlocal calls
                calls += 1
                if calls == point:
                    raise RuntimeError("in the middle")
                apply(*given)

            made.apply = counted
            return made

        return plan

    for part in parts:
        part.plan = failing(part.plan)  # type: ignore[method-assign]
    report = run.governor.rollback("property 21")
    assert "in the middle" in report.passed_over[0]
    assert run.state() == older
    assert calls >= point + 6


def test_property_21_where_one_restore_breaks_off_the_next_older_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.go(5)
    older, kept = run.governor.snapshot(), run.state()
    run.go(5)
    run.governor.snapshot()
    run.go(2)
    commit, broken = Prepared.commit, list[Prepared]()

    def breaks_once(prepared: Prepared) -> Any:
        if not broken:
            broken.append(prepared)
            run.body.weight.data.zero_()
            raise RollbackFailed("it broke off", not_restored=("model",))
        return commit(prepared)

    monkeypatch.setattr(Prepared, "commit", breaks_once)
    report = run.governor.rollback("property 21")
    assert (report.snapshot_id, run.state()) == (older.id, kept)
    assert "it broke off" in report.passed_over[0]
    broken.clear()
    with pytest.raises(RollbackFailed, match="is a mix of states: do not train on"):
        run.governor._keeper.go_back(9, 0, lambda _: None if broken == [] else "no more")


def test_property_22_a_rollback_keeps_every_parameter_the_object_that_it_is() -> None:
    run = Run()
    run.go(5)
    run.governor.snapshot()
    objects = [id(one) for one in [*run.model.parameters(), *run.model.buffers()]]
    moments = [id(value) for one in run.optimizer.state.values() for value in one.values()]
    run.go(5)
    run.governor.rollback("property 22")
    assert objects == [id(one) for one in [*run.model.parameters(), *run.model.buffers()]]
    assert moments == [id(value) for one in run.optimizer.state.values() for value in one.values()]


def test_property_25_the_rollback_that_the_budget_does_not_allow_stops_the_run() -> None:
    """The default allows three within a thousand steps: the third is still made, and is the last."""
    run = Run(policy=Policy())
    run.go(3)
    for _ in range(3):
        run.governor.rollback("property 25")
        run.go(1)
    before = run.state()
    with pytest.raises(GovernorExhausted, match=r"3 rollbacks within 1000 steps did not help"):
        run.governor.rollback("property 25")
    assert run.state() == before


class Heard:
    """A journal in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event, /) -> None:
        self.events.append(event)


class Raises:
    """A sink, a log handler and a hook that raise."""

    def __init__(self) -> None:
        self.asked = 0

    def write(self, _: Event, /) -> None:
        self.asked += 1
        raise OSError("no sink")

    def hook(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("a hook")


class Handler(logging.Handler):
    def emit(self, _: logging.LogRecord) -> None:
        raise RuntimeError("a handler")


def test_property_27_raising_sinks_hooks_and_log_handlers_do_not_prevent_restoration() -> None:
    sink = Raises()
    run = Run(journal=sink)
    logger, handler = logging.getLogger("flyball.govern"), Handler()
    logger.addHandler(handler)
    try:
        run.go(5)
        run.governor.snapshot()
        kept = run.state()
        run.go(5)
        run.model.register_load_state_dict_pre_hook(sink.hook)  # type: ignore[no-untyped-call]
        run.model.register_load_state_dict_post_hook(sink.hook)  # type: ignore[no-untyped-call]
        run.model.register_state_dict_pre_hook(sink.hook)  # type: ignore[no-untyped-call]
        run.optimizer.register_load_state_dict_pre_hook(sink.hook)
        run.optimizer.register_state_dict_pre_hook(sink.hook)
        for module in run.model.modules():
            module.register_forward_pre_hook(sink.hook)
        run.governor.rollback("property 27")
        for module in run.model.modules():
            module._forward_pre_hooks.clear()
        run.optimizer._optimizer_state_dict_pre_hooks.clear()
        run.model._state_dict_pre_hooks.clear()
        assert run.state() == kept
        for _ in range(8):
            run.governor.snapshot()
        asked = sink.asked
        run.governor.snapshot()
        assert sink.asked == asked, "after eight failures in a row it is not asked again"
    finally:
        logger.removeHandler(handler)


def test_property_27_a_sink_that_raises_now_and_then_is_told_of_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Moody(Heard):
        def write(self, event: Event, /) -> None:
            if len(self.events) % 2:
                self.events.append(event)
                raise ValueError("not now")
            self.events.append(event)

    sink = Moody()
    run = Run(journal=sink)
    run.go(1)
    for _ in range(20):
        run.governor.snapshot()
    assert len(sink.events) == 21
    said = [record.getMessage() for record in caplog.records]
    line = "the journal, a `Moody`, did not take `snapshot.committed` (ValueError('not now')): look at its `write`"
    assert said.count(line) == 10


def test_property_29_a_rollback_is_one_event_with_all_that_the_report_says() -> None:
    heard = Heard()
    run = Run(journal=heard)
    run.go(30)
    info = run.governor.snapshot()
    run.go(10)
    with torch.no_grad():
        run.head.weight.fill_(math.nan)
    verdict = next(run.steps)
    assert verdict.action is Action.ROLLBACK
    (event,) = [one for one in heard.events if one.kind == "rollback.done"]
    assert isinstance(event, records.RolledBack)
    assert (event.snapshot, event.taken_at, event.back_to, event.step) == (info.id, 30, 30, 41)
    assert (event.steps_lost, event.updates_lost, event.attempt, event.recovery) == (11, 10, 1, "skip")
    assert tuple(event.codes) == verdict.reasons
    assert event.seen_at == verdict.step == 40
    assert event.reason == ", ".join(verdict.reasons)
    assert (event.data_stood_at, event.data_go_on_at) == ("epoch 1, batch 17", "epoch 1, batch 17")
    assert {"model", "optimizer", "scheduler", "counters", "vitals", "random"} <= set(event.restored)
    assert event.bytes == info.bytes
    assert event.checksum == info.checksum
    assert {"plan", "verify", "copy", "apply"} <= event.phases.keys()
    assert sum(event.phases.values()) <= event.seconds + 1e-6
    report = run.governor.rollback("asked")
    (_, second) = [one for one in heard.events if isinstance(one, records.RolledBack)]
    assert second == report.event()
    assert (report.codes, report.seen_at, report.reason) == ((), None, "asked")


def test_property_54_a_queue_that_overflows_never_blocks_training_and_drops_are_counted(tmp_path: Path) -> None:
    disk_is_free, real = threading.Event(), os.write

    def slow(descriptor: int, data: memoryview) -> int:
        if threading.current_thread().name.startswith("flyball-journal"):
            assert disk_is_free.wait(PATIENCE)
        return real(descriptor, data)

    with mock.patch.object(os, "write", slow):
        journal = events.Journal(tmp_path / "events.jsonl", run="r", capacity=2)
        run = Run(policy=Policy(snapshot_every=1, probation=1, diagnosis=False), journal=journal)
        run.go(40)  # goes on though nothing is written
        dropped = journal.dropped
        disk_is_free.set()
        journal.close()
    assert dropped > 0
    read = list(events.read(tmp_path / "events.jsonl"))
    lost = sum(record.event.count for record in read if isinstance(record.event, events.EventsDropped))
    assert lost == journal.dropped >= dropped


def test_property_55_every_event_of_a_governor_is_a_line_of_strict_json_of_a_known_schema(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with events.Journal(path, run="r") as journal:
        run = Run(policy=Policy(snapshot_every=10, max_rollbacks=2), journal=journal)
        run.go(40)
        for _ in range(2):
            with torch.no_grad():
                run.head.weight.fill_(math.nan)
            run.go(2)
        with pytest.raises(GovernorExhausted):
            run.governor.rollback("once too often")

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=refuse)
    kinds = {record.event.kind for record in events.read(path)}
    assert {"vitals.spoken", "snapshot.committed", "rollback.done", "governor.exhausted"} <= kinds
    for record in events.read(path):
        assert isinstance(record.event, Event), f"{record.event} is of no known schema"
        assert type(record.event).from_data(record.event.to_data()) == record.event
