"""The gradients of a model as one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

_HALF = frozenset({torch.float16, torch.bfloat16})


def gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """Return the gradients there are; of a sparse one, its values."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [one.coalesce().values() if one.is_sparse else one for one in found]


def total_norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the Euclidean norm of all tensors together, in single precision at least."""
    norm: torch.Tensor
    if any(one.dtype in _HALF for one in tensors):
        norms = [torch.linalg.vector_norm(one, dtype=torch.float32 if one.dtype in _HALF else None) for one in tensors]
        device = norms[0].device
        norm = torch.linalg.vector_norm(torch.stack([one.float().to(device) for one in norms]))
        return norm
    if len({(one.device, one.dtype) for one in tensors}) == 1:  # the usual case, without torch's grouping
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))  # noqa: SLF001 -- as torch does
        return norm
    return torch.nn.utils.get_total_norm(tensors)
