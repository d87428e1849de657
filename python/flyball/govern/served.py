"""A feed that says so before each batch, so that the governor knows what leaving it out must put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from flyball.govern.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyball.govern.feed import Kept

B = TypeVar("B")


class Served(Feed[B]):
    """A feed that tells its governor of every batch before it is handed out."""

    def govern(self, coming: Callable[[Served[B]], None], serving: Callable[[Kept[B] | None], None]) -> None:
        """Name what is called before a batch is read, and after it, with the kept step that it is or None."""
        self._coming_next = coming
        self._serving = serving

    def _next(self, target: int) -> B:
        self._coming_next(self)
        batch = super()._next(target)
        self._serving(self.probe)
        return batch
