"""Every kind of parameter and gradient is governed, or refused by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flyball import Policy
from flyball.errors import InputError
from flyball.govern import Action, Level, Verdict
from flyball.govern.governor import Governor

Make = Callable[[], tuple[nn.Module, list[torch.optim.Optimizer], Callable[[nn.Module, int], torch.Tensor]]]


def drawn(number: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def sparse() -> tuple[nn.Module, list[torch.optim.Optimizer], Any]:
    model = nn.Sequential(nn.Embedding(32, 8, sparse=True), nn.Flatten(), nn.Linear(32, 1))
    table, head = model[0], model[2]
    optimizers = [torch.optim.SparseAdam(list(table.parameters())), torch.optim.SGD(head.parameters(), lr=0.05)]

    def loss(model: nn.Module, number: int) -> torch.Tensor:
        rows = torch.randint(0, 32, (16, 4), generator=torch.Generator().manual_seed(number))
        value: torch.Tensor = (model(rows) - rows.float().mean(1, keepdim=True) / 16).square().mean()
        return value

    return model, optimizers, loss


class Tied(nn.Module):
    """One matrix in and out, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.table.weight

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.table(rows))
        return out


def tied() -> tuple[nn.Module, list[torch.optim.Optimizer], Any]:
    model = Tied()

    def loss(model: nn.Module, number: int) -> torch.Tensor:
        rows = torch.randint(0, 12, (32,), generator=torch.Generator().manual_seed(number))
        return nn.functional.cross_entropy(model(rows), (rows + 1) % 12)

    return model, [torch.optim.Adam(model.parameters(), lr=0.01)], loss


def of_complex_numbers() -> tuple[nn.Module, list[torch.optim.Optimizer], Any]:
    model = nn.Linear(6, 3, dtype=torch.complex64)

    def loss(model: nn.Module, number: int) -> torch.Tensor:
        inputs = torch.complex(drawn(number, 16, 6), drawn(number + 1000, 16, 6))
        value: torch.Tensor = (model(inputs) - inputs[:, :3]).abs().square().mean()
        return value

    return model, [torch.optim.Adam(model.parameters(), lr=0.02)], loss


def of_no_elements() -> tuple[nn.Module, list[torch.optim.Optimizer], Any]:
    model = nn.Linear(6, 1)
    model.register_parameter("empty", nn.Parameter(torch.empty(0, 6)))

    def loss(model: nn.Module, number: int) -> torch.Tensor:
        inputs = drawn(number, 16, 6)
        parts: Any = model
        value: torch.Tensor = (parts(inputs) - inputs[:, :1]).square().mean() + parts.empty.sum()
        return value

    return model, [torch.optim.SGD(model.parameters(), lr=0.05)], loss


def of_groups_and_frozen_parts() -> tuple[nn.Module, list[torch.optim.Optimizer], Any]:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 1))
    model[1].requires_grad_(requires_grad=False)
    groups: list[dict[str, Any]] = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.01}]
    unused = nn.Parameter(torch.ones(3))  # owned, and never given a gradient
    model.register_parameter("unused", unused)
    optimizers = [torch.optim.AdamW(groups, lr=0.001), torch.optim.SGD([*model[1].parameters(), unused], lr=0.5)]

    def loss(model: nn.Module, number: int) -> torch.Tensor:
        inputs = drawn(number, 16, 6)
        value: torch.Tensor = (model(inputs) - inputs[:, :1]).square().mean()
        return value

    return model, optimizers, loss


KINDS: dict[str, Make] = {
    "sparse gradients": sparse,
    "tied weights": tied,
    "complex parameters": of_complex_numbers,
    "parameters of no elements": of_no_elements,
    "groups, several optimizers, frozen and unused parameters": of_groups_and_frozen_parts,
}


def built(kind: str) -> Any:
    torch.manual_seed(0)
    return KINDS[kind]()


