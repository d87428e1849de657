"""The governor in a loop: a healthy run untouched, a bad batch without a trace, damage undone."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from flyball import Policy, events
from flyball.errors import GovernorExhausted, InputError, RollbackFailed
from flyball.govern import Action, Level, Verdict, records
from flyball.govern.governor import Governor

Batch = tuple[torch.Tensor, ...]


def data(samples: int = 512, *, seed: int = 0) -> TensorDataset:
    """Four Gaussian clusters with some labels wrong."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 4
    centers = torch.randn(4, 8, generator=chance) * 1.5
    inputs = centers[labels] + torch.randn(samples, 8, generator=chance)
    wrong = torch.rand(samples, generator=chance) < 0.1
    return TensorDataset(inputs, torch.where(wrong, (labels + 1) % 4, labels))


@dataclass
class Run:
    """Everything one training consists of, built from a seed."""

    adam: bool = True
    seed: int = 0
    batch: int = 16
    model: nn.Sequential = field(init=False)
    head: nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scheduler: torch.optim.lr_scheduler.LRScheduler = field(init=False)
    average: AveragedModel = field(init=False)
    loader: DataLoader[Batch] = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
        parameters = self.model.parameters()
        self.head = self.model[4]
        self.optimizer = (
            torch.optim.AdamW(parameters, lr=3e-3) if self.adam else torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
        )
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=2000)
        self.average = AveragedModel(self.model, avg_fn=lambda old, new, _: 0.9 * old + 0.1 * new, use_buffers=True)
        self.loader = DataLoader(data(), batch_size=self.batch, shuffle=True)

    def governor(self, policy: Policy | None = None, **more: Any) -> Governor:
        return Governor(
            self.model, self.optimizer, policy=policy, scheduler=self.scheduler, average=self.average, **more
        )

    def state(self) -> list[torch.Tensor]:
        """Every tensor of the run, copied."""
        tensors = [*self.model.state_dict().values(), *self.average.state_dict().values()]
        for one in self.optimizer.state_dict()["state"].values():
            tensors += [value for value in one.values() if isinstance(value, torch.Tensor)]
        return [tensor.clone() for tensor in tensors]

    def loss(self, batch: Batch) -> torch.Tensor:
        inputs, targets = batch
        return functional.cross_entropy(self.model(inputs), targets)


def plain(run: Run, batches: list[Batch] | DataLoader[Batch], epochs: int = 1) -> list[float]:
    losses = []
    for _ in range(epochs):
        for batch in batches:
            loss = run.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            run.optimizer.step()
            run.scheduler.step()
            run.average.update_parameters(run.model)
            run.optimizer.zero_grad()
            losses.append(loss.item())
    return losses


Spoil = Callable[[int, Batch], Batch]


def governed(
    run: Run,
    governor: Governor,
    source: Any = None,
    *,
    epochs: int = 1,
    spoil: Spoil = lambda _, batch: batch,
    harm: Callable[[int], None] = lambda _: None,
) -> Iterator[Verdict]:
    """Train under the governor; what is spoiled and harmed is numbered by the batches that are new."""
    number = 0
    for _ in range(epochs):
        feed = governor.feed(run.loader if source is None else source)
        for batch in feed:
            if not feed.probing:
                batch = spoil(number, batch)  # noqa: PLW2901 -- the fault under test
                number += 1
            loss = run.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            verdict = governor.step(loss)
            assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())
            yield verdict
            if not feed.probing:
                harm(number)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def nan(batch: Batch) -> Batch:
    return torch.full_like(batch[0], math.nan), batch[1]


def shuffled(batch: Batch) -> Batch:
    return batch[0], (batch[1] + 2) % 4


@pytest.mark.parametrize("adam", [False, True])
def test_a_healthy_governed_run_is_the_plain_run_bit_for_bit(*, adam: bool) -> None:
    plainly, watched = Run(adam=adam), Run(adam=adam)
    torch.manual_seed(5)
    losses = plain(plainly, plainly.loader, epochs=4)
    torch.manual_seed(5)
    verdicts = list(governed(watched, watched.governor(), epochs=4))
    assert [verdict.level for verdict in verdicts if verdict.level > Level.WATCH] == []
    assert len(losses) == len([verdict for verdict in verdicts if verdict.action is Action.APPLY])
    assert same(plainly.state(), watched.state())
    assert plainly.scheduler.state_dict() == watched.scheduler.state_dict()


