"""What a run was told, as plain data: written into its folder, and compared where it is resumed."""

from __future__ import annotations

import math
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch

from flyball.config import Config, to_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLAIN = (bool, int, float, str)


def described(
    objective: object,
    optimizers: Sequence[torch.optim.Optimizer],
    schedulers: Sequence[object],
    *,
    policy: Config | None,
    config: Config | Mapping[str, Any] | None,
    **settings: Any,
) -> dict[str, Any]:
    """Return what decides the numbers of a run, beside its data."""
    found: dict[str, Any] = {name: plain(value) for name, value in settings.items()}
    found["objective"] = plain(objective)
    found["optimizer"] = _joined([{"type": type(one).__name__, **_defaults(one)} for one in optimizers])
    found["scheduler"] = [plain(one) for one in schedulers]
    found["policy"] = None if policy is None else to_mapping(policy)
    if config is not None:
        found["config"] = _plain_mapping(to_mapping(config) if isinstance(config, Config) else config)
    found["world_size"] = torch.distributed.get_world_size() if _is_distributed() else 1
    return found


def plain(value: object) -> Any:
    """Return a setting as plain data: itself, or a text that is the same in another process."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, FunctionType | MethodType | type):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    # The address of an object says nothing about it.
    return type(value).__qualname__ if " at 0x" in text or isinstance(value, torch.nn.Module) else text


def _plain_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _plain_mapping(one) if hasattr(one, "items") else plain(one) for key, one in mapping.items()}


def _defaults(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        name: plain(value)
        for name, value in optimizer.defaults.items()
        if isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(one, _PLAIN) for one in value))
    }


def _joined(several: list[dict[str, Any]]) -> dict[str, Any]:
    return several[0] if len(several) == 1 else {str(number): one for number, one in enumerate(several)}


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
