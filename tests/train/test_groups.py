"""Weight decay leaves alone what it only harms, and a fused optimizer is used where there is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from flyball.errors import ConfigError, InputError
from flyball.objective import Task, Uncertainty
from flyball.train.groups import make_optimizer, parameter_groups


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(2, 2))
        self.kept = nn.Parameter(torch.ones(2, 2))

    def no_weight_decay(self) -> set[str]:
        return {"table"}


class LlamaRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2, 2))


class Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.ones(1, 5, 4))
        self.patch = nn.Conv2d(1, 4, 2)
        self.words = nn.Embedding(6, 4)
        self.norms = nn.ModuleList([nn.LayerNorm([2, 4]), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), LlamaRMSNorm()])
        self.custom = Custom()
        self.head = nn.Linear(4, 6)
        self.frozen = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.tied = nn.Linear(4, 6, bias=False)
        self.tied.weight = self.words.weight


def split(*modules: nn.Module, **more: Any) -> dict[str, float]:
    names = {id(p): name for module in modules for name, p in module.named_parameters()}
    groups = parameter_groups(*modules, weight_decay=0.1, **more)
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


def test_biases_norms_embeddings_positions_and_tokens_do_not_decay() -> None:
    """Property C40."""
    found = split(Vision())
    assert {name for name, decay in found.items() if decay} == {"patch.weight", "custom.kept", "head.weight"}
    assert not any(name.startswith("frozen") for name in found)
    assert {"words.weight", "custom.table", "norms.0.weight", "norms.3.gain", "pos_embed", "cls_token"} <= found.keys()


def test_every_trainable_parameter_is_in_one_group_and_in_one_only() -> None:
    model, objective = Vision(), Uncertainty() * Task()
    groups = parameter_groups(model, objective, model.head, weight_decay=0.1)
    owned = [id(p) for group in groups for p in group["params"]]
    trainable = {id(p) for module in (model, objective) for p in module.parameters() if p.requires_grad}
    assert len(owned) == len(set(owned))
    assert set(owned) == trainable


def test_more_names_can_be_spared_and_a_wrong_one_is_named() -> None:
    assert split(Vision(), also=["head.weight"])["head.weight"] == 0.0
    with pytest.raises(InputError, match=r"`also` names `head\.wieght`"):
        split(Vision(), also=["head.wieght"])
    with pytest.raises(InputError, match="nothing to optimize"):
        split(nn.ReLU())


@pytest.mark.parametrize(("kind", "lr"), [("adam", 0.1), ("adamw", 0.1), ("sgd", 0.1), ("rmsprop", 0.1)])
def test_each_kind_is_made_and_fused_asked_for_on_a_cpu_is_the_plain_form(kind: Any, lr: float) -> None:
    """Property C42."""
    optimizer = make_optimizer(kind, nn.Linear(2, 2), lr=lr, weight_decay=0.01, fused=True)
    assert not optimizer.defaults.get("fused")
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]


def test_adamw_decays_apart_from_the_gradient_and_only_what_decays() -> None:
    """Property C40: with a gradient of zero a weight shrinks by lr times the decay, and a bias stays."""
    model = nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer("adamw", model, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), before[1])


def test_sgd_makes_nesterovs_update() -> None:
    """Property C41: v = 0.9 v + g, and the step is g + 0.9 v."""
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    holder = nn.Module()
    holder.register_parameter("weight", parameter)
    optimizer = make_optimizer("sgd", holder, lr=0.1)
    weight, velocity = 1.0, 0.0
    for _ in range(5):
        parameter.grad = 2.0 * parameter.detach()
        gradient = 2.0 * weight
        velocity = 0.9 * velocity + gradient
        weight -= 0.1 * (gradient + 0.9 * velocity)
        optimizer.step()
        assert parameter.item() == pytest.approx(weight, rel=1e-12)


def test_a_kind_that_is_not_known_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match="`kind` is 'lion': use 'adam', 'adamw', 'sgd', 'rmsprop'"):
        make_optimizer("lion", nn.Linear(2, 2), lr=0.1)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_the_fused_form_is_taken() -> None:
    assert make_optimizer("adamw", nn.Linear(2, 2).cuda(), lr=0.1).defaults["fused"]
