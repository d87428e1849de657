"""Calibration of a classifier: bins, groups, Brier scores, and intervals that hold what they claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from flyball.errors import InputError
from flyball.measure import Calibration, Classification
from flyball.measure.calibration import expected_error, maximum_error

Array = np.ndarray[Any, Any]


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def drawn(rows: int, classes: int, seed: int, scale: float) -> tuple[Array, Array]:
    """Logits and targets drawn from their softmax: calibrated where `scale` is 1, too sure above."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, classes)) * 2
    cumulated = softmax(logits).cumsum(axis=1)
    targets = (cumulated < generator.random((rows, 1))).sum(axis=1).clip(max=classes - 1)
    return logits * scale, targets


def naive(confidence: Array, hits: Array, bins: int) -> tuple[float, float]:
    """ECE and MCE by masks over the bins, the first of which holds 0."""
    gaps, shares = [0.0], [0.0]
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if index == 0:
            inside |= confidence == 0
        if inside.any():
            gaps.append(abs(hits[inside].mean() - confidence[inside].mean()))
            shares.append(inside.mean())
    return float(np.dot(gaps, shares)), max(gaps)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), bins=st.integers(1, 20), scale=st.floats(0.1, 8))
def test_errors_and_scores_are_those_of_the_plain_formula(seed: int, classes: int, bins: int, scale: float) -> None:
    logits, targets = drawn(80, classes, seed, scale)
    meter = Classification(classes, bins=bins)
    meter.update(logits, targets)
    result = meter.compute()
    shares = softmax(logits)
    hits = (logits.argmax(axis=1) == targets).astype(float)
    ece, mce = naive(shares.max(axis=1), hits, bins)
    assert result.ece.value == pytest.approx(ece, abs=1e-9)
    assert result.mce.value == pytest.approx(mce, abs=1e-9)
    onehot = np.eye(classes)[targets]
    assert result.brier.value == pytest.approx(((shares - onehot) ** 2).sum(axis=1).mean(), abs=1e-12)
    assert result.top_label_brier.value == pytest.approx(((shares.max(axis=1) - hits) ** 2).mean(), abs=1e-12)
    assert 0.0 <= result.ece.low <= result.ece.value <= result.ece.high <= 1.0
    assert result.ece.value <= result.mce.value
    for table in (result.reliability, result.reliability_equal_mass):
        assert sum(one.count for one in table) == 80
    assert len(result.reliability) == bins
    assert len(result.reliability_equal_mass) <= bins
    assert all(one.count for one in result.reliability_equal_mass)


def test_the_error_is_that_of_torchmetrics() -> None:
    logits, targets = drawn(5000, 10, 0, 1.7)
    meter = Classification(10)
    meter.update(logits.astype("f4"), targets)
    theirs = multiclass_calibration_error(torch.from_numpy(logits), torch.from_numpy(targets), 10, n_bins=15)
    assert meter.compute().ece.value == pytest.approx(theirs.item(), abs=1e-6)


def test_groups_are_nearly_of_equal_count() -> None:
    logits, targets = drawn(20_000, 10, 1, 1.0)
    meter = Classification(10, bins=10)
    meter.update(logits, targets)
    counts = [one.count for one in meter.compute().reliability_equal_mass]
    assert len(counts) == 10
    assert max(abs(count - 2000) for count in counts) < 700  # one cell of the confidence, at most


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    logits = np.array([[1e4, -1e4]] * 10)
    for target, error in ((0, 0.0), (1, 1.0)):
        meter = Classification(2)
        meter.update(logits, np.full(10, target))
        result = meter.compute()
        assert result.ece.value == result.mce.value == result.ece_equal_mass.value == error
        assert result.top_label_brier.value == error
        assert result.brier.value == 2 * error
        assert result.ece.high - result.ece.low > 0.05  # ten samples are not a proof


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0])
def test_the_interval_of_the_error_holds_the_truth_at_least_as_often_as_it_says(scale: float) -> None:
    many, targets = drawn(400_000, 4, 7, scale)
    meter = Classification(4, bins=10)
    meter.update(many, targets)
    truth = meter.compute()
    trials, covered = 300, {"ece": 0, "mce": 0, "brier": 0, "top_label_brier": 0}
    for trial in range(trials):
        sample = Classification(4, bins=10)
        sample.update(many[trial * 400 :][:400], targets[trial * 400 :][:400])
        result = sample.compute()
        for name in covered:
            interval = getattr(result, name)
            covered[name] += interval.low <= getattr(truth, name).value <= interval.high
    for name, count in covered.items():
        assert count / trials >= 0.92, (name, count / trials)


