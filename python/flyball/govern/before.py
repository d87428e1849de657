"""What a forward changes besides gradients, as it was before: what leaving a batch out puts back."""

from __future__ import annotations

import operator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from flyball.govern.chance import Chance
from flyball.govern.gradients import Norm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VALUES = operator.methodcaller("values")


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer as it was before the forward."""

    module: torch.nn.Module
    name: str
    tensor: torch.Tensor
    copy: torch.Tensor
    checked: bool

    @classmethod
    def of(cls, module: torch.nn.Module, name: str, tensor: torch.Tensor) -> Buffer:
        """Copy a buffer; one that holds infinities by design, as a mask does, is not looked at later."""
        floats = tensor.is_floating_point() and tensor.dtype.itemsize > 1
        checked = floats and not bool(torch.isinf(tensor).any())
        return cls(module, name, tensor, tensor.detach().clone(), checked)

    def live(self) -> torch.Tensor:
        """Return what is bound to its name now."""
        found = self.module._buffers[self.name]  # noqa: SLF001 -- as above
        return self.tensor if found is None else found.detach()

    def put_back(self) -> None:
        """Give it its value back, and its place if another tensor was bound to its name."""
        self.tensor.copy_(self.copy)
        self.module._buffers[self.name] = self.tensor  # noqa: SLF001 -- `register_buffer` refuses a name that is taken


class BeforeForward:
    """The buffers of some modules and the random state, as they were before a forward.

    Args:
        modules: Whose buffers.

    Attributes:
        chance: The random state; None where it was not asked for.
    """

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self.chance: Chance | None = None
        self._modules = modules
        self._dicts: list[dict[str, Any]] = []
        self._known: list[Any] = [None]
        self._buffers: list[Buffer] = []
        self._live: list[torch.Tensor] = []
        self._checked: list[tuple[dict[str, torch.Tensor | None], str, torch.Tensor]] = []
        self._copies: list[torch.Tensor] = []
        self._norm = Norm()

    def remember(self, *, chance: bool, everything: bool) -> None:
        """Take everything as it is now.

        Args:
            chance: Whether the random state is to be put back too.
            everything: Whether that of Python and NumPy is part of it.
        """
        self.chance = Chance.now(everything=everything) if chance else None
        now = list(chain.from_iterable(map(_VALUES, self._dicts)))
        if len(now) != len(self._known) or not all(map(operator.is_, now, self._known)):
            self._look()
        elif self._live:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, self._live)

    def _look(self) -> None:
        """Find every buffer, and note what shows that there are others: this is done again only then."""
        modules = list(dict.fromkeys(one for root in self._modules for one in root.modules()))
        # A module's children and buffers lie in two dicts, which change when one is added, taken away or bound anew.
        self._dicts = [each for one in modules for each in (one._modules, one._buffers)]  # noqa: SLF001 -- as above
        self._known = list(chain.from_iterable(map(_VALUES, self._dicts)))
        with torch.no_grad():
            self._buffers = [
                Buffer.of(one, name, tensor)
                for one in modules
                for name, tensor in one._buffers.items()  # noqa: SLF001 -- as above
                if tensor is not None
            ]
        self._live = [buffer.tensor for buffer in self._buffers]
        self._copies = [buffer.copy for buffer in self._buffers]
        self._checked = [
            (buffer.module._buffers, buffer.name, buffer.tensor)  # noqa: SLF001 -- as above
            for buffer in self._buffers
            if buffer.checked
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make it as if there had been no forward."""
        for buffer in self._buffers:
            buffer.put_back()
        if self.chance is not None:
            self.chance.put_back()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the buffers as they were before, for a while."""
        with torch.no_grad():
            now = [buffer.live().clone() for buffer in self._buffers]
            for buffer in self._buffers:
                buffer.live().copy_(buffer.copy)
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self._buffers, now, strict=True):
                    buffer.live().copy_(value)

    def norm(self) -> torch.Tensor | float | None:
        """Return a number that is finite if the buffers are; it may still lie on their device. None without any."""
        if not self._checked:
            return None
        return self._norm.of([then if (now := home[name]) is None else now for home, name, then in self._checked])

    def broken(self) -> list[Buffer]:
        """Return the buffers that hold a value that is not finite now."""
        return [buffer for buffer in self._buffers if buffer.checked and not bool(torch.isfinite(buffer.live()).all())]
