"""Errors of one spectral cube: formulas on arrays of bands x height x width, in double precision.

Nothing is clamped, replaced or left out unless the name says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Cube = NDArray[np.float64]

PSNR_CAP = 100.0
"""The PSNR, in decibels, of a mean squared error of 1e-12 or less."""

_KINDS = ("raw", "additive", "clamp")


@dataclass(frozen=True, slots=True)
class Denominator:
    """What a relative error is divided by: |p - t| / d(t).

    Numbers with different denominators are not comparable: on one cube with a few zeros they differ by factors of ten
    thousand.

    Args:
        kind: "raw" divides by t, and a target of 0 is an error; "additive" by t + epsilon; "clamp" by
            max(|t|, epsilon).
        epsilon: A small positive number; not used by "raw".

    Raises:
        InputError: The kind is unknown, or `epsilon` is not positive.
    """

    kind: str = "clamp"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"`kind` is {self.kind!r}: pass one of {', '.join(map(repr, _KINDS))}")
        if not 0.0 < self.epsilon < math.inf:
            raise InputError(f"`epsilon` is {self.epsilon}: pass a small positive number, as 1e-6")

    def of(self, target: Cube) -> Cube:
        """Return the denominator of each value.

        Raises:
            InputError: It is 0 somewhere.
        """
        if self.kind == "clamp":
            floored: Cube = np.maximum(np.abs(target), self.epsilon)
            return floored
        shifted = target if self.kind == "raw" else target + self.epsilon
        zeros = int(np.count_nonzero(shifted == 0.0))
        if zeros:
            raise InputError(
                f"`targets` gives the denominator 0 for {zeros} values, whose relative error does not exist: use "
                "`Denominator('clamp')`"
            )
        return shifted

    def __str__(self) -> str:
        return {"raw": "t", "additive": f"t + {self.epsilon:g}", "clamp": f"max(|t|, {self.epsilon:g})"}[self.kind]


def relative_error(prediction: Cube, target: Cube, denominator: Denominator) -> Cube:
    """Return |p - t| / d(t) for each value; it is negative where an additive or raw denominator is."""
    error: Cube = np.abs(prediction - target) / denominator.of(target)
    return error


def psnr(squared_error: float) -> float:
    """Return 10 log10(1 / mean squared error), in decibels, for values between 0 and 1; capped at 100."""
    return PSNR_CAP if squared_error <= 1e-12 else -10.0 * math.log10(squared_error)


def angles(prediction: Cube, target: Cube) -> Cube:
    """Return the angle between the two spectra of each pixel, in radians; NaN where one of them is zero.

    atan2 of the length of what is orthogonal and the cosine: the arc cosine alone loses small angles.
    """
    lengths = [np.sqrt((cube * cube).sum(axis=0)) for cube in (prediction, target)]
    seen = (lengths[0] > 0.0) & (lengths[1] > 0.0)
    p, t = (cube / np.where(seen, length, 1.0) for cube, length in zip((prediction, target), lengths, strict=True))
    cosine = (p * t).sum(axis=0)
    across = p - t * cosine
    angle: Cube = np.where(seen, np.arctan2(np.sqrt((across * across).sum(axis=0)), cosine), np.nan)
    return angle


def ergas(prediction: Cube, target: Cube) -> float | None:
    """Return 100 sqrt(mean over bands of (RMSE / mean of the target)^2); None where a band has the mean 0."""
    means = target.mean(axis=(1, 2))
    if not means.all():
        return None
    squares = ((prediction - target) ** 2).mean(axis=(1, 2)) / means**2
    return 100.0 * math.sqrt(float(squares.mean()))


def window(height: int, width: int) -> int:
    """Return the side of the window of `ssim`: 11, or the largest odd number that fits.

    Raises:
        InputError: Not even 3 fits.
    """
    least = min(height, width)
    if least < 3:
        raise InputError(f"`targets` is {height} x {width} pixels: structural similarity needs 3 x 3 at least")
    return min(11, least - 1 + least % 2)


def ssim(prediction: Cube, target: Cube) -> Cube:
    """Return the structural similarity of each band (Wang et al., 2004), for values between 0 and 1.

    Gaussian weights of standard deviation 1.5 in the window, over the places where the whole window fits.
    """
    side = window(*target.shape[1:])
    offsets = np.arange(side) - side // 2
    weights = np.exp(-(offsets**2) / (2.0 * 1.5**2))
    weights /= weights.sum()

    def smooth(cube: Cube) -> Cube:
        for axis in (1, 2):
            places = cube.shape[axis] - side + 1
            parts = (w * cube.take(range(i, i + places), axis=axis) for i, w in enumerate(weights))
            cube = sum(parts, start=np.zeros(()))
        return cube

    mean_p, mean_t = smooth(prediction), smooth(target)
    variances = smooth(prediction**2) + smooth(target**2) - mean_p**2 - mean_t**2
    covariance = smooth(prediction * target) - mean_p * mean_t
    small, large = 0.01**2, 0.03**2
    similarity = (2.0 * mean_p * mean_t + small) * (2.0 * covariance + large)
    similarity /= (mean_p**2 + mean_t**2 + small) * (variances + large)
    of_bands: Cube = similarity.mean(axis=(1, 2))
    return of_bands
