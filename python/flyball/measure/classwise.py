"""Calibration of every class by itself, and not of the answer alone: counts in bins for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.calibration import expected_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flyball.measure.estimate import Estimate

# Probabilities are added as whole multiples of 2^-32, rounded down: in any order the sum is the same.
_UNITS = 1 << 32
_MOST_SAMPLES = 1 << 30
_TOGETHER = 1 << 16


class Classwise:
    """For each class and bin: how often its probability fell there, how often it came then, and the sum of those.

    Args:
        classes: The number of classes.
        bins: The number of bins of equal width; an edge belongs to the bin below.
    """

    __slots__ = ("_sums",)

    def __init__(self, classes: int, bins: int) -> None:
        self._sums = np.zeros((3, classes, bins), dtype=np.int64)

    def add(self, shares: NDArray[np.float64], targets: NDArray[np.int64]) -> None:
        """Count rows of probabilities with the classes that came.

        Raises:
            InputError: There would be more samples than the sums can hold.
        """
        self._room(len(shares))
        _, classes, bins = self._sums.shape
        for start in range(0, len(shares), _TOGETHER):
            p, came = shares[start : start + _TOGETHER], targets[start : start + _TOGETHER]
            places = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1) + bins * np.arange(classes)
            own = places[np.arange(len(p)), came]
            units = np.floor(p * _UNITS)  # of so few rows their sum is exact in a double
            flat = self._sums.reshape(3, -1)
            flat[0] += np.bincount(places.ravel(), minlength=classes * bins)
            flat[1] += np.bincount(own, minlength=classes * bins)
            flat[2] += np.bincount(places.ravel(), units.ravel(), minlength=classes * bins).astype(np.int64)

    def merge(self, other: Classwise) -> None:
        """Add everything that another one, of as many classes and bins, has counted.

        Raises:
            InputError: There would be more samples than the sums can hold.
        """
        self._room(other._samples())
        self._sums += other._sums

    def state(self) -> list[int]:
        """Return counts, hits and sums, class by class."""
        state: list[int] = self._sums.ravel().tolist()
        return state

    @classmethod
    def from_state(cls, state: Sequence[int], classes: int, bins: int) -> Classwise:
        """Return what wrote a state.

        Raises:
            InputError: Nothing of this shape did.
        """
        loaded = cls(classes, bins)
        wrong = "`classwise` of the state is damaged or was not written by this meter"
        if not isinstance(state, list | tuple) or len(state) != loaded._sums.size:
            raise InputError(wrong)
        try:
            sums = np.array(state, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(wrong) from error
        count, hits, total = loaded._sums = sums.reshape(loaded._sums.shape)
        of_class = count.sum(axis=1)
        believable = (
            (sums >= 0).all()
            and (hits <= count).all()
            and (total <= count * _UNITS).all()
            and (of_class == of_class[0]).all()
            and hits.sum() == of_class[0] <= _MOST_SAMPLES
        )
        if not believable:
            raise InputError(wrong)
        return loaded

    def errors(self, confidence: float) -> tuple[Estimate, ...]:
        """Return the expected calibration error of each class."""
        count, hits, total = self._sums
        each = zip(count, hits, total / _UNITS, strict=True)
        return tuple(expected_error(bins, confidence) for bins in each)

    def _samples(self) -> int:
        return int(self._sums[0, 0].sum())

    def _room(self, more: int) -> None:
        if self._samples() + more > _MOST_SAMPLES:
            raise InputError(f"the meter would count more than {_MOST_SAMPLES} samples class by class: merge less")
