"""Where the data of a run stand."""

from __future__ import annotations

from dataclasses import dataclass

from flyball.errors import FlyballError, InputError


class SeekError(FlyballError, LookupError):
    """The data cannot be brought to a position: their source cannot be rewound, or its order cannot be repeated."""


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """The place of the batch that comes next: so many whole epochs, then so many batches, were handed out before it.

    Positions are ordered by time, so ``position > other`` means later in the data.

    Args:
        epoch: The epoch, from 0.
        batch: The batch within its epoch, from 0.

    Raises:
        InputError: One of them is negative.
    """

    epoch: int
    batch: int

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.batch < 0:
            raise InputError(f"`Position({self.epoch}, {self.batch})` is before the first batch: both count from 0")

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}"
