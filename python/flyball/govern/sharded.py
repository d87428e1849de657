"""The update of a model of which every rank holds a part, as `fully_shard` makes it; nothing is ever put together.

A rank measures its own shards and adds their squares to what the ranks exchange once a step anyway, so the norm of the
whole gradient takes no message of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from flyball.errors import InputError
from flyball.govern.agreement import is_sharded, own_part
from flyball.govern.update import Update

if TYPE_CHECKING:
    from collections.abc import Sequence


class ShardedUpdate(Update):
    """Optimizers and what moves with them, where gradients are shards.

    Raises:
        InputError: There is a gradient scaler, whose overflow every rank would see in its own shards alone.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        *,
        scaler: torch.amp.GradScaler | None,
        average: Any,
        max_norm: float | None,
    ) -> None:
        if scaler is not None and scaler.is_enabled():
            raise InputError(
                "`scaler` is a gradient scaler and the model is sharded, so each rank would find overflows in its own "
                "shards alone: train in bfloat16, which needs none"
            )
        super().__init__(model, optimizers, schedulers, scaler=scaler, average=average, max_norm=max_norm)

    def norm(self, owned: list[torch.nn.Parameter] | None = None) -> float | torch.Tensor | None:
        """Return the norm of what every rank has in full; of the shards, `shards` is the squared norm."""
        whole, parts, squares = [], [], []
        for parameter in self.parameters if owned is None else owned:
            grad = parameter.grad
            if grad is None:
                continue
            if not is_sharded(grad):
                whole.append(grad)
                continue
            copies = _copies(grad)
            part = own_part(grad)
            parts.append(part)
            if part.numel():
                squares.append(torch.linalg.vector_norm(part, dtype=torch.float64).square() / copies)
        self.shards = float(torch.stack(squares).sum()) if squares else 0.0
        if not whole:
            return 0.0 if parts else None
        return self._norm.of(whole)

    def finite(self) -> bool:
        """Say whether every parameter is finite, as far as this rank holds it."""
        return all(bool(torch.isfinite(own_part(parameter)).all()) for parameter in self.parameters)

    @torch.no_grad()
    def _clip(self, norm: float | torch.Tensor, most: float) -> None:
        factor = most / (float(norm) + 1e-6)
        if factor < 1.0:
            torch._foreach_mul_([own_part(one.grad) for one in self.parameters if one.grad is not None], factor)


def _copies(tensor: Any) -> int:
    """Return how many ranks hold the same shard as this one.

    Raises:
        InputError: The gradient is a sum of which every rank has a summand, so its norm is not that of the parts.
    """
    copies = 1
    for size, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
        if placement.is_partial():
            raise InputError("a gradient is a partial sum over the ranks: reduce it before `step`, as a backward does")
        if placement.is_replicate():
            copies *= size
    return copies
