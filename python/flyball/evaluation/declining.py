"""By what a classifier may decline to answer: the names of the confidences, and what computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.errors import InputError
from flyball.measure.selective import certainty, largest_probability, margin

Score: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Rows of logits in, one confidence for each row out; it never sees a label."""

_KNOWN: dict[str, Score] = {"probability": largest_probability, "margin": margin, "certainty": certainty}


def confidence_score(selective: object) -> Score | None:
    """Return what computes the confidence that was asked for; None if none was.

    Raises:
        InputError: It is neither a known name nor a function.
    """
    if selective is None:
        return None
    if isinstance(selective, str) and selective in _KNOWN:
        return _KNOWN[selective]
    if callable(selective):
        return _checked(selective)
    known = ", ".join(f"'{name}'" for name in _KNOWN)
    raise InputError(f"`selective` is {selective!r}: it is one of {known}, or a function of logits")


def _checked(score: Callable[[Any], Any]) -> Score:
    def called(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.asarray(score(logits), dtype=np.float64)
        if found.shape != (len(logits),):
            raise InputError(f"`selective` gave shape {found.shape} for {len(logits)} rows: one number for each")
        return found

    return called
