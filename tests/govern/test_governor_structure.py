"""Property 26: the structure of a run changes between a snapshot and a rollback, as a growing model's does.

The slots are the test's own: a seed in a slot is a submodule with parameters, and a parameter group of the optimizer.
What must hold is that a rollback leads to a whole state or changes nothing, and names what differs: never a slot whose
module is gone, a module whose weights are of another time, or an optimizer that trains what is in neither.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flyball import Policy
from flyball.errors import RollbackFailed
from flyball.govern import Action
from flyball.govern.governor import Governor

SLOTS = ("first", "second")
CHANGES = ("germinate", "blend", "fossilise", "prune")


class Grown(nn.Module):
    """A host whose slots may hold a seed each, blended in by a factor."""

    alpha: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 1)
        self.seeds = nn.ModuleDict()
        self.register_buffer("alpha", torch.zeros(len(SLOTS)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.body(inputs)
        for name, seed in self.seeds.items():
            hidden = hidden + self.alpha[SLOTS.index(name)] * seed(hidden)
        out: torch.Tensor = self.head(hidden.tanh())
        return out


class Garden:
    """The run, and what a person does to its slots."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Grown()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.governor = Governor(self.model, self.optimizer, policy=Policy(snapshot_every=1000, max_rollbacks=20))
        self.steps = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.steps += 1
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.steps))
            (self.model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
            assert self.governor.step(1.0).action is Action.APPLY

    def change(self, what: str, slot: str) -> bool:
        """Do it if the slot allows it; return whether the structure is another one now."""
        seeds = self.model.seeds
        if what == "germinate" and slot not in seeds:
            seeds[slot] = nn.Linear(6, 6)
            self.optimizer.add_param_group({"params": list(seeds[slot].parameters()), "lr": 0.02})
            return True
        if slot in seeds and what == "prune":
            gone = set(map(id, seeds[slot].parameters()))
            groups = self.optimizer.param_groups
            groups[:] = [group for group in groups if gone.isdisjoint(map(id, group["params"]))]
            for parameter in seeds[slot].parameters():
                self.optimizer.state.pop(parameter, None)
            del seeds[slot]
            return True
        if slot in seeds and what == "blend":
            self.model.alpha[SLOTS.index(slot)] = 0.5
        elif slot in seeds and what == "fossilise":
            seeds[slot].requires_grad_(requires_grad=False)
        return False

    def state(self) -> dict[str, Any]:
        """Everything by name: tensors as bytes, flags, groups, moments."""
        names = {id(one): name for name, one in self.model.named_parameters()}
        owned = [[names[id(one)] for one in group["params"]] for group in self.optimizer.param_groups]
        found: dict[str, Any] = {"groups": owned, "rates": [group["lr"] for group in self.optimizer.param_groups]}
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            found[name] = (tensor.detach().numpy().tobytes(), tensor.requires_grad)
        for parameter, moments in self.optimizer.state.items():
            found[f"moment of {names[id(parameter)]}"] = moments["momentum_buffer"].numpy().tobytes()
        return found


@settings(max_examples=30)
@given(
    before=st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(SLOTS)), max_size=3),
    after=st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(SLOTS)), min_size=1, max_size=4),
)
def test_property_26_slots_that_change_between_a_snapshot_and_a_rollback_leave_no_zombie(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    garden = Garden()
    for change in before:
        garden.change(*change)
    garden.train(2)
    garden.governor.snapshot()
    captured = garden.state()
    for change in after:
        garden.change(*change)
    now = garden.state()
    refused = ""
    try:
        garden.governor.rollback()
    except RollbackFailed as error:
        refused = str(error)
    assert garden.state() == (now if refused else captured), refused or "a mix of two states"
    assert not refused or ("the run is as it was before" in refused and "structure" in refused)
    for slot in SLOTS:  # and growth goes on
        garden.change("germinate", slot)
    garden.train(2)
    whole = garden.state()
    assert {name for group in whole["groups"] for name in group} == {n for n, _ in garden.model.named_parameters()}
    garden.train(3)
    garden.governor.rollback()
    assert set(garden.state()["groups"][-1]) <= set(whole), "the slots of the new structure"
    garden.train(1)


@pytest.mark.parametrize(("change", "named"), [("germinate", "seeds.first.weight"), ("prune", "seeds.second.weight")])
def test_property_26_a_rollback_over_a_change_of_structure_names_what_differs(change: str, named: str) -> None:
    garden = Garden()
    garden.change("germinate", "second")
    garden.train(2)
    garden.governor.snapshot()
    assert garden.change(change, named.split(".")[1])
    before = garden.state()
    with pytest.raises(RollbackFailed, match=named.replace(".", r"\.")):
        garden.governor.rollback()
    assert garden.state() == before


def test_property_26_the_first_step_after_a_change_makes_a_way_back_of_the_new_structure() -> None:
    garden = Garden()
    garden.train(2)
    garden.change("germinate", "first")
    garden.train(1)
    assert garden.governor.rollback().updates_lost == 1
    assert "seeds.first.weight" in garden.state()
    garden.change("prune", "first")
    garden.train(1)
    assert garden.governor.rollback().updates_lost == 1
    assert "seeds.first.weight" not in garden.state()
