"""Spectral errors: by hand, against other implementations, and by the laws of meters."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from flyball.errors import InputError
from flyball.measure import Denominator, Spectral, SpectralResult, error_maps
from flyball.measure.cube import angles, psnr, window

Array = np.ndarray[Any, Any]


def drawn(images: int, bands: int = 5, side: int = 16, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    targets = generator.uniform(0.05, 1.0, (images, bands, side, side))
    return targets + 0.05 * generator.normal(size=targets.shape), targets


def measured(predictions: Any, targets: Any, denominator: Denominator | None = None) -> SpectralResult:
    meter = Spectral(targets.shape[-3], denominator)
    meter.update(predictions, targets)
    return meter.compute()


def test_a_cube_by_hand() -> None:
    """Property T32: two bands, of which the second is wrong by 0.1 everywhere."""
    targets = np.full((2, 3, 3), 0.5)
    predictions = targets + np.array([0.0, 0.1])[:, None, None]
    result = measured(predictions, targets)
    expected = {
        "mrae": 0.1,
        "mae": 0.05,
        "rmse": math.sqrt(0.005),
        "psnr": 10 * math.log10(200),
        "psnr_clamped": 10 * math.log10(200),
        "psnr_of_bands": (100 + 20) / 2,
        "sam_degrees": math.degrees(math.atan2(0.6, 0.5) - math.pi / 4),
        "ergas": 100 * math.sqrt(0.5 * 0.2**2),
    }
    for name, value in expected.items():
        number = getattr(result, name)
        assert number.mean.value == pytest.approx(value, rel=1e-12), name
        assert (number.mean.low, number.count, number.deviation) == (-math.inf, 1, None)
    assert result.of_bands["mae"] == pytest.approx((0.0, 0.1))
    assert result.windows == (3,)
    assert "divided by max(|t|, 1e-06)" in str(result)


def similarity_by_windows(prediction: Array, target: Array, side: int) -> float:
    """The formula of one band, window by window, with centred moments."""
    offsets = np.arange(side) - side // 2
    line = np.exp(-(offsets**2) / 4.5)
    weights = np.outer(line, line) / line.sum() ** 2
    found = []
    for row in range(target.shape[0] - side + 1):
        for column in range(target.shape[1] - side + 1):
            p, t = (cube[row : row + side, column : column + side] for cube in (prediction, target))
            mp, mt = (weights * p).sum(), (weights * t).sum()
            vp, vt = (weights * (p - mp) ** 2).sum(), (weights * (t - mt) ** 2).sum()
            both = (weights * (p - mp) * (t - mt)).sum()
            low, high = 2 * mp * mt + 1e-4, mp**2 + mt**2 + 1e-4
            found.append(low * (2 * both + 9e-4) / (high * (vp + vt + 9e-4)))
    return float(np.mean(found))


@pytest.mark.parametrize("side", [5, 11, 13])
def test_similarity_is_that_of_the_plain_formula_in_every_window(side: int) -> None:
    predictions, targets = drawn(1, bands=3, side=side)
    pairs = zip(predictions[0], targets[0], strict=True)
    expected = np.mean([similarity_by_windows(*pair, window(side, side)) for pair in pairs])
    assert measured(predictions, targets).ssim.mean.value == pytest.approx(expected, abs=1e-12)
    assert measured(targets, targets).ssim.mean.value == pytest.approx(1.0, abs=1e-12)
    assert [window(h, w) for h, w in ((3, 9), (4, 4), (10, 11), (12, 30))] == [3, 3, 9, 11]


def test_small_angles_keep_their_digits_where_the_arc_cosine_loses_them() -> None:
    for angle in (1e-9, 1e-6, 1e-3, 1.0, 3.0):
        prediction = np.array([math.cos(angle), math.sin(angle)])[:, None, None]
        target = np.array([1.0, 0.0])[:, None, None] * 7.0
        assert angles(prediction, target)[0, 0] == pytest.approx(angle, rel=1e-9)
    assert math.acos(min(1.0, math.cos(1e-9))) == 0.0


def test_each_denominator_is_another_number() -> None:
    predictions, targets = drawn(1)
    for denominator, expected in [
        (Denominator("raw"), np.mean(np.abs(predictions - targets) / targets)),
        (Denominator("additive", 0.5), np.mean(np.abs(predictions - targets) / (targets + 0.5))),
        (Denominator("clamp", 0.5), np.mean(np.abs(predictions - targets) / np.maximum(targets, 0.5))),
    ]:
        assert measured(predictions, targets, denominator).mrae.mean.value == pytest.approx(expected, rel=1e-12)
    targets[0, 0, 0, 0] = 0.0
    with pytest.raises(InputError, match="`targets` gives the denominator 0 for 1 values"):
        measured(predictions, targets, Denominator("raw"))


def test_a_zero_spectrum_has_no_angle_and_is_counted() -> None:
    predictions, targets = drawn(2)
    expected = measured(predictions, targets)
    targets[1, :, 0, 0] = 0.0
    result = measured(predictions, targets)
    assert result.zero_spectra == 1
    assert result.sam_degrees is not None
    assert expected.sam_degrees is not None
    assert result.sam_degrees.mean.value == pytest.approx(expected.sam_degrees.mean.value, rel=0.05)
    dark = measured(predictions, targets * 0.0)
    assert dark.sam_degrees is dark.ergas is None
    assert psnr(0.0) == 100.0


def test_images_in_any_order_and_shards_give_the_same_bits() -> None:
    """Property: per image, then the mean over images; the bootstrap is seeded."""
    predictions, targets = drawn(9)
    whole = Spectral(5)
    whole.update(predictions, targets)
    merged = Spectral(5)
    for part in ([4, 1], [8], [0, 7, 3], [2, 6, 5]):
        shard = Spectral(5)
        for index in part:
            shard.update(predictions[index], targets[index])
        merged.merge(shard)
    assert merged.state_dict() == whole.state_dict()
    result = whole.compute()
    assert merged.compute().to_dict() == result.to_dict()
    assert result.mrae.mean.low < result.mrae.mean.value < result.mrae.mean.high
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    for other in (pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):  # noqa: S301 - its own pickle
        assert other.state_dict() == whole.state_dict()


def test_what_cannot_be_measured_is_refused_whole() -> None:
    predictions, targets = drawn(2)
    bad = predictions.copy()
    bad[1, 2, 3, 4] = math.nan
    meter = Spectral(5)
    for p, t, message in [
        (bad, targets, r"`predictions` holds nan at \(1, 2, 3, 4\)"),
        (predictions[0], targets, "nothing is broadcast"),
        (predictions[:, :4], targets[:, :4], "`predictions` has 4 bands, but the meter 5"),
        (predictions[0, 0], targets[0, 0], r"`predictions` has shape \(16, 16\)"),
        (predictions[..., :2], targets[..., :2], "16 x 2 pixels"),
        (predictions > 0, targets, "`predictions` has type bool"),
        (torch.zeros(5, 4, 4, dtype=torch.bfloat16), targets, "too coarse"),
        (torch.zeros(5, 4, 4, requires_grad=True), targets, "`predictions` requires grad"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.update(p, t)
    with pytest.raises(InputError, match="has seen 0 images"):
        meter.compute()
    for other, message in [
        ({}, "`other` is a dict"),
        (Spectral(4), "`bands`"),
        (Spectral(5, Denominator("raw")), "`deno"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.merge(other)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not hold 31 numbers"):
        meter.load_state_dict({**meter.state_dict(), "images": [[1.0]]})
    with pytest.raises(InputError, match="`state` is damaged"):
        meter.load_state_dict({**meter.state_dict(), "images": "x"})
    with pytest.raises(InputError, match="`bands` is 0"):
        Spectral(0)
    for arguments, message in [(("log",), "`kind` is 'log'"), (("clamp", 0.0), r"`epsilon` is 0\.0")]:
        with pytest.raises(InputError, match=message):
            Denominator(*arguments)  # type: ignore[arg-type]


def test_maps_say_pixel_by_pixel_what_the_numbers_of_an_image_are() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(0.1, 1.0, (5, 7, 9))
    prediction = target + rng.normal(0.0, 0.05, target.shape)
    prediction[:, 2, 3] = 0.0
    meter = Spectral(5)
    meter.update(prediction, target)
    found, maps = meter.compute(), error_maps(prediction, target)
    assert maps.rmse.shape == maps.mrae.shape == maps.sam_degrees.shape == (7, 9)
    assert np.sqrt((maps.rmse**2).mean()) == pytest.approx(found.rmse.mean.value)
    assert maps.mrae.mean() == pytest.approx(found.mrae.mean.value)
    assert np.argwhere(np.isnan(maps.sam_degrees)).tolist() == [[2, 3]]
    assert found.sam_degrees is not None
    assert np.nanmean(maps.sam_degrees) == pytest.approx(found.sam_degrees.mean.value)
    with pytest.raises(InputError, match="pass one image"):
        error_maps(np.stack([prediction] * 2), np.stack([target] * 2))
