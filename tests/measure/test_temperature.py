"""Temperature and vector scaling: never worse on what they were fitted on, and right where the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from flyball.errors import InputError
from flyball.measure.selective.scores import softmax
from flyball.measure.temperature import fit_temperature, fit_vector


def nll(logits: np.ndarray, targets: np.ndarray) -> float:
    return float(-np.log(softmax(logits)[np.arange(len(targets)), targets]).mean())


def drawn(seed: int, rows: int, classes: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 3
    uniform = -np.log(-np.log(rng.random((rows, classes))))
    return logits, (logits / temperature + uniform).argmax(axis=1)


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 6), st.floats(0.2, 5.0))
def test_a_temperature_never_changes_an_answer_and_never_raises_the_loss(
    seed: int, n: int, classes: int, t: float
) -> None:
    logits, targets = drawn(seed, n, classes, t)
    found = fit_temperature(logits, targets)
    assert found.nll_after <= found.nll_before
    assert 0.01 <= found.value <= 100.0
    assert (found(logits).argmax(axis=1) == logits.argmax(axis=1)).all()
    if found.nll_after < found.nll_before:
        assert found.nll_after == pytest.approx(nll(found(logits), targets), abs=1e-9)
    best = optimize.minimize_scalar(lambda x: nll(logits / np.exp(x), targets), bounds=(-4.6, 4.6), method="bounded")
    assert found.nll_after <= best.fun + 1e-9


def test_it_finds_the_temperature_that_was_used() -> None:
    logits, targets = drawn(1, 20_000, 5, 2.0)
    assert fit_temperature(logits, targets).value == pytest.approx(2.0, rel=0.03)
    scaled = fit_vector(logits, targets)
    assert scaled.scale == pytest.approx(np.full(5, 0.5), abs=0.03)
    assert scaled.nll_after <= fit_temperature(logits, targets).nll_after + 1e-9


def test_answers_all_right_or_all_wrong_reach_the_ends() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(logits, [0, 1]).value == pytest.approx(0.01)
    assert fit_temperature(logits, [1, 0]).value == pytest.approx(100.0)


@given(st.integers(0, 300), st.integers(1, 30), st.integers(2, 5))
def test_vector_scaling_never_raises_the_loss_even_with_a_class_missing(seed: int, n: int, classes: int) -> None:
    logits, targets = drawn(seed, n, classes, 1.5)
    found = fit_vector(logits, targets)
    assert found.nll_after <= found.nll_before
    assert np.isfinite(found(logits)).all()


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ([[0.0, 1.0]], [2], "but there are 2 classes"),
        ([[0.0, 1.0]], [0.5], "`targets` has shape"),
        ([[0.0, np.inf]], [0], "not finite"),
        ([0.0], [0], "`logits` has shape"),
    ],
)
def test_what_cannot_be_fitted_is_named(logits: Any, targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_temperature(logits, targets)