@pytest.mark.parametrize("adam", [False, True])
def test_a_nan_batch_costs_that_batch_and_leaves_no_trace(*, adam: bool) -> None:
    batches = list(DataLoader(data(), batch_size=16)) * 3
    plainly, watched = Run(adam=adam), Run(adam=adam)
    torch.manual_seed(5)
    plain(plainly, batches)
    torch.manual_seed(5)
    with_bad = [*batches[:40], nan(batches[3]), *batches[40:]]
    verdicts = list(governed(watched, watched.governor(), with_bad))
    refused = [verdict for verdict in verdicts if verdict.action is Action.SKIP and "nonfinite" in verdict.reasons]
    assert refused[0].step == 40
    assert "`4.bias`" in str(refused[0])
    assert not any(verdict.action is Action.ROLLBACK for verdict in verdicts)
    assert same(plainly.state(), watched.state())
    assert plainly.scheduler.state_dict() == watched.scheduler.state_dict()


def test_without_a_feed_a_bad_batch_leaves_weights_moments_and_buffers_alone() -> None:
    run = Run()
    governor = run.governor()
    for number, batch in enumerate(list(run.loader) * 2):
        before = run.state()
        loss = run.loss(nan(batch) if number == 20 else batch)
        loss.backward()  # type: ignore[no-untyped-call]
        verdict = governor.step(loss)
        assert (verdict.action is Action.SKIP) == (number == 20)
        assert same(before, run.state()) == (number == 20)


def test_gradients_are_cleared_whatever_the_verdict() -> None:
    run = Run()
    governor = run.governor()
    for number, _ in enumerate(governed(run, governor, spoil=lambda n, b: nan(b) if n == 10 else b)):
        assert all(parameter.grad is None for parameter in run.model.parameters()), number


def test_damage_to_the_weights_is_diagnosed_and_undone() -> None:
    run = Run()
    governor = run.governor(Policy(snapshot_every=50))
    harmed_at: list[int] = []

    def harm(number: int) -> None:
        if number == 150:
            harmed_at.append(number)
            with torch.no_grad():
                for parameter in run.head.parameters():
                    parameter.mul_(-20.0)

    verdicts = list(governed(run, governor, epochs=8, harm=harm))
    rollbacks = [verdict for verdict in verdicts if verdict.action is Action.ROLLBACK]
    assert harmed_at
    assert len(rollbacks) == 1
    assert "state" in rollbacks[0].reasons
    assert rollbacks[0].step - 150 <= 6
    with torch.no_grad():
        run.model.eval()
        inputs, targets = data().tensors
        assert (run.model(inputs).argmax(dim=1) == targets).float().mean() > 0.8


def test_twenty_bad_batches_in_a_row_need_no_rollback_and_no_budget() -> None:
    run = Run(batch=64)
    run.loader = DataLoader(data(4096), batch_size=64, shuffle=True)
    governor = run.governor()
    spoil: Spoil = lambda n, b: shuffled(b) if 150 <= n < 170 else b  # noqa: E731
    verdicts = list(governed(run, governor, epochs=5, spoil=spoil))
    refused = [verdict for verdict in verdicts if "data" in verdict.reasons]
    assert len(refused) >= 19
    assert not any(verdict.action is Action.ROLLBACK for verdict in verdicts)


def test_one_bad_batch_an_epoch_does_not_spend_the_budget() -> None:
    run = Run()
    verdicts = list(governed(run, run.governor(), epochs=10, spoil=lambda n, b: nan(b) if n % 32 == 17 else b))
    assert (
        sum("nonfinite" in v.reasons and v.action is Action.SKIP and "asking" not in v.reasons for v in verdicts) <= 10
    )
    assert not any(verdict.action is Action.ROLLBACK for verdict in verdicts)


