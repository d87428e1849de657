"""Optimizers whose weight decay leaves alone what it only harms: biases, norms, embeddings, positions, tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from flyball.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
}
_FUSED = ("adam", "adamw", "sgd")
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = re.compile(r"\w*Norm(\dd)?")
_POSITIONS = re.compile(r"(.*_)?(pos|position|positional)(_?embed(ding)?s?|_enc(oding)?|_bias(_table)?)?|(.*_)?tokens?")


def parameter_groups(*modules: nn.Module, weight_decay: float, also: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups, with weight decay and without.

    Without are biases and everything else of at most one dimension, the parameters of norms and embeddings, what is
    called a position or a token, and what a module lists in a method `no_weight_decay`, as timm's do.

    Args:
        modules: The model, and what else has parameters, such as the objective; what is shared counts once.
        weight_decay: Of the first group.
        also: Names, as `named_parameters` gives them, of more that shall not decay.

    Raises:
        InputError: A name in `also` is not there, or nothing is trainable.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    wanted, found = set(also), set[str]()
    seen: set[int] = set()
    for root in modules:
        sparing = _spared_by(root)
        for name, parameter in root.named_parameters():
            found.add(name)
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            leaf = name.rpartition(".")[2]
            free = parameter.dim() <= 1 or id(parameter) in sparing or name in wanted or _POSITIONS.fullmatch(leaf)
            (spared if free else decayed).append(parameter)
    if missing := wanted - found:
        raise InputError(f"`also` names `{min(missing)}`, which is no parameter: use the names of `named_parameters`")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise InputError("no parameter requires a gradient, so there is nothing to optimize")
    return groups


def make_optimizer(
    kind: Literal["adam", "adamw", "sgd", "rmsprop"],
    *modules: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    fused: bool | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Return an optimizer over `parameter_groups`, in its fused form where that is fast.

    Args:
        kind: "adam", "adamw", "sgd" (with Nesterov's momentum of 0.9) or "rmsprop".
        modules: The model, and what else has parameters, such as the objective.
        lr: The learning rate.
        weight_decay: Of what decays.
        fused: Whether one kernel does it all; by default where every parameter is on a GPU and the kind has one.
            Asked for elsewhere, it is the plain form.
        options: What else the optimizer takes.

    Raises:
        ConfigError: The kind is not known.
    """
    if kind not in _KINDS:
        raise ConfigError(f"`kind` is {kind!r}: use {', '.join(map(repr, _KINDS))}")
    made, defaults = _KINDS[kind]
    groups = parameter_groups(*modules, weight_decay=weight_decay)
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
    if kind in _FUSED and on_gpu and fused is not False:
        options["fused"] = True
    return made(groups, lr=lr, **{**defaults, **options})  # type: ignore[call-arg] # each kind takes its own options


def _spared_by(root: nn.Module) -> set[int]:
    """Return the parameters of norms and embeddings, and those that modules list."""
    found: set[int] = set()
    for module in root.modules():
        if isinstance(module, _EMBEDDINGS) or _NORMS.fullmatch(type(module).__name__):
            found |= {id(parameter) for parameter in module.parameters(recurse=False)}
        listed = getattr(module, "no_weight_decay", None)
        if callable(listed):
            names = set(listed())
            found |= {id(parameter) for name, parameter in module.named_parameters() if name in names}
    return found
