"""Where the data of a run stand."""

from __future__ import annotations

from typing import NamedTuple, Self

from flyball.errors import FlyballError, InputError


class SeekError(FlyballError, LookupError):
    """The data cannot be brought to a position: their source cannot be rewound, or its order cannot be repeated."""


class _Place(NamedTuple):
    epoch: int
    batch: int


class Position(_Place):
    """The place of the batch that comes next: so many whole epochs, then so many batches, were handed out before it.

    Positions are ordered by time, so ``position > other`` means later in the data. A named tuple, because
    one is made every step.

    Args:
        epoch: The epoch, from 0.
        batch: The batch within its epoch, from 0.

    Raises:
        InputError: One of them is negative.
    """

    __slots__ = ()

    def __new__(cls, epoch: int, batch: int) -> Self:
        """Make a place that may be."""
        if epoch < 0 or batch < 0:
            raise InputError(f"`Position({epoch}, {batch})` is before the first batch: both count from 0")
        return super().__new__(cls, epoch, batch)

    @property
    def next(self) -> Position:
        """The place one batch on."""
        return tuple.__new__(Position, (self[0], self[1] + 1))

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}"