@pytest.mark.parametrize("fed", [False, True])
def test_nan_without_end_stops_the_run_with_the_reason(*, fed: bool) -> None:
    run = Run()
    governor = run.governor()
    spoil: Spoil = lambda n, b: nan(b) if n >= 40 else b  # noqa: E731
    steps: list[int] = []

    def train() -> None:
        steps.extend(verdict.step for verdict in governed(run, governor, epochs=40, spoil=spoil))

    def train_without_a_feed() -> None:
        for number, batch in enumerate(list(run.loader) * 40):
            loss = run.loss(spoil(number, batch))
            loss.backward()  # type: ignore[no-untyped-call]
            steps.append(governor.step(loss).step)

    with pytest.raises(GovernorExhausted, match="step"):
        (train if fed else train_without_a_feed)()
    assert max(steps) <= 40 + 300
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_a_lasting_shift_is_reported_absorbed_and_then_silent() -> None:
    run = Run(batch=32)
    run.loader = DataLoader(data(2048), batch_size=32, shuffle=True)
    governor = run.governor()
    half = torch.arange(32) < 16

    def spoil(number: int, batch: Batch) -> Batch:
        inputs, targets = batch
        return (inputs, torch.where(half, (targets + 2) % 4, targets)) if number >= 200 else batch

    verdicts = list(governed(run, governor, epochs=12, spoil=spoil))
    after = [verdict for verdict in verdicts if verdict.step >= 400]
    assert any(verdict.level >= Level.WATCH for verdict in verdicts)
    assert sum(verdict.action is Action.ROLLBACK for verdict in verdicts) <= 1
    assert not any(verdict.level >= Level.ANOMALY for verdict in after)


def test_a_rollback_restores_everything_and_the_data_go_on() -> None:
    run = Run()
    governor = run.governor()
    batches = list(run.loader) * 4
    seen = governed(run, governor, batches)
    for _ in range(50):
        next(seen)
    kept = run.state()
    info = governor.snapshot()
    for _ in range(20):
        next(seen)
    position = governor.feed(batches).position
    report = governor.rollback("a test")
    assert same(run.state(), kept)
    assert (report.snapshot_id, report.taken_at, report.reason) == (info.id, 50, "a test")
    assert governor.updates == 50
    assert governor.feed(batches).position == position, "what led to it is not served again"


def test_replay_serves_the_same_batches_with_the_same_chance_again() -> None:
    run = Run()
    governor = run.governor(Policy(recovery="replay"))
    batches = list(run.loader) * 4
    seen = governed(run, governor, batches)
    for _ in range(30):
        next(seen)
    governor.snapshot()
    states = []
    for _ in range(10):
        next(seen)
        states.append(run.state())
    governor.rollback("a test")
    for state in states:
        next(seen)
        assert same(run.state(), state)


def test_the_budget_stops_the_fourth_rollback_and_lists_what_happened() -> None:
    run = Run()
    governor = run.governor()
    next(governed(run, governor))
    for number in range(3):
        report = governor.rollback(f"reason {number}")
        assert report.attempt == number + 1
        assert report.learning_rate_factor == 0.5**number
    with pytest.raises(GovernorExhausted, match=r"3 rollbacks within 1000 steps.*reason 0.*reason 2.*reason 3"):
        governor.rollback("reason 3")


def test_clipping_scales_the_gradients_once() -> None:
    plainly, watched = Run(adam=False), Run(adam=False)
    batches = list(DataLoader(data(), batch_size=16))
    torch.manual_seed(5)
    for batch in batches:
        plainly.loss(batch).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(plainly.model.parameters(), 0.5)
        plainly.optimizer.step()
        plainly.scheduler.step()
        plainly.average.update_parameters(plainly.model)
        plainly.optimizer.zero_grad()
    torch.manual_seed(5)
    list(governed(watched, watched.governor(max_norm=0.5), batches))
    torch.testing.assert_close(plainly.state(), watched.state())  # the norm is taken once, and rounded once less


def test_what_happens_is_in_the_journal(tmp_path: Any) -> None:
    run = Run()
    with events.Journal(tmp_path / "events.jsonl", run="r") as journal:
        governor = run.governor(Policy(snapshot_every=20), journal=journal)
        list(governed(run, governor, epochs=3, spoil=lambda n, b: nan(b) if n == 60 else b))
        governor.rollback("a test")
    kinds = [record.event.kind for record in events.read(tmp_path / "events.jsonl")]
    assert kinds.count("snapshot.committed") >= 3
    assert kinds.count("rollback.done") == 1
    assert "vitals.spoken" in kinds