def tensors(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> list[torch.Tensor]:
    found = list(model.state_dict().values())
    for optimizer in optimizers:
        for one in optimizer.state_dict()["state"].values():
            found += [value for value in one.values() if isinstance(value, torch.Tensor)]
    return [copy.deepcopy(tensor) for tensor in found]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_run_is_the_plain_run_and_bad_steps_and_damage_are_undone(kind: str) -> None:
    plainly, of_plain, loss_of = built(kind)
    for number in range(80):
        loss_of(plainly, number).backward()
        for optimizer in of_plain:
            optimizer.step()
            optimizer.zero_grad()

    model, optimizers, _ = built(kind)
    governor = Governor(model, optimizers)
    for number in governor.feed(list(range(80))):
        loss = loss_of(model, number)
        loss.backward()
        governor.step(loss)
        if number == 60 and not governor.probing:
            before = tensors(model, optimizers)
            loss = loss_of(model, number) * math.nan
            loss.backward()
            verdict = governor.step(loss)
            assert verdict.action is Action.SKIP
            assert "the first gradient that is not finite is that of `" in str(verdict)
            assert same(before, tensors(model, optimizers))
    assert same(tensors(plainly, of_plain), tensors(model, optimizers))

    info, kept = governor.snapshot(), tensors(model, optimizers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert governor.rollback("damage").snapshot_id == info.id
    assert same(kept, tensors(model, optimizers))


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_is_that_of_torch(kind: str) -> None:
    plainly, of_plain, loss_of = built(kind)
    model, optimizers, _ = built(kind)
    governor = Governor(model, optimizers, max_norm=0.1)
    for number in range(10):
        loss_of(plainly, number).backward()
        torch.nn.utils.clip_grad_norm_(plainly.parameters(), 0.1)
        for optimizer in of_plain:
            optimizer.step()
            optimizer.zero_grad()
        loss = loss_of(model, number)
        loss.backward()
        governor.step(loss)
    for one, other in zip(tensors(plainly, of_plain), tensors(model, optimizers), strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_without_a_parameter_to_train_is_refused_by_name() -> None:
    model = nn.BatchNorm1d(3, affine=False)
    with pytest.raises(InputError, match="`optimizer` is an empty list: there is nothing to govern"):
        Governor(model, [])


def test_a_forgotten_backward_is_told_at_the_first_step() -> None:
    model = nn.Linear(2, 2)
    governor = Governor(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match=r"no parameter of `optimizer` has a gradient.*call `loss.backward\(\)`"):
        governor.step(model(torch.ones(1, 2)).sum())
    assert governor.updates == 0


def test_a_later_step_without_any_gradient_is_judged_by_its_loss_alone() -> None:
    model = nn.Linear(2, 2)
    governor = Governor(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model(torch.ones(1, 2)).sum().backward()
    governor.step(1.0)
    assert governor.step(1.0).action is Action.APPLY


@pytest.mark.parametrize("policy", [{"budget": 10.0}, Policy, 13.0])
def test_a_policy_that_is_none_is_refused_by_name(policy: object) -> None:
    model = nn.Linear(2, 2)
    wrong: Any = policy
    with pytest.raises(InputError, match=r"`policy` is .*: pass a `flyball.Policy`"):
        Governor(model, torch.optim.SGD(model.parameters(), lr=0.1), policy=wrong)


def test_an_action_is_its_text() -> None:
    assert [one == one.value for one in Action] == [True] * 4
    assert f"{Action.SKIP}" == "skip"


def two_groups(policy: Policy, *, rate: float, head_rate: float) -> list[Verdict]:
    """Train a body and a head at their own rates, and return the verdicts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    groups: list[dict[str, Any]] = [
        {"params": list(model[0].parameters())},
        {"params": list(model[1].parameters()), "lr": head_rate},
    ]
    governor = Governor(model, torch.optim.SGD(groups, lr=rate), policy=policy)
    verdicts = []
    for number in range(30):
        loss = model(torch.full((2, 4), 1.0 + number % 3)).square().mean()
        loss.backward()
        verdicts.append(governor.step(loss))
    return verdicts


def test_a_group_that_does_not_move_is_called_dead_once() -> None:
    verdicts = two_groups(Policy(update_ratio_every=1, dead_steps=8), rate=1e-4, head_rate=0.0)
    dead = [one for one in verdicts if "dead-group" in one.reasons]
    assert [(one.step, one.level) for one in dead] == [(8, Level.WATCH)]
    assert [(part.source, part.group) for part in dead[0].evidence] == [("dead-group", 1)]


def test_a_group_that_moves_too_far_is_named_at_the_next_step_and_measured_as_often_as_the_policy_says() -> None:
    verdicts = two_groups(Policy(update_ratio_every=3, update_ratio_watch=1e-9), rate=1e-4, head_rate=0.0)
    seen = [one.step for one in verdicts if "update-ratio" in one.reasons]
    assert seen == list(range(3, 30, 3))
    assert {part.group for one in verdicts for part in one.evidence} == {0}


def test_updates_are_not_measured_unless_the_policy_asks() -> None:
    assert not any(one.reasons for one in two_groups(Policy(update_ratio_watch=1e-9), rate=1e-4, head_rate=0.0))


def test_a_relative_update_is_that_of_the_weights() -> None:
    """By hand: a step of SGD moves a weight by its rate times the gradient."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    governor = Governor(
        model,
        torch.optim.SGD(model.parameters(), lr=0.25),
        policy=Policy(update_ratio_every=1, update_ratio_watch=0.1),
    )
    model(torch.ones(1, 1)).sum().backward()
    governor.step(1.0)
    model(torch.ones(1, 1)).sum().backward()
    assert [part.value for part in governor.step(1.0).evidence] == [0.125]


def test_the_first_bad_gradient_is_named_in_the_order_of_the_graph_and_not_of_registration() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 1), nn.Linear(4, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.first(inputs).sqrt())  # the square root of a negative number is NaN
            return out

    model = Backwards()
    governor = Governor(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.bias.copy_(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    loss = model(torch.ones(2, 4)).sum()  # finite, but the derivative of the root at zero is not
    loss.backward()
    verdict = governor.step(loss)
    assert math.isfinite(loss.item())
    assert "is that of `first." in str(verdict)
    loss = (model(torch.ones(2, 4)) * math.nan).sum()
    loss.backward()
    assert "is that of `last." in str(governor.step(loss))
