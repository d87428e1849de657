"""What a governor cannot govern, refused by name before the first step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def checked_norm(max_norm: float | None) -> float | None:
    """Return the norm to clip to.

    Raises:
        InputError: It is not a number above zero.
    """
    if max_norm is None:
        return None
    if not isinstance(max_norm, int | float) or not 0.0 < max_norm < math.inf:  # type: ignore[redundant-expr]
        raise InputError(f"`max_norm` is {max_norm!r}: pass a number above 0, or None not to clip")
    return float(max_norm)


def admit(
    modules: Sequence[torch.nn.Module], optimizers: Sequence[torch.optim.Optimizer], schedulers: Sequence[Any]
) -> None:
    """Let through what can be governed.

    Raises:
        InputError: Something cannot; the message names it, and says what to do.
    """
    if not optimizers:
        raise InputError("`optimizer` is an empty list: there is nothing to govern")
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InputError(
                "`optimizer` is an LBFGS, which evaluates the loss inside its step: what it will do cannot be judged "
                "before it is done; use an optimizer that takes one gradient a step"
            )
    for scheduler in schedulers:
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise InputError(
                "`scheduler` is a ReduceLROnPlateau, which needs a metric that only your loop has: step it yourself, "
                "and pass it as `extra` so that a rollback takes it back too"
            )
    owned = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    if len(set(map(id, owned))) != len(owned):
        raise InputError("two of the optimizers own the same parameter, which would be updated twice: give it to one")
    held = {id(parameter) for module in modules for parameter in module.parameters()}
    strange = sum(id(parameter) not in held for parameter in owned)
    if strange:
        raise InputError(
            f"`optimizer` owns {strange} parameters that are in neither `model` nor `extra`, and a rollback would "
            "leave them as they are: pass the module that has them in `extra`"
        )
