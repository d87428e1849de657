"""A batch held for later, and whether anybody has changed it since."""

from __future__ import annotations

from enum import Enum
from pathlib import PurePath
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from flyball.errors import InputError
from flyball.nested import is_container, rebuilt

B = TypeVar("B")

# What nobody can change in place.
_FIXED = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type, Enum, PurePath),
    *(np.generic, np.dtype, torch.Size, torch.dtype, torch.device),
)

_TENSOR = frozenset({torch.Tensor})


class Held(Generic[B]):
    """A batch held for later: its tensors by reference, its containers anew.

    The containers are copied because a loop may take them apart, as ``labels = batch.pop("labels")`` does.

    Args:
        batch: The batch as it was handed out, before anybody changed it.
        shared: Whether its tensors may lie in memory shared with another process, and are then copied.

    Raises:
        InputError: It holds something in which a change would not be seen; the message names it.
    """

    __slots__ = ("_batch", "_shared", "_tensors")

    def __init__(self, batch: B, *, shared: bool = True) -> None:
        self._shared = shared
        value: Any = batch
        if not shared and type(value) is tuple and _TENSOR.issuperset(map(type, value)):
            # Nearly every batch is a few tensors in a row, and one is held every step. A tuple is held as it is.
            self._batch = value
            self._tensors = [(tensor, tensor._version) for tensor in value if not tensor.is_inference()]  # noqa: SLF001 -- torch's only word on it
            if len(self._tensors) == len(value):
                return
        self._tensors = []
        self._batch = self._copied(value, watch=True)

    @property
    def whole(self) -> bool:
        """Whether no tensor was changed in place since."""
        for tensor, version in self._tensors:  # noqa: SIM110 -- a generator takes twice as long
            if tensor._version != version:  # noqa: SLF001 -- torch's only word on it
                return False
        return True

    def fresh(self) -> B:
        """Return the batch again, in containers of its own."""
        batch: B = self._copied(self._batch, watch=False)
        return batch

    def _copied(self, value: Any, *, watch: bool) -> Any:
        if isinstance(value, torch.Tensor):
            return self._watched(value) if watch else value
        if isinstance(value, _FIXED):
            return value
        if not is_container(value):
            raise InputError(f"a change inside a `{type(value).__name__}` would not be seen")
        return rebuilt(value, lambda part: self._copied(part, watch=watch))

    def _watched(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._shared and tensor.is_cpu and tensor.layout is torch.strided and tensor.untyped_storage().is_shared():
            return tensor.clone()  # a worker's memory is a file that stays open as long as it is held
        if tensor.is_inference():
            raise InputError("an inference tensor does not count its changes")
        self._tensors.append((tensor, tensor._version))  # noqa: SLF001 -- as above
        return tensor
