"""Steps that are made of several batches: kept, asked about and left out as wholes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from flyball import Policy
from flyball.errors import InputError
from flyball.govern import Action, Level, Verdict
from flyball.govern.governor import Governor

Batch = tuple[torch.Tensor, torch.Tensor]


def batches(count: int, *, seed: int = 0) -> list[Batch]:
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(16) % 4
    centers = torch.randn(4, 8, generator=torch.Generator().manual_seed(7)) * 1.5
    return [(centers[labels] + torch.randn(16, 8, generator=chance), labels) for _ in range(count)]


class Run:
    """A small training in steps of `accumulate` batches."""

    def __init__(self, accumulate: int, policy: Policy | None = None) -> None:
        torch.manual_seed(0)
        self.accumulate = accumulate
        self.model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
        self.head = self.model[4]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3)
        self.governor = Governor(self.model, self.optimizer, policy=policy)
        self.served: list[int] = []

    def state(self) -> list[torch.Tensor]:
        tensors = list(self.model.state_dict().values())
        for one in self.optimizer.state_dict()["state"].values():
            tensors += [value for value in one.values() if isinstance(value, torch.Tensor)]
        return [tensor.clone() for tensor in tensors]

    def loss(self, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(self.model(batch[0]), batch[1]) / self.accumulate

    def train(
        self, data: Iterable[Batch], *, harm: Callable[[int], None] = lambda _: None
    ) -> Iterator[tuple[Verdict, int]]:
        """Yield each verdict and of how many batches its step was made."""
        total, count = 0.0, 0
        for batch in self.governor.feed(data, accumulate=self.accumulate):
            loss = self.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total, count = total + loss.item(), count + 1
            if self.governor.due:
                asked = self.governor.probing
                verdict = self.governor.step(total)
                self.served.append(count)
                total, count = 0.0, 0
                yield verdict, self.served[-1]
                if not asked:
                    harm(self.governor.updates)

    def plain(self, data: list[Batch]) -> None:
        for first in range(0, len(data), self.accumulate):
            for batch in data[first : first + self.accumulate]:
                self.loss(batch).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_a_healthy_run_in_steps_of_several_batches_is_the_plain_run_bit_for_bit() -> None:
    """Questions about snapshots are asked in between, and leave no trace."""
    plainly, watched = Run(3), Run(3, Policy(snapshot_every=20))
    data = batches(180)
    torch.manual_seed(5)
    plainly.plain(data)
    torch.manual_seed(5)
    verdicts = [verdict for verdict, _ in watched.train(data)]
    assert {verdict.level for verdict in verdicts} <= {Level.OK, Level.WATCH}
    assert any(verdict.action is Action.SKIP for verdict in verdicts), "a question was asked"
    assert watched.governor.updates == 60
    assert same(plainly.state(), watched.state())


def test_a_step_with_a_bad_batch_in_it_is_left_out_whole_and_leaves_no_trace() -> None:
    plainly, watched = Run(3), Run(3)
    data = batches(180)
    torch.manual_seed(5)
    plainly.plain(data)
    bad = (data[0][0] * math.nan, data[0][1])
    for place in range(3):
        watched = Run(3)
        group = [*data[:place], bad, *data[place + 1 : 3]]
        torch.manual_seed(5)
        verdicts = [verdict for verdict, _ in watched.train([*data[:120], *group, *data[120:]])]
        found = [verdict for verdict in verdicts if "data" in verdict.reasons]
        assert [verdict.step for verdict in found] == [40]
        assert "(epoch 0, batch 120)" in str(found[0]), "the first batch of the step"
        assert same(plainly.state(), watched.state())


def test_damage_between_two_steps_of_several_batches_is_diagnosed_by_whole_steps() -> None:
    run = Run(4, Policy(snapshot_every=30))

    harmed: list[int] = []

    def harm(updates: int) -> None:
        if updates == 70 and not harmed:
            harmed.append(updates)
            with torch.no_grad():
                for parameter in run.head.parameters():
                    parameter.mul_(-20.0)

    verdicts = list(run.train(batches(400), harm=harm))
    back = [verdict for verdict, _ in verdicts if verdict.action is Action.ROLLBACK]
    assert len(back) == 1
    assert "state" in back[0].reasons
    assert {count for _, count in verdicts} == {4}


@pytest.mark.parametrize("sized", [True, False])
def test_the_last_group_of_an_epoch_is_a_shorter_step_or_is_filled_up_from_the_next(*, sized: bool) -> None:
    class Unsized:
        def __iter__(self) -> Iterator[Batch]:
            return iter(data)

    data = batches(10)
    run = Run(4)
    source: Iterable[Batch] = data if sized else Unsized()
    counts = []
    total, count = 0.0, 0
    for _ in range(20):
        for batch in run.governor.feed(source, accumulate=4):
            loss = run.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total, count = total + loss.item(), count + 1
            if run.governor.due:
                run.governor.step(total)
                counts.append(count)
                total, count = 0.0, 0
    assert counts == ([4, 4, 2] * 20 if sized else [4] * 50)
    assert run.governor.updates == len(counts)


def test_what_is_served_again_is_a_step_of_its_own_whatever_the_loop_counts() -> None:
    """A loop that counts by itself and makes a step of a part of an answer learns nothing, and breaks nothing."""
    run = Run(4, Policy(snapshot_every=10))
    data = batches(200)
    asked, total, count = 0, 0.0, 0
    for number, batch in enumerate(run.governor.feed(data, accumulate=4)):
        probing = run.governor.probing
        before = run.state()
        loss = run.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        total, count = total + loss.item(), count + 1
        if number % 4 == 3 or (probing and count == 2):
            verdict = run.governor.step(total)
            total, count = 0.0, 0
            if probing:
                asked += 1
                assert verdict.action is Action.SKIP
                assert same([one for one in run.state() if one.is_floating_point()][:2], before[:2])
    assert asked
    assert all(bool(torch.isfinite(one).all()) for one in run.state() if one.is_floating_point())


def test_one_loader_has_one_size_of_step() -> None:
    run = Run(4)
    data = batches(8)
    run.governor.feed(data, accumulate=4)
    with pytest.raises(InputError, match="`accumulate` is 2, and this loader has a feed with 4"):
        run.governor.feed(data, accumulate=2)
    with pytest.raises(InputError, match="`accumulate` is 0"):
        run.governor.feed(batches(8), accumulate=0)


def test_steps_of_another_size_than_was_told_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(2)
    for number, batch in enumerate(run.governor.feed(batches(40))):
        run.loss(batch).backward()  # type: ignore[no-untyped-call]
        if number % 2:
            run.governor.step(1.0)
    said = [record.getMessage() for record in caplog.records if "steps are made of" in record.getMessage()]
    assert len(said) == 1
    assert "`feed(loader, accumulate=2)`" in said[0]