def test_accumulation_goes_on_without_questions() -> None:
    run = Run()
    governor = run.governor()
    losses: list[torch.Tensor] = []
    verdicts = []
    for number, batch in enumerate(governor.feed(list(run.loader) * 6)):
        loss = run.loss(nan(batch) if number == 150 else batch) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        if len(losses) == 2:
            verdicts.append(governor.step(torch.stack(losses).sum()))
            losses.clear()
    assert [v.step for v in verdicts if v.action is not Action.APPLY] == [75]
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_a_gradient_scaler_keeps_its_scale_when_a_bad_batch_is_left_out() -> None:
    run = Run(adam=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    governor = run.governor(scaler=scaler)
    for number, batch in enumerate(list(run.loader) * 4):
        loss = run.loss(batch) * (1000.0 if number == 100 else 1.0)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        before = run.state()
        verdict = governor.step(loss)
        if number == 100:
            assert verdict.action is Action.SKIP
            assert same(before[:4], run.state()[:4])
    assert scaler.get_scale() == 1024.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Governor(m, torch.optim.LBFGS(m.parameters())), "LBFGS, which evaluates the loss inside its step"),
        (
            lambda m: Governor(m, [torch.optim.SGD(m.parameters(), lr=1.0), torch.optim.SGD(m.parameters(), lr=1.0)]),
            "own the same parameter",
        ),
        (lambda m: Governor(m, []), "`optimizer` is an empty list"),
        (lambda m: Governor(m, sgd(m), max_norm=-1.0), "`max_norm` is -1.0: pass a number above 0"),
        (lambda m: Governor(m, sgd(m), max_norm=math.nan), "`max_norm` is nan"),
        (lambda m: Governor(m, sgd(nn.Linear(2, 2))), "owns 2 parameters that are in neither `model` nor `extra`"),
        (
            lambda m: Governor(m, (one := sgd(m)), scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau(one)),
            "ReduceLROnPlateau, which needs a metric",
        ),
    ],
)
def test_what_cannot_be_governed_is_refused_by_name(make: Callable[[nn.Module], Governor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(nn.Linear(2, 2))


def test_a_loss_that_is_no_number_is_refused_by_name() -> None:
    run = Run()
    with pytest.raises(InputError, match="`loss` is "):
        run.governor().step(torch.ones(2))


def test_several_optimizers_frozen_parameters_and_groups_are_governed_together() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    model[1].requires_grad_(requires_grad=False)
    twin = copy.deepcopy(model)
    batches = list(DataLoader(data(), batch_size=16))

    def optimizers(of: nn.Module) -> list[torch.optim.Optimizer]:
        assert isinstance(of, nn.Sequential)
        weight, bias = of[2].weight, of[2].bias
        assert isinstance(weight, nn.Parameter)
        assert isinstance(bias, nn.Parameter)
        groups: list[dict[str, Any]] = [{"params": [weight]}, {"params": [bias], "lr": 0.1}]
        return [
            torch.optim.SGD(of[0].parameters(), lr=0.1),
            torch.optim.Adam(groups, lr=0.01),
        ]

    theirs = optimizers(twin)
    governor = Governor(model, optimizers(model))
    for inputs, targets in batches:
        functional.cross_entropy(twin(inputs), targets).backward()  # type: ignore[no-untyped-call]
        for one in theirs:
            one.step()
            one.zero_grad()
    for inputs, targets in governor.feed(batches):
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        governor.step(loss)
    assert same(list(model.state_dict().values()), list(twin.state_dict().values()))


def test_replay_over_data_that_cannot_be_rewound_is_refused_before_the_first_step() -> None:
    run = Run()
    governor = run.governor(Policy(recovery="replay"))
    with pytest.raises(InputError, match="cannot be rewound, and `recovery` is 'replay'"):
        governor.feed(batch for batch in list(run.loader))


def test_two_steps_on_one_batch_are_both_judged() -> None:
    run = Run()
    governor = run.governor()
    verdicts = []
    for batch in governor.feed(list(run.loader)):
        for _ in range(2):
            loss = run.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            verdicts.append(governor.step(loss))
    assert {verdict.action for verdict in verdicts} == {Action.APPLY}
    assert governor.updates == len(verdicts)


def test_an_evaluation_through_the_feed_changes_nothing_about_the_governing() -> None:
    run = Run()
    governor = run.governor()
    batches = list(run.loader) * 3
    with torch.no_grad():
        for batch in governor.feed(batches):
            if not governor.probing:
                run.loss(batch)
    verdicts = list(governed(run, governor, batches, spoil=lambda n, b: nan(b) if n == 60 else b))
    assert ["data" in verdict.reasons for verdict in verdicts].count(True) == 1, "it is still asked"


def test_a_batch_that_poisons_a_buffer_is_left_out_though_its_loss_is_ordinary() -> None:
    run = Run()
    governor = run.governor()
    spoil: Spoil = lambda n, b: (b[0] * 1e20, b[1]) if n == 60 else b  # noqa: E731
    verdicts = []
    for verdict in governed(run, governor, epochs=3, spoil=spoil):
        verdicts.append(verdict)
        assert all(bool(torch.isfinite(buffer).all()) for buffer in run.model.buffers())
    refused = [verdict for verdict in verdicts if verdict.action is Action.SKIP and "asking" not in verdict.reasons]
    assert "nonfinite-buffers" in refused[0].reasons
    assert not any(verdict.action is Action.ROLLBACK for verdict in verdicts)


def test_parameters_that_join_later_are_watched_and_rolled_back_too() -> None:
    run = Run(adam=False)
    run.head.requires_grad_(requires_grad=False)
    run.optimizer = torch.optim.SGD([p for p in run.model.parameters() if p.requires_grad], lr=0.02)
    governor = Governor(run.model, run.optimizer)
    seen = governed(run, governor, epochs=4)
    for _ in range(10):
        next(seen)
    run.head.requires_grad_(requires_grad=True)
    run.optimizer.add_param_group({"params": list(run.head.parameters())})
    next(seen)
    kept = [parameter.detach().clone() for parameter in run.head.parameters()]
    next(seen)
    governor.rollback("a test")
    assert governor.updates == 10
    assert not same(kept, [parameter.detach() for parameter in run.head.parameters()])


def test_gradients_in_half_precision_have_a_norm_in_single_precision() -> None:
    model = nn.Linear(64, 64).half()
    governor = Governor(model, sgd(model))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 30000.0)
    assert governor.step(1.0).action is Action.APPLY


def test_what_the_governor_remembers_survives_the_process_as_plain_data() -> None:
    run = Run()
    governor = run.governor()
    list(governed(run, governor, epochs=2))
    governor.rollback("a test")
    state = json.loads(json.dumps(governor.state_dict()))
    other = Run().governor()
    other.load_state_dict(state)
    assert other.state_dict() == governor.state_dict()
    with pytest.raises(InputError, match="`version` of the state is 7"):
        other.load_state_dict({**state, "version": 7})
    for name in ("vitals", "ladder", "steps", "updates"):
        with pytest.raises(InputError, match=f"the state is damaged: '{name}' is missing"):
            other.load_state_dict({key: value for key, value in state.items() if key != name})
    assert other.state_dict() == governor.state_dict()


def test_a_snapshot_of_a_damaged_state_is_dropped_and_nothing_is_rolled_back_for_that_alone() -> None:
    run = Run()
    told: list[events.Event] = []
    governor = run.governor(Policy(snapshot_every=50), journal=Told(told))

    def harmed(*_: object) -> None:
        if governor.updates == 99:  # the update after which the second snapshot is taken
            for parameter in run.head.parameters():
                parameter.mul_(-20.0)

    run.optimizer.register_step_post_hook(torch.no_grad()(harmed))
    verdicts = list(governed(run, governor, epochs=4))
    dropped = next(number for number, verdict in enumerate(verdicts) if "distrusted" in verdict.reasons)
    assert verdicts[dropped].action is Action.SKIP
    assert [info.step for info in governor.snapshots if info.step == 100] == []
    assert [one.reason for one in told if isinstance(one, records.SnapshotDiscarded)] == [verdicts[dropped].note]
    rollbacks = [one for one in told if isinstance(one, records.RolledBack)]
    assert [one.taken_at for one in rollbacks] == [50], "what rolls back is the next ordinary batch, to a good state"


def test_a_question_about_a_snapshot_of_a_sound_state_costs_a_batch_or_two_and_no_verdict() -> None:
    run = Run()
    governor = run.governor(Policy(snapshot_every=40))
    verdicts = list(governed(run, governor, epochs=8))
    asked = [verdict for verdict in verdicts if verdict.action is Action.SKIP]
    assert 4 <= len(asked) <= 2 * (governor.updates // 40)
    assert {verdict.level for verdict in verdicts} <= {Level.OK, Level.WATCH}
    assert governor.snapshots[-1].step >= governor.updates - 45


@dataclass
class Told:
    """A journal in memory."""

    heard: list[events.Event]

    def write(self, event: events.Event, /) -> None:
        self.heard.append(event)


def test_a_lowered_rate_is_what_lr_backoff_makes_different_and_the_batches_come_again() -> None:
    """Section 1.7: a recovery makes something different, or the failure is replayed."""
    run = Run()
    governor = run.governor(Policy(recovery="lr_backoff"))
    seen = governed(run, governor, list(run.loader) * 4)
    for _ in range(30):
        next(seen)
    info, draws = governor.snapshot(), torch.get_rng_state()
    for _ in range(10):
        next(seen)
    report = governor.rollback("a test")
    assert (report.learning_rate_factor, report.snapshot_id) == (0.5, info.id)
    assert (report.data_stood_at, report.data_go_on_at) == ("epoch 0, batch 40", "epoch 0, batch 30")
    assert torch.equal(torch.get_rng_state(), draws)
    assert governor.rollback("a test").learning_rate_factor == 0.25


def test_other_draws_are_what_reseed_makes_different_each_time_and_the_batches_come_again() -> None:
    """Section 1.7: a recovery makes something different, or the failure is replayed."""
    run = Run()
    own = torch.Generator()
    governor = run.governor(Policy(recovery="reseed", max_rollbacks=8), extra={"own": own})
    seen = governed(run, governor, list(run.loader) * 4)
    for _ in range(30):
        next(seen)
    governor.snapshot()
    draws = {torch.get_rng_state().numpy().tobytes()}
    others, owns = {repr(random.getstate())}, {own.get_state().numpy().tobytes()}
    for number in range(2):
        report = governor.rollback("a test")
        assert report.data_go_on_at == "epoch 0, batch 30"
        draws.add(torch.get_rng_state().numpy().tobytes())
        others.add(repr(random.getstate()))
        owns.add(own.get_state().numpy().tobytes())
        assert len(draws) == len(others) == len(owns) == number + 2
        next(seen)


@pytest.mark.parametrize("recovery", ["lr_backoff", "reseed"])
def test_where_the_data_cannot_come_again_they_go_on_and_the_report_says_so(recovery: Any) -> None:
    run = Run()
    governor = run.governor(Policy(recovery=recovery))
    seen = governed(run, governor, iter(list(run.loader)))
    for _ in range(20):
        next(seen)
    report = governor.rollback("a test")
    assert report.data_stood_at == report.data_go_on_at == "epoch 0, batch 20"
    assert sum(1 for _ in seen) == 12, "no batch is lost but those that were seen"


def test_a_rollback_never_leads_to_a_branch_that_was_left() -> None:
    run = Run()
    governor = run.governor(Policy(max_rollbacks=8, snapshots=4))
    seen = governed(run, governor, list(run.loader) * 4)
    next(seen)
    states = {governor.snapshot().id: run.state()}
    for _ in range(4):
        for _ in range(5):
            next(seen)
        states[governor.snapshot().id] = run.state()
    left: set[int] = set()
    for _ in range(5):
        report = governor.rollback("a test")
        assert report.snapshot_id not in left
        assert all(gone > report.snapshot_id for gone in report.abandoned)
        left |= set(report.abandoned)
        assert report.snapshot_id not in states or same(run.state(), states[report.snapshot_id])
        assert governor.snapshots[-1].id == report.snapshot_id
    assert left


def test_a_snapshot_that_is_damaged_is_passed_over_for_an_older_one() -> None:
    """Section 1.7: a failure tries the next older snapshot."""
    run = Run()
    governor = run.governor()
    seen = governed(run, governor, list(run.loader) * 4)
    for _ in range(5):
        next(seen)
    older, kept = governor.snapshot(), run.state()
    next(seen)
    newer = governor.snapshot()
    ring = governor._keeper._ring
    ring._find(newer.id).arena.array[:] ^= 255
    report = governor.rollback("a test")
    assert report.snapshot_id == older.id
    assert report.abandoned == (newer.id,)
    assert f"snapshot {newer.id} is damaged" in report.passed_over[0]
    assert same(run.state(), kept)


def test_where_nothing_can_be_restored_the_run_is_as_it_was_and_all_that_was_tried_is_listed() -> None:
    run = Run()
    told: list[events.Event] = []
    governor = run.governor(journal=Told(told))
    seen = governed(run, governor, list(run.loader) * 4)
    for _ in range(5):
        next(seen)
    for info in (governor.snapshots[0], governor.snapshot()):
        governor._keeper._ring._find(info.id).arena.array[:] ^= 255
    before = run.state()
    with pytest.raises(RollbackFailed, match=r"snapshot 2 is damaged.*snapshot 1 is damaged.*as it was before"):
        governor.rollback("a test")
    assert same(run.state(), before)
    with torch.no_grad():
        next(run.model.parameters()).view(-1)[0] = math.nan
    with pytest.raises(RollbackFailed, match="A parameter is not finite: resume from a checkpoint"):
        governor.rollback("a test")
    assert [one.kind for one in told if one.kind.startswith("rollback")] == ["rollback.failed"] * 2


def test_a_run_that_was_thrown_back_to_before_the_first_kept_batch_does_not_spend_its_budget_on_bad_data() -> None:
    run = Run()
    governor = run.governor()
    batches = list(run.loader) * 4
    next(governed(run, governor, batches))
    governor.rollback("a test")
    verdicts = list(governed(run, governor, batches, spoil=lambda n, b: nan(b) if n < 60 else b))
    assert not any(verdict.action is Action.ROLLBACK for verdict in verdicts)
    assert sum("data" in verdict.reasons for verdict in verdicts) == 60
    assert verdicts[-1].action is Action.APPLY


def test_the_last_word_lists_what_was_tried_and_says_when_a_parameter_is_not_finite() -> None:
    run = Run()
    governor = run.governor(Policy(max_rollbacks=2))
    next(governed(run, governor))
    for _ in range(2):
        governor.rollback("this")
    with torch.no_grad():
        next(run.model.parameters()).view(-1)[0] = math.nan
    listed = r"step 1: this \(went back to update 0, rate x1\); step 1: this \(went .* rate x0.5\); step 1: that"
    with pytest.raises(GovernorExhausted, match=rf"{listed}.*A parameter is not finite"):
        governor.rollback("that")


def test_an_announced_shift_drops_what_was_kept_and_survives_a_rollback() -> None:
    run = Run()
    governor = run.governor()
    batches = list(run.loader) * 8
    seen = governed(run, governor, batches)
    for _ in range(60):
        next(seen)
    governor.snapshot()
    governor.expect_shift(20, "a new loss term")
    assert governor._feeding.shelves[0][1].ages == ()
    assert "a new loss term" in str(next(seen))
    governor.rollback("a test")
    assert governor._feeding.shelves[0][1].ages == (), "what the snapshot kept was measured by the old loss"
    assert "expected" in next(seen).reasons
    governor.rebaseline()
    assert governor._feeding.shelves[0][1].ages == ()
    assert governor.vitals.held() == 0


def test_what_is_served_again_leaves_no_trace_in_pythons_and_numpys_generators() -> None:
    """A loop that begins to draw from them late, as one with mixup after some epochs, repeats itself too."""

    def trained(policy: Policy) -> list[tuple[float, float]]:
        run = Run()
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 -- the global one is what a loop draws from
        governor, drawn = run.governor(policy), []
        for number, batch in enumerate(governor.feed(list(run.loader) * 6)):
            if number > 40:
                pair = (random.random(), float(np.random.random()))  # noqa: NPY002
                drawn += [] if governor.probing else [pair]
            loss = run.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            governor.step(loss)
        return drawn

    asked = trained(Policy(snapshot_every=30))
    assert asked[:100] == trained(Policy(diagnosis=False))[:100]


def test_a_journal_that_cannot_be_written_to_is_refused() -> None:
    model = torch.nn.Linear(2, 1)
    with pytest.raises(InputError, match=r"`journal` is 'events\.jsonl', which has no `write`"):
        Governor(model, torch.optim.SGD(model.parameters(), lr=0.1), journal="events.jsonl")  # type: ignore[arg-type]
