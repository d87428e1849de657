"""Make a classifier's confidence honest after training: one temperature for all logits, or a scale and shift for each.

Fit on samples that were held out from training and are not those that you report on: on training data every model looks
too sure of the truth, and the fit would make it surer still. Guo et al. (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.selective.scores import softmax

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LOWEST, _HIGHEST = 1e-2, 1e2
_HALVINGS = 200
_STEPS = 100


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divide the logits by one number: the answers stay the same, the confidence becomes honest.

    Attributes:
        value: The temperature; above 1 the model was too sure. It is 0.01 or 100 where the best lies beyond.
        nll_before: The mean negative log-likelihood of the held-out samples before, in nats.
        nll_after: The same with the temperature: never larger.
        samples: How many held-out samples there were.
    """

    value: float
    nll_before: float
    nll_after: float
    samples: int

    def __call__(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the logits divided by the temperature."""
        return np.asarray(logits, dtype=np.float64) / self.value


@dataclass(frozen=True, slots=True, eq=False)
class VectorScaling:
    """Scale and shift the logits of each class; this can change the answers.

    Attributes:
        scale: The factor of each class.
        shift: What is added to each class.
        nll_before: The mean negative log-likelihood of the held-out samples before, in nats.
        nll_after: The same with scale and shift: never larger.
        samples: How many held-out samples there were.
    """

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    nll_before: float
    nll_after: float
    samples: int

    def __call__(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the logits, scaled and shifted."""
        return np.asarray(logits, dtype=np.float64) * self.scale + self.shift


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> Temperature:
    """Return the temperature under which held-out samples are most likely.

    The likelihood is convex in 1 / T, so where its derivative changes sign is the best there is between 0.01 and 100.

    Args:
        logits: Of held-out samples, one row each.
        targets: Their classes.

    Raises:
        InputError: They do not fit together, or a logit is not finite.
    """
    z, y = _checked(logits, targets)
    z = z - z[np.arange(len(y)), y][:, None]  # the target's own logit is zero: the loss is log-sum-exp

    def slope(inverse: float) -> float:
        return float((softmax(z * inverse) * z).sum(axis=1).mean())

    low, high = 1.0 / _HIGHEST, 1.0 / _LOWEST
    if slope(low) >= 0.0:
        best = low
    elif slope(high) <= 0.0:
        best = high
    else:
        best = math.sqrt(low * high)
        for _ in range(_HALVINGS):
            low, high = (best, high) if slope(best) < 0.0 else (low, best)
            best = math.sqrt(low * high)
            if not low < best < high:
                break
    before, after = _nll(z, y), _nll(z * best, y)
    if after >= before:
        return Temperature(1.0, before, before, len(y))
    return Temperature(1.0 / best, before, after, len(y))


def fit_vector(logits: ArrayLike, targets: ArrayLike, *, ridge: float = 1e-6) -> VectorScaling:
    """Return the scale and shift of each class under which held-out samples are most likely, by Newton's method.

    It has two numbers for each class to fit, so it wants many held-out samples of every class; a class without any
    keeps a small pull (`ridge`) towards scale 1 and shift 0, and little else.

    Args:
        logits: Of held-out samples, one row each.
        targets: Their classes.
        ridge: How strongly scale and shift are pulled to 1 and 0.

    Raises:
        InputError: They do not fit together, a logit is not finite, or `ridge` is not above zero.
    """
    z, y = _checked(logits, targets)
    if not 0.0 < ridge < math.inf:
        raise InputError(f"`ridge` is {ridge}: it must be above zero, or a class that is missing has no best shift")
    n, classes = z.shape
    truth = np.zeros_like(z)
    truth[np.arange(n), y] = 1.0
    anchor = np.concatenate([np.ones(classes), np.zeros(classes)])
    at = anchor.copy()

    def value(w: NDArray[np.float64]) -> float:
        return _nll(z * w[:classes] + w[classes:], y) + 0.5 * ridge * float(((w - anchor) ** 2).sum())

    here = value(at)
    for _ in range(_STEPS):
        p = softmax(z * at[:classes] + at[classes:])
        pz = p * z
        gradient = np.concatenate([((p - truth) * z).mean(axis=0), (p - truth).mean(axis=0)]) + ridge * (at - anchor)
        hessian = np.block(
            [
                [np.diag((pz * z).sum(axis=0)) - pz.T @ pz, np.diag(pz.sum(axis=0)) - pz.T @ p],
                [np.diag(pz.sum(axis=0)) - p.T @ pz, np.diag(p.sum(axis=0)) - p.T @ p],
            ]
        )
        step = np.linalg.solve(hessian / n + ridge * np.eye(2 * classes), gradient)
        gain = float(step @ gradient)
        length = 1.0
        while length > 1e-10 and value(at - length * step) > here - 1e-4 * length * gain:
            length *= 0.5
        following = value(at - length * step)
        if gain < 1e-14 or following >= here:
            break
        at, here = at - length * step, following
    before, after = _nll(z, y), _nll(z * at[:classes] + at[classes:], y)
    if after >= before:
        return VectorScaling(np.ones(classes), np.zeros(classes), before, before, n)
    return VectorScaling(at[:classes], at[classes:], before, after, n)


def _nll(logits: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    top = logits.max(axis=1)
    lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((lse - logits[np.arange(len(targets)), targets]).mean())


def _checked(logits: ArrayLike, targets: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    z = np.asarray(logits, dtype=np.float64)
    softmax(z)  # raises where it is no batch of logits
    y = np.asarray(targets)
    if y.shape != (len(z),) or not len(z) or y.dtype.kind not in "iu":
        raise InputError(f"`targets` has shape {y.shape} and type {y.dtype}: pass one class for each row of `logits`")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise InputError(f"`targets` holds values from {y.min()} to {y.max()}, but there are {z.shape[1]} classes")
    return z, y.astype(np.int64)
