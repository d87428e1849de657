"""The meter of reconstructed spectra: each image by itself, then the mean over images."""

from __future__ import annotations

import math
import statistics as standard
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import InputError
from flyball.measure import cube
from flyball.measure.cube import Denominator
from flyball.measure.estimate import Estimate, normal_quantile
from flyball.measure.inputs import is_tensor, number, plain
from flyball.measure.meter import Meter, check_alike, check_keys
from flyball.measure.result import aligned, shown
from flyball.measure.result import plain as plain_data
from flyball.measure.statistics.bootstrap import bootstrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flyball.measure.inputs import Array

_STATE_VERSION = 1
_STATE_PARTS = frozenset(("bands", "denominator", "epsilon", "images"))
_NAMES = ("mrae", "rmse", "mae", "psnr", "psnr_clamped", "psnr_of_bands", "sam_degrees", "ssim", "ergas")
_CURVES = ("mrae", "rmse", "mae", "psnr")
_DRAWS = 4000
# The zero spectra and the window stand before the numbers in what is remembered of an image.
_FIXED = 2 + len(_NAMES)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorMaps:
    """Where in an image a reconstruction is off: one number for each pixel, height x width.

    Attributes:
        rmse: The root of the mean over bands of the squared error.
        mrae: The mean over bands of the relative error.
        sam_degrees: The angle between the two spectra; NaN where one of them is zero.
        denominator: What the relative error was divided by.
    """

    rmse: NDArray[np.float64]
    mrae: NDArray[np.float64]
    sam_degrees: NDArray[np.float64]
    denominator: Denominator


def error_maps(prediction: Array, target: Array, denominator: Denominator | None = None) -> ErrorMaps:
    """Return the errors of one image pixel by pixel; the means of `rmse` squared, and of the others, are the image's.

    Args:
        prediction: Bands x height x width.
        target: The same shape.
        denominator: What the relative error is divided by.

    Raises:
        InputError: The shapes differ, a value is not finite, or a denominator is 0.
    """
    p, t = _cubes(prediction, "prediction"), _cubes(target, "target")
    if p.shape != t.shape or len(p) != 1:
        raise InputError(f"`prediction` has shape {p.shape}, but `target` has {t.shape}: pass one image, bands first")
    by = Denominator() if denominator is None else denominator
    return ErrorMaps(
        rmse=np.sqrt(((p[0] - t[0]) ** 2).mean(axis=0)),
        mrae=cube.relative_error(p[0], t[0], by).mean(axis=0),
        sam_degrees=np.degrees(cube.angles(p[0], t[0])),
        denominator=by,
    )


