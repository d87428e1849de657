"""The golden cases of texts, probabilities, numbers and spectra, from NumPy and from torch."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flyball.errors import InputError
from flyball.measure import Calibration, Denominator, Regression, Spectral, Text

GOLDEN = Path(__file__).parent.parent / "golden"


def cases(name: str) -> pytest.MarkDecorator:
    found = tomllib.loads((GOLDEN / f"{name}.toml").read_text("utf-8"))["case"]
    return pytest.mark.parametrize("case", found, ids=[case["name"] for case in found])


def given(values: list[float], shape: tuple[int, ...], backend: str) -> Any:
    array = np.array(values, dtype=np.float64).reshape(shape)
    return array if backend == "numpy" else torch.from_numpy(array)


def labels(values: list[int], backend: str) -> Any:
    array = np.array(values, dtype=np.int64)
    return array if backend == "numpy" else torch.from_numpy(array)


def nothing(meter: Any) -> None:
    with pytest.raises(InputError, match="has seen 0"):
        meter.compute()


@pytest.mark.parametrize("backend", ["numpy", "torch", "float32"])
@cases("text")
def test_texts(case: dict[str, Any], backend: str) -> None:
    logits = given(case["logits"], (-1, case["vocabulary"]), backend)
    meter = Text(case["vocabulary"])
    meter.update(logits.float() if backend == "float32" else logits, labels(case["targets"], backend))
    if "loss" not in case:
        nothing(meter)
        return
    found = meter.compute()
    assert found.loss.value == pytest.approx(case["loss"], abs=2e-6 if backend == "float32" else 1e-12)
    assert [found.tokens, found.ignored] == case["counted"]
    assert found.accuracy.value == case["hits"] / found.tokens


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@cases("calibration")
def test_probabilities(case: dict[str, Any], backend: str) -> None:
    meter = Calibration(2, bins=case["bins"])
    meter.update(given(case["probabilities"], (-1, 2), backend), labels(case["targets"], backend))
    if "nll" not in case:
        nothing(meter)
        return
    found = meter.compute()
    for name in ("ece", "mce", "brier", "nll"):
        assert getattr(found, name).value == pytest.approx(case[name], abs=1e-12), name


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@cases("regression")
def test_numbers(case: dict[str, Any], backend: str) -> None:
    meter = Regression()
    meter.update(given(case["predictions"], (-1,), backend), given(case["targets"], (-1,), backend))
    if "mae" not in case:
        nothing(meter)
        return
    found = meter.compute()
    for name in ("mae", "mse", "bias"):
        assert getattr(found, name).value == pytest.approx(case[name], rel=1e-12, abs=1e-320), name
    assert found.max_error == case["max_error"]
    r2 = None if found.r2 is None else found.r2.value
    assert r2 == (pytest.approx(case["r2"], rel=1e-12, abs=1e-12) if "r2" in case else None)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@cases("spectral")
def test_spectra(case: dict[str, Any], backend: str) -> None:
    def image(name: str) -> Any:
        tiled = np.tile(np.array(case[name]).reshape(case["bands"], 1, case["pixels"]), (1, 3, 3))
        return tiled if backend == "numpy" else torch.from_numpy(tiled)

    meter = Spectral(case["bands"], Denominator(case.get("denominator", "raw"), case.get("epsilon", 1e-6)))
    meter.update(image("predictions"), image("targets"))
    found = meter.compute()
    for name in ("mrae", "rmse", "mae", "sam_degrees"):
        number = getattr(found, name)
        expected = case.get(name)
        assert (None if number is None else number.mean.value) == (
            None
            if expected is None
            else pytest.approx(expected, rel=1e-9, abs=1e-6 if name == "sam_degrees" else 1e-12)
        ), name
