"""The gradients of a model as one number, and by name when that number is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flyball import _native
from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

_HALF = frozenset({torch.float16, torch.bfloat16})


class Norm:
    """The Euclidean norm of many tensors together.

    Dense single- and double-precision tensors in main memory are read once, in Rust, and give a number. For all others
    torch does it, and the norm may still lie on their device: `read` fetches it.
    """

    def __init__(self) -> None:
        self._native = _native.Norm(torch.Tensor)

    def of_gradients(self, parameters: list[nn.Parameter]) -> float | torch.Tensor | None:
        """Return the norm of the gradients; None where there are none."""
        found = self._native.of_gradients(parameters, torch.get_num_threads())
        if found is not None:
            count, norm = found
            return norm if count else None
        tensors = gradients(parameters)
        return total_norm(tensors) if tensors else None

    def of(self, tensors: list[torch.Tensor]) -> float | torch.Tensor | None:
        """Return the norm of some tensors; None where there are none."""
        if not tensors:
            return None
        found = self._native.of(tensors, torch.get_num_threads())
        return total_norm(tensors) if found is None else found


def number(loss: object) -> float | torch.Tensor:
    """Return a loss as a number; one that lies on a device stays there, to be fetched together with others.

    Raises:
        InputError: It is no number.
    """
    try:
        if type(loss) is torch.Tensor and loss.is_cpu:  # nearly always
            value = loss.item()
            return value if type(value) is float else float(value)
        if not isinstance(loss, torch.Tensor):
            return float(loss)  # type: ignore[arg-type] # or it raises
        loss = _whole(loss)
        return float(loss.item()) if loss.is_cpu or loss.is_complex() else loss.detach().reshape(())
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"`loss` is {loss!r}: pass a number, or a tensor that holds one") from error


def fetched(*values: float | torch.Tensor | None) -> list[float | None]:
    """Return numbers; those that lie on a device come in one transfer, so the device is waited for once."""
    found = [_whole(value) if isinstance(value, torch.Tensor) else value for value in values]
    far = [index for index, value in enumerate(found) if isinstance(value, torch.Tensor) and not value.is_cpu]
    if len(far) > 1:
        tensors = [value for value in found if isinstance(value, torch.Tensor) and not value.is_cpu]
        wide = torch.float64 if any(one.dtype == torch.float64 for one in tensors) else torch.float32
        together = torch.stack([one.to(tensors[0].device, wide) for one in tensors])
        for index, value in zip(far, together.tolist(), strict=True):
            found[index] = value
    return [float(value.item()) if isinstance(value, torch.Tensor) else value for value in found]


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


def clip(parameters: Iterable[nn.Parameter], norm: float, most: float) -> None:
    """Scale the gradients so that their norm, which is known, is at most `most`; smaller ones are not touched."""
    factor = most / (norm + 1e-6)  # as torch does
    if factor < 1.0:
        torch._foreach_mul_([one.grad for one in parameters if one.grad is not None], factor)


def _whole(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor; of one that is sharded, all of it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value
