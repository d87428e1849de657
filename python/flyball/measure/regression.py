"""The meter of numbers that are predicted: mean errors and R2, from exact sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball._native import ExactSum
from flyball.errors import InputError
from flyball.measure.estimate import Estimate, mean, normal_quantile
from flyball.measure.inputs import is_tensor, number, plain
from flyball.measure.meter import Meter, check_keys
from flyball.measure.quantiles import Quantiles
from flyball.measure.result import aligned, mapped, shown, within
from flyball.measure.result import plain as plain_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flyball.measure.inputs import Array

_STATE_VERSION = 2
# With e the error and t the target: the first five are exact, the others sums of rounded terms.
_SUMS = ("e", "abs_e", "ee", "t", "tt", "eeee", "eet", "eett", "ttt", "tttt")
_STATE_PARTS = frozenset((*_SUMS, "cells", "max_error", "samples"))
_SHARES = (0.5, 0.9, 0.95, 0.99)
_LIMIT = 1e70


class Regression(Meter):
    """Measure predicted numbers batch by batch: MAE, MSE, RMSE, R2, bias and the largest error.

    The sums are exact, so R2 does not lose its digits where the targets have a large mean, and batches, shards and
    their order leave no trace.

    Raises:
        InputError: Never; there is nothing to choose.
    """

    __slots__ = ("__weakref__", "_max_error", "_quantiles", "_samples", "_sums")

    def __init__(self) -> None:
        self._samples = 0
        self._max_error = 0.0
        self._sums = {name: ExactSum() for name in _SUMS}
        self._quantiles = Quantiles()

    @property
    def samples(self) -> int:
        """The number of pairs measured so far."""
        return self._samples

    def update(self, predictions: Array, targets: Array) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Args:
            predictions: Numbers of any shape; float32, float64, float16 or bfloat16, computed with in double precision.
            targets: Numbers of the same shape.

        Raises:
            InputError: The shapes differ, or a value is not finite or beyond 1e70.
        """
        p, t = _doubles(predictions, "predictions"), _doubles(targets, "targets")
        if p.shape != t.shape:
            raise InputError(
                f"`predictions` has shape {p.shape}, but `targets` has {t.shape}: nothing is broadcast; reshape one"
            )
        p, t = np.ascontiguousarray(p).ravel(), np.ascontiguousarray(t).ravel()
        for name, values in (("predictions", p), ("targets", t)):
            bad = np.flatnonzero(~(np.abs(values) <= _LIMIT))
            if len(bad):
                raise InputError(
                    f"`{name}` holds {values[bad[0]]} at place {bad[0]}: a value must be finite and within "
                    f"±{_LIMIT:g}; look for the step that made it, or leave the pair out"
                )
        error = p - t
        square = error * error
        # Nothing below can fail: every product is far from overflow.
        self._sums["e"].add(error)
        self._sums["abs_e"].add(np.abs(error))
        self._sums["ee"].add_products(error, error)
        self._sums["t"].add(t)
        self._sums["tt"].add_products(t, t)
        self._sums["eeee"].add(square * square)
        self._sums["eet"].add(square * t)
        self._sums["eett"].add(square * (t * t))
        self._sums["ttt"].add(t * t * t)
        self._sums["tttt"].add((t * t) * (t * t))
        self._quantiles.add(np.abs(error))
        self._samples += len(error)
        self._max_error = max(self._max_error, float(np.abs(error).max(initial=0.0)))

    def merge(self, other: Regression) -> None:
        """Add everything that another meter has seen.

        Raises:
            InputError: `other` measures something else.
        """
        if not isinstance(other, Regression):
            raise InputError(f"`other` is a {type(other).__name__}: only a `Regression` can be merged")
        for name, total in self._sums.items():
            total.merge(other._sums[name])
        self._quantiles.merge(other._quantiles)
        self._samples += other._samples
        self._max_error = max(self._max_error, other._max_error)

    def compute(self, confidence: float = 0.95) -> RegressionResult:
        """Return every number so far; the meter can go on.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        n = self._samples
        if n == 0:
            raise InputError(
                "the meter has seen 0 samples, which have no error: call `update` first, and look whether the loader "
                "is empty"
            )
        total = {name: exact.value for name, exact in self._sums.items()}
        mse = within(mean(total["ee"], total["eeee"], n, confidence), 0.0, math.inf)
        r2, spread = self._r2(confidence)
        return RegressionResult(
            samples=n,
            confidence=confidence,
            mae=within(mean(total["abs_e"], total["ee"], n, confidence), 0.0, math.inf),
            mse=mse,
            rmse=mapped(mse, math.sqrt),
            bias=mean(total["e"], total["ee"], n, confidence),
            r2=r2,
            max_error=self._max_error,
            quantiles=self._quantiles.estimates(_SHARES, confidence),
            constant_rmse=spread,
        )

    def _r2(self, confidence: float) -> tuple[Estimate | None, float]:
        """Return R2, None where the targets do not vary, and their standard deviation."""
        n = self._samples
        sums = {name: _fraction(exact) for name, exact in self._sums.items()}
        center = sums["t"] / n
        variance = sums["tt"] / n - center**2
        spread = math.sqrt(variance)
        if variance <= 0:
            return None, spread
        ratio = sums["ee"] / n / variance
        value = _nearest(1 - ratio)
        if n < 2:
            return Estimate(value=value, low=-math.inf, high=1.0), spread
        # The influence of a sample on R2 is (ratio (t - center)^2 - e^2) / variance.
        t2, t3, t4 = (sums[name] / n for name in ("tt", "ttt", "tttt"))
        fourth = t4 - 4 * center * t3 + 6 * center**2 * t2 - 3 * center**4
        mixed = (sums["eett"] - 2 * center * sums["eet"] + center**2 * sums["ee"]) / n
        influence = (ratio**2 * fourth - 2 * ratio * mixed + sums["eeee"] / n) / variance**2
        half = normal_quantile(confidence) * math.sqrt(max(0.0, _nearest(influence)) / n)
        return Estimate(value=value, low=value - half, high=max(value, min(1.0, value + half))), spread

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers and lists of ints, which JSON holds exactly."""
        chunks = {name: exact.chunks() for name, exact in self._sums.items()}
        return {
            "version": _STATE_VERSION,
            "samples": self._samples,
            "max_error": self._max_error,
            "cells": self._quantiles.state(),
            **chunks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` returned.

        Raises:
            InputError: The state is damaged or of another kind of meter; this meter is unchanged.
        """
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        try:
            sums = {name: ExactSum.from_chunks(state[name]) for name in _SUMS}
            samples, largest = number(state["samples"], "samples"), float(state["max_error"])
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"`state` is damaged ({error}): pass what `state_dict` returned") from error
        if not 0.0 <= largest < math.inf or min(sums[name].value for name in ("abs_e", "ee", "tt", "eeee")) < 0.0:
            raise InputError("`state` is damaged (a sum of squares is negative): pass what `state_dict` returned")
        quantiles = Quantiles.from_state(state["cells"], samples)
        self._sums, self._samples, self._max_error, self._quantiles = sums, samples, largest, quantiles

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(state)

    def __repr__(self) -> str:
        return f"Regression(samples={self._samples})"


@dataclass(frozen=True, slots=True)
class RegressionResult:
    """How far predicted numbers are off, how sure that is, and what a constant would reach.

    Attributes:
        samples: The pairs that were measured.
        confidence: The share of intervals that hold the truth, if samples are independent.
        mae: The mean absolute error; central limit theorem.
        mse: The mean squared error; central limit theorem.
        rmse: Its root; the ends are the roots of its ends.
        bias: The mean of prediction minus target; central limit theorem.
        r2: 1 minus the squared error over that of the constant mean of the targets; delta method. None where the
            targets do not vary. Its interval loses its digits where their mean is a thousand times their spread.
        max_error: The largest absolute error. It has no interval: the next sample may exceed it.
        quantiles: For 0.5, 0.9, 0.95 and 0.99 of the samples, the absolute error that so many do not exceed, to 0.4 %
            of itself; by order statistics, whatever the distribution.
        constant_rmse: The rival of `rmse`: always answering the mean of the targets.
    """

    samples: int
    confidence: float
    mae: Estimate
    mse: Estimate
    rmse: Estimate
    bias: Estimate
    r2: Estimate | None
    max_error: float
    quantiles: dict[float, Estimate]
    constant_rmse: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain_data(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        rows = [
            ("MAE", shown(self.mae), f"largest: {self.max_error:.4g}"),
            ("RMSE", shown(self.rmse), f"always the mean of the targets: {self.constant_rmse:.4f}"),
            ("bias", shown(self.bias), ""),
            *((f"{share:.0%} are within", shown(one), "") for share, one in self.quantiles.items()),
            ("R2", shown(self.r2), "" if self.r2 else "the targets do not vary"),
        ]
        title = f"{self.samples} samples, {self.confidence:.4g} confidence"
        return "\n".join([title, "", *aligned(rows, "<<<")])


def _doubles(value: Array, name: str) -> NDArray[np.float64]:
    if is_tensor(value):
        return _of_tensor(value, name)
    array = plain(value, name)
    if array.dtype.kind not in "fiu":
        raise InputError(f"`{name}` has type {array.dtype}: pass real numbers; `.astype('float32')` converts")
    return array.astype(np.float64)


def _of_tensor(tensor: Any, name: str) -> NDArray[np.float64]:
    on_cpu = str(tensor.device) == "cpu"
    if str(tensor.dtype) == "torch.bfloat16" and on_cpu and not tensor.requires_grad:
        tensor = tensor.float()  # NumPy does not know the type
    array = plain(tensor, name)
    if array.dtype.kind not in "fiu":
        raise InputError(f"`{name}` has type {tensor.dtype}: pass real numbers; `.float()` converts")
    return array.astype(np.float64)


def _nearest(number: Fraction) -> float:
    """Return the nearest float, which is infinite where targets hardly vary and errors are large."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _fraction(exact: ExactSum) -> Fraction:
    units = sum(chunk << (32 * place) for place, chunk in enumerate(exact.chunks()))
    return Fraction(units, 2**1074)
