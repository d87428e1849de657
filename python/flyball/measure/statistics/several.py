"""P-values of several tests at once: what each is worth when so many were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def bonferroni(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values adjusted so that any false find at all keeps the probability: each times their number."""
    p = _checked(p_values)
    return np.minimum(p * len(p), 1.0)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values adjusted by Holm (1979): the promise of `bonferroni`, and never less powerful."""
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _placed(stepped, order)


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values adjusted so that the expected share of false finds among the finds is kept (1995)."""
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _placed(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _placed(ordered: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    adjusted = np.empty(len(ordered))
    adjusted[order] = np.minimum(ordered, 1.0)
    return adjusted


def _checked(p_values: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0.0) & (p <= 1.0)).all():
        raise InputError(f"`p_values` is {p_values!r}: pass one probability for each test")
    return p
