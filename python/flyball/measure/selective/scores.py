"""How confident a model is in its own answer, as one number for each sample; the label is never seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the probabilities of the classes, one row for each sample, without overflow.

    Raises:
        InputError: The logits are not rows of two classes or more, or one is not finite.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] < 2:
        raise InputError(f"`logits` has shape {z.shape}: pass one row for each sample, one column for each class")
    if not np.isfinite(z).all():
        raise InputError("`logits` holds a value that is not finite: a confidence cannot be made of it")
    p: NDArray[np.float64] = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


def largest_probability(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the probability of the class that is answered."""
    largest: NDArray[np.float64] = softmax(logits).max(axis=1)
    return largest


def margin(logits: ArrayLike) -> NDArray[np.float64]:
    """Return by how much the probability of the answer is above that of the second."""
    top = np.partition(softmax(logits), -2, axis=1)
    return top[:, -1] - top[:, -2]


def certainty(logits: ArrayLike) -> NDArray[np.float64]:
    """Return 1 - H / ln C: one for a single possible class, zero for all equally likely."""
    p = softmax(logits)
    entropy = -np.where(p > 0.0, p * np.log(np.where(p > 0.0, p, 1.0)), 0.0).sum(axis=1)
    share: NDArray[np.float64] = np.clip(1.0 - entropy / np.log(p.shape[1]), 0.0, 1.0)
    return share
