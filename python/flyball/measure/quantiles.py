"""Quantiles of magnitudes from counts, which merge exactly: each is right to 0.4 % of itself."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.estimate import Estimate, score_interval
from flyball.measure.inputs import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Of a double's fraction seven bits are kept: a cell is at most 1/128 of its value wide.
_DROPPED = 45
_MOST_CELLS = 0x7FF0_0000_0000_0000 >> _DROPPED  # infinity, which is no magnitude


class Quantiles:
    """Counts of finite magnitudes in cells of equal ratio, 128 for each doubling; there are never more than 262,000."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, magnitudes: NDArray[np.float64]) -> None:
        """Count finite numbers that are not negative."""
        cells, counts = np.unique(magnitudes.view(np.int64) >> _DROPPED, return_counts=True)
        self._counts.update(dict(zip(cells.tolist(), counts.tolist(), strict=True)))

    def merge(self, other: Quantiles) -> None:
        """Add everything that another one has counted."""
        self._counts.update(dict(other._counts))

    def state(self) -> list[int]:
        """Return cell and count in turn, by rising cell."""
        return [one for pair in sorted(self._counts.items()) for one in pair]

    @classmethod
    def from_state(cls, state: Sequence[int], samples: int) -> Quantiles:
        """Return the counts that `state` returned, of so many samples.

        Raises:
            InputError: They are not of so many, or no counts at all.
        """
        if not isinstance(state, list | tuple) or len(state) % 2:
            raise InputError("`cells` of the state is no list of pairs: pass what `state_dict` returned")
        cells = [number(cell, "cells") for cell in state[::2]]
        counts = [number(count, "cells") for count in state[1::2]]
        rising = all(one < other for one, other in pairwise(cells))
        if not rising or (cells and cells[-1] >= _MOST_CELLS) or 0 in counts or sum(counts) != samples:
            raise InputError(f"`cells` of the state does not count {samples} magnitudes: it is damaged")
        loaded = cls()
        loaded._counts.update(dict(zip(cells, counts, strict=True)))
        return loaded

    def estimates(self, shares: Sequence[float], confidence: float) -> dict[float, Estimate]:
        """Return for each share the least magnitude that so many are not above, with its interval.

        The ends are the magnitudes at the ranks that Wilson's interval of the share reaches, whatever the
        distribution; 0, or infinite, where it reaches beyond what was seen. They include the width of a cell.
        """
        cells = np.array(sorted(self._counts), dtype=np.int64)
        upto = np.cumsum([self._counts[int(cell)] for cell in cells])
        total = int(upto[-1])
        low = (cells << _DROPPED).view(np.float64)
        high = np.nextafter(((cells + 1) << _DROPPED).view(np.float64), 0.0)

        def place(rank: int) -> int:
            return int(np.searchsorted(upto, rank))

        found = {}
        for share in shares:
            at = place(min(max(math.ceil(share * total), 1), total))
            reach = score_interval(share, total, confidence)
            first, last = math.floor(reach.low * total), math.ceil(reach.high * total) + 1
            value = 0.5 * float(low[at] + high[at]) if cells[at] else 0.0
            found[share] = Estimate(
                value=value,
                low=float(low[place(first)]) if first >= 1 else 0.0,
                high=float(high[place(last)]) if last <= total else math.inf,
            )
        return found
