"""Scores on their way to the host, behind the computation, so that nobody waits for a device batch by batch."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_AHEAD = 2


class Behind:
    """Hand tensors over on the host, in their order; those of a GPU arrive while it computes the next batches.

    Args:
        take: Is given the tensors of one `push`.
    """

    def __init__(self, take: Callable[..., None]) -> None:
        self._take = take
        self._coming: deque[tuple[torch.cuda.Event, Sequence[torch.Tensor | None]]] = deque()

    def push(self, *tensors: torch.Tensor | None) -> None:
        """Send tensors off; None stays None."""
        if not any(tensor is not None and tensor.is_cuda for tensor in tensors):
            self._take(*(tensor if tensor is None or tensor.is_cpu else tensor.cpu() for tensor in tensors))
            return
        sent = [tensor if tensor is None or tensor.is_cpu else _sent(tensor) for tensor in tensors]
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._coming.append((arrived, sent))
        if len(self._coming) > _AHEAD:
            self._arrive()

    def finish(self) -> None:
        """Hand over what is still on its way."""
        while self._coming:
            self._arrive()

    def _arrive(self) -> None:
        arrived, tensors = self._coming.popleft()
        arrived.synchronize()
        self._take(*tensors)


def _sent(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to pinned memory, which the copy may reach later than this line."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