class Spectral(Meter):
    """Measure reconstructed cubes image by image; values are between 0 and 1, and nothing is clamped unless it says so.

    It remembers the numbers of each image, some hundred for 31 bands, and no pixels.

    Args:
        bands: The number of bands.
        denominator: What the relative error is divided by; it is part of the result's name.

    Raises:
        InputError: `bands` is 0.
    """

    __slots__ = ("__weakref__", "_bands", "_denominator", "_images")

    def __init__(self, bands: int, denominator: Denominator | None = None) -> None:
        self._bands = number(bands, "bands")
        if self._bands < 1:
            raise InputError("`bands` is 0: pass how many bands a spectrum has")
        self._denominator = Denominator() if denominator is None else denominator
        self._images: list[tuple[float, ...]] = []

    @property
    def samples(self) -> int:
        """The number of images measured so far."""
        return len(self._images)

    def update(self, predictions: Array, targets: Array) -> None:
        """Add one image, or a batch of them; all of it counts or, if it is refused, nothing.

        Args:
            predictions: Bands x height x width, or images x bands x height x width.
            targets: The same shape.

        Raises:
            InputError: The shapes differ, a value is not finite, or a denominator is 0.
        """
        p, t = _cubes(predictions, "predictions"), _cubes(targets, "targets")
        if p.shape != t.shape:
            raise InputError(f"`predictions` has shape {p.shape}, but `targets` has {t.shape}: nothing is broadcast")
        if p.shape[1] != self._bands:
            raise InputError(f"`predictions` has {p.shape[1]} bands, but the meter {self._bands}: bands come first")
        self._images += [self._of_image(*pair) for pair in zip(p, t, strict=True)]

    def _of_image(self, p: NDArray[np.float64], t: NDArray[np.float64]) -> tuple[float, ...]:
        error = np.abs(p - t)
        mrae = cube.relative_error(p, t, self._denominator).mean(axis=(1, 2))
        squares = (error * error).mean(axis=(1, 2))
        clamped = np.clip(p, 0.0, 1.0) - np.clip(t, 0.0, 1.0)
        psnr_of_bands = [cube.psnr(float(one)) for one in squares]
        angles = cube.angles(p, t)
        seen = ~np.isnan(angles)
        ergas = cube.ergas(p, t)
        curves = (mrae, np.sqrt(squares), error.mean(axis=(1, 2)), np.array(psnr_of_bands))
        return (
            float(np.count_nonzero(~seen)),
            float(cube.window(*t.shape[1:])),
            float(mrae.mean()),
            math.sqrt(float(squares.mean())),
            float(error.mean()),
            cube.psnr(float(squares.mean())),
            cube.psnr(float((clamped * clamped).mean())),
            float(np.mean(psnr_of_bands)),
            # What an image does not have is -1, which orders as NaN does not.
            math.degrees(float(angles[seen].mean())) if seen.any() else -1.0,
            float(cube.ssim(p, t).mean()),
            -1.0 if ergas is None else ergas,
            *(float(value) for curve in curves for value in curve),
        )

    def merge(self, other: Spectral) -> None:
        """Add every image that another meter, made with the same arguments, has seen.

        Raises:
            InputError: `other` measures something else.
        """
        if not isinstance(other, Spectral):
            raise InputError(f"`other` is a {type(other).__name__}: only a `Spectral` can be merged")
        check_alike(bands=(self._bands, other._bands), denominator=(self._denominator, other._denominator))
        self._images += list(other._images)

    def compute(self, confidence: float = 0.95) -> SpectralResult:
        """Return every number so far; the meter can go on.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        normal_quantile(confidence)  # raises if it is out of range
        images = sorted(self._images)
        if not images:
            raise InputError(
                "the meter has seen 0 images, which have no error: call `update` first, and look whether the loader is "
                "empty"
            )
        columns = dict(zip(_NAMES, zip(*(one[2:_FIXED] for one in images), strict=True), strict=True))
        curves = np.array([one[_FIXED:] for one in images]).mean(axis=0).reshape(len(_CURVES), self._bands)
        return SpectralResult(
            samples=len(images),
            confidence=confidence,
            denominator=str(self._denominator),
            windows=tuple(sorted({int(one[1]) for one in images})),
            zero_spectra=int(sum(one[0] for one in images)),
            **{name: _summary(values, name, confidence) for name, values in columns.items()},
            of_bands={name: tuple(curve.tolist()) for name, curve in zip(_CURVES, curves, strict=True)},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which JSON holds exactly."""
        return {
            "version": _STATE_VERSION,
            "bands": self._bands,
            "denominator": self._denominator.kind,
            "epsilon": self._denominator.epsilon,
            "images": [list(one) for one in sorted(self._images)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` of a meter made alike returned.

        Raises:
            InputError: The state is damaged or of another kind of meter; this meter is unchanged.
        """
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        check_alike(
            bands=(self._bands, state["bands"]),
            denominator=(self._denominator.kind, state["denominator"]),
            epsilon=(self._denominator.epsilon, state["epsilon"]),
        )
        try:
            images = [tuple(float(value) for value in one) for one in state["images"]]
        except (TypeError, ValueError) as error:
            raise InputError(f"`state` is damaged ({error}): pass what `state_dict` returned") from error
        length = _FIXED + len(_CURVES) * self._bands
        if not all(len(one) == length and all(map(math.isfinite, one)) for one in images):
            raise InputError(f"`images` of the state does not hold {length} numbers each: the state is damaged")
        self._images = images

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._bands = state["bands"]
        self._denominator = Denominator(state["denominator"], state["epsilon"])
        self._images = []
        self.load_state_dict(state)

    def __repr__(self) -> str:
        return f"Spectral(bands={self._bands}, denominator={self._denominator}, samples={self.samples})"


@dataclass(frozen=True, slots=True)
class OverImages:
    """One number over all images.

    Attributes:
        mean: The mean, with the percentile interval of 4000 seeded resamples of the images.
        deviation: The standard deviation over images; None for one image.
        median: The median over images.
        count: The images that have this number.
    """

    mean: Estimate
    deviation: float | None
    median: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {field.name: plain_data(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class SpectralResult:
    """How far reconstructed spectra are off; each number is that of an image, then over images.

    Attributes:
        samples: The images that were measured.
        confidence: The share of intervals that hold the truth, if images are independent.
        denominator: What the relative error was divided by.
        windows: The sides of the windows of `ssim`: smaller than 11 where images are.
        zero_spectra: Pixels without an angle, as one of their spectra is zero; they are not in `sam_degrees`.
        mrae: The mean relative absolute error.
        rmse: The root of the mean squared error.
        mae: The mean absolute error.
        psnr: Of the mean squared error over bands and pixels, in decibels; capped at 100.
        psnr_clamped: The same of values clamped to 0 and 1.
        psnr_of_bands: The mean of the bands' PSNR.
        sam_degrees: The mean angle between spectra, in degrees; None without one.
        ssim: The mean structural similarity of the bands, in a Gaussian window of 11 where it fits.
        ergas: 100 times the root of the mean squared relative RMSE of the bands; None where a band is dark.
        of_bands: For MRAE, RMSE, MAE and PSNR the curve over bands, as the mean over images.
    """

    samples: int
    confidence: float
    denominator: str
    windows: tuple[int, ...]
    zero_spectra: int
    mrae: OverImages
    rmse: OverImages
    mae: OverImages
    psnr: OverImages
    psnr_clamped: OverImages
    psnr_of_bands: OverImages
    sam_degrees: OverImages | None
    ssim: OverImages
    ergas: OverImages | None
    of_bands: dict[str, tuple[float, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain_data(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        remarks = {
            "mrae": f"divided by {self.denominator}",
            "sam_degrees": f"{self.zero_spectra} pixels without an angle" if self.zero_spectra else "",
            "ssim": f"window {', '.join(map(str, self.windows))}",
        }
        numbers = [(name, getattr(self, name)) for name in _NAMES]
        rows = [
            (name, shown(None if one is None else one.mean), remarks.get(name, "")) for name, one in numbers
        ]  # fmt: skip
        title = f"{self.samples} images, {self.confidence:.4g} confidence"
        return "\n".join([title, "", *aligned(rows, "<<<")])


def _summary(values: tuple[float, ...], name: str, confidence: float) -> Any:
    if name in {"sam_degrees", "ergas"}:
        values = tuple(value for value in values if value >= 0.0)
    if not values:
        return None
    if len(values) == 1:  # one image says nothing about others
        return OverImages(Estimate(value=values[0], low=-math.inf, high=math.inf), None, values[0], 1)
    mean = math.fsum(values) / len(values)
    ends = bootstrap(np.array(values), draws=_DRAWS, method="percentile", confidence=confidence).estimate
    around = Estimate(value=mean, low=min(mean, ends.low), high=max(mean, ends.high))
    return OverImages(around, standard.stdev(values), standard.median(values), len(values))


def _cubes(value: Array, name: str) -> NDArray[np.float64]:
    if is_tensor(value) and str(value.dtype) == "torch.bfloat16":
        raise InputError(f"`{name}` has type torch.bfloat16, too coarse for an error: call `.float()`")
    array = plain(value, name)
    if array.dtype.kind != "f":
        raise InputError(f"`{name}` has type {array.dtype}: pass floats between 0 and 1")
    if array.ndim not in {3, 4}:
        raise InputError(f"`{name}` has shape {array.shape}: pass bands x height x width, or a batch of those")
    wide: NDArray[np.float64] = np.ascontiguousarray(array, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(wide))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise InputError(f"`{name}` holds {wide[place]} at {place}: a value must be finite; look for what made it")
    return wide if wide.ndim == 4 else wide[None]