def test_bins_with_no_sample_say_so() -> None:
    bins = (np.array([0, 4]), np.array([0, 3]), np.array([0.0, 3.2]))
    assert expected_error(bins, 0.95).value == pytest.approx(0.05)
    assert maximum_error(bins, 0.95).value == pytest.approx(0.05)
    meter = Classification(2, bins=4)
    meter.update(np.zeros((3, 2)), np.array([0, 1, 0]))
    empty, half, *_ = meter.compute().reliability
    assert (empty.count, empty.confidence, empty.accuracy) == (0, None, None)
    assert (half.count, half.confidence) == (3, 0.5)


def test_a_number_of_bins_that_cannot_be_is_refused() -> None:
    for bins, message in [(0, "`bins` is 0: it must be between 1"), (1.5, "`bins` holds 1.5")]:
        with pytest.raises(InputError, match=message):
            Classification(2, bins=bins)  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6), bins=st.integers(1, 12))
def test_the_error_of_a_class_is_that_of_its_own_probability(seed: int, classes: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(classes, 0.5), 40)
    targets = rng.integers(classes, size=40)
    whole, merged, part = (Calibration(classes, bins, classwise=True) for _ in range(3))
    whole.update(shares, targets)
    order = rng.permutation(40)
    part.update(shares[order[:17]], targets[order[:17]])
    merged.update(shares[order[17:]], targets[order[17:]])
    merged.merge(part)
    assert merged.state_dict() == whole.state_dict()
    loaded = Calibration(classes, bins, classwise=True)
    loaded.load_state_dict(whole.state_dict())
    assert loaded.compute() == whole.compute()
    found = whole.compute()
    for index, one in enumerate(found.ece_of_class):
        p, came = shares[:, index], targets == index
        places = np.clip(np.ceil(p * bins) - 1, 0, bins - 1)
        gaps = [abs(p[places == place].sum() - came[places == place].sum()) for place in range(bins)]
        assert one.value == pytest.approx(sum(gaps) / 40, abs=1e-8)
        assert 0.0 <= one.low <= one.value <= one.high <= 1.0
    assert found.classwise_ece is not None
    assert found.classwise_ece.value == pytest.approx(np.mean([one.value for one in found.ece_of_class]))
    assert Calibration(classes, bins).classes == classes


def test_a_model_whose_answers_keep_their_word_may_lie_about_its_classes() -> None:
    """The answer is sure of a half and right of a half; the classes that are never the answer are not what is said."""
    shares = np.tile([0.5, 0.3, 0.2], (100, 1))
    targets = np.repeat([0, 2], 50)
    meter = Calibration(3, classwise=True)
    meter.update(shares, targets)
    found = meter.compute()
    assert found.ece.value == pytest.approx(0.0, abs=1e-9)
    assert [one.value for one in found.ece_of_class] == pytest.approx([0.0, 0.3, 0.3], abs=1e-8)
    assert "ECE of a class" in str(found)


def test_meters_that_look_at_classes_and_that_do_not_are_told_apart() -> None:
    one, other = Calibration(3, classwise=True), Calibration(3)
    for meter in (one, other):
        meter.update(np.full((2, 3), 1 / 3), np.array([0, 1]))
    assert other.compute().classwise_ece is None
    with pytest.raises(InputError, match="`classwise`"):
        one.merge(other)
    with pytest.raises(InputError, match="`classwise` of the state is False"):
        one.load_state_dict(other.state_dict())
    state = one.state_dict()
    for damage in ([], "x", [-1, *state["classwise"][1:]], [2**70, *state["classwise"][1:]]):
        with pytest.raises(InputError, match="`classwise` of the state"):
            one.load_state_dict({**state, "classwise": damage})
    assert one.state_dict() == state
