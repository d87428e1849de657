"""What follows from the counts: agreement with scikit-learn, coverage, and honest gaps."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn import metrics

from flyball.measure import Classification, ClassificationResult, Estimate
from flyball.measure.confusion import (
    Confusion,
    Score,
    balanced_accuracy,
    macro_f1,
    macro_precision,
    matthews,
    weighted_f1,
    weighted_precision,
)
from flyball.measure.result import summarize

if TYPE_CHECKING:
    from collections.abc import Callable

Matrix = np.ndarray[Any, np.dtype[np.int64]]


def result_of(
    confusion: Matrix, confidence: float = 0.95, nll: tuple[float, float] | None = None
) -> ClassificationResult:
    """A result over these counts, with a plausible loss, and every prediction made with confidence 0.75."""
    samples, hits = int(confusion.sum()), int(confusion.trace())
    bins = (np.array([0, samples]), np.array([0, hits]), np.array([0.0, 0.75 * samples]))
    return summarize(
        {
            "samples": samples,
            "left_out": 0,
            "confusion": confusion,
            "hits": [],
            "nll": (0.5 * samples, 0.3 * samples) if nll is None else nll,
            "brier": (0.4 * samples, 0.2 * samples),
            "top_label": (0.2 * samples, 0.1 * samples),
            "bins": bins,
            "groups": bins,
        },
        (),
        confidence,
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_score_is_that_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(200, 6))
    # Class 5 is never a target, class 4 seldom predicted.
    targets = generator.integers(5, size=200)
    logits[np.arange(200), targets] += 1.5
    logits[:, 4] -= 3
    meter = Classification(6, topk=(1, 3))
    meter.update(logits, targets)
    result = meter.compute()
    predicted = logits.argmax(axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = list(range(6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the absent class, which it calls 0
        recall, precision, f1 = (
            score(targets, predicted, labels=labels, average=None, zero_division=np.nan)
            for score in (metrics.recall_score, metrics.precision_score, metrics.f1_score)
        )
        balanced = metrics.balanced_accuracy_score(targets, predicted)
        precisions = {
            average: metrics.precision_score(targets, predicted, average=average, zero_division=0)
            for average in ("macro", "weighted")
        }
    expected = {
        "macro_precision": precisions["macro"],
        "weighted_precision": precisions["weighted"],
        "weighted_f1": metrics.f1_score(targets, predicted, average="weighted"),
        "brier": metrics.brier_score_loss(targets, shares, labels=labels, scale_by_half=False),
        "accuracy": metrics.accuracy_score(targets, predicted),
        "balanced_accuracy": balanced,
        "macro_f1": metrics.f1_score(targets, predicted, average="macro"),
        "mcc": metrics.matthews_corrcoef(targets, predicted),
        "nll": metrics.log_loss(targets, shares, labels=labels),
    }
    for name, value in expected.items():
        assert getattr(result, name).value == pytest.approx(value, abs=1e-12), name
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(targets, predicted, labels=labels))
    top3 = metrics.top_k_accuracy_score(targets, logits, k=3, labels=labels)
    assert result.topk[3].value == pytest.approx(top3)
    for ours, theirs in ((result.recall, recall), (result.precision, precision), (result.f1, f1)):
        for rate, reference in zip(ours, theirs, strict=True):
            value = math.nan if rate is None else rate.value
            assert value == pytest.approx(reference, nan_ok=True)


def test_the_rivals_are_the_best_that_ignores_the_input() -> None:
    result = result_of(np.array([[5, 1, 0], [2, 1, 0], [1, 0, 0]]))
    assert result.majority_rate == 0.6
    shares = [0.6, 0.3, 0.1]
    assert result.prior_entropy == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_what_was_not_measured_is_none_not_zero() -> None:
    result = result_of(np.array([[0, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    absent = [rate is None for rate in result.recall]
    assert absent == [True, False, True, True]
    assert [rate is None for rate in result.precision] == [False, False, True, True]
    assert [rate is None for rate in result.f1] == [False, False, True, True]
    assert result.mcc is None
    assert result.balanced_accuracy.value == pytest.approx(2 / 3)
    assert result.macro_f1.value == pytest.approx((0 + 0.8) / 2)
    assert (result.majority_rate, math.copysign(1, result.prior_entropy)) == (1.0, 1.0)
    assert result.prior_entropy == 0.0


@pytest.mark.parametrize("confusion", [np.diag([9, 7, 4]), np.diag([9, 7, 4])[[1, 2, 0]]])
def test_a_perfect_or_hopeless_score_on_few_samples_is_not_certain(confusion: Matrix) -> None:
    result = result_of(confusion)
    assert result.mcc is not None
    for score in (result.accuracy, result.macro_f1, result.balanced_accuracy, result.mcc):
        assert score.low <= score.value <= score.high
        assert 0.05 < score.high - score.low < 0.5


@pytest.mark.parametrize(
    "score", [balanced_accuracy, macro_f1, macro_precision, matthews, weighted_f1, weighted_precision]
)
def test_intervals_shrink_as_the_root_of_the_samples(score: Callable[[Matrix, float], Estimate]) -> None:
    counts = np.array([[40, 5, 2], [9, 30, 1], [3, 8, 20]])
    few, many = score(counts * 100, 0.95), score(counts * 10_000, 0.95)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.01)


def test_the_extra_samples_are_half_right_and_leave_the_targets_alone() -> None:
    counts = np.array([[40, 5, 2], [9, 30, 1], [3, 8, 20]])
    rows = counts.sum(axis=1) / counts.sum()
    extra = np.full((3, 3), 0.25) * rows[:, None]
    np.fill_diagonal(extra, rows / 2)
    dense = (counts + 4.0 * extra) / (counts.sum() + 4.0)
    shares = Confusion(counts, extra=4.0)
    column = np.array([1.0, -2.0, 5.0])
    np.testing.assert_allclose(shares.diagonal, dense.diagonal())
    np.testing.assert_allclose(shares.rows, dense.sum(axis=1))
    np.testing.assert_allclose(shares.columns, dense.sum(axis=0))
    np.testing.assert_allclose(shares.times(column), dense @ column)


def test_the_standard_error_is_that_of_the_dense_formula() -> None:
    counts = np.array([[40, 5, 2], [9, 30, 1], [3, 8, 20]])
    generator = np.random.default_rng(0)
    own, row, column = generator.normal(size=(3, 3))
    slope = np.diag(own) + row[:, None] + column
    dense = counts / counts.sum()
    variance = (dense * slope**2).sum() - (dense * slope).sum() ** 2
    error = Score(0.0, own, row, column).standard_error(Confusion(counts))
    assert error == pytest.approx(math.sqrt(variance / counts.sum()))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = np.array([[0.30, 0.06, 0.04], [0.05, 0.20, 0.05], [0.02, 0.08, 0.20]])
    expected = {
        "accuracy": 0.70,
        "macro_f1": float(np.mean(2 * truth.diagonal() / (truth.sum(0) + truth.sum(1)))),
        "balanced_accuracy": float(np.mean(truth.diagonal() / truth.sum(axis=1))),
        "weighted_f1": float(2 * truth.diagonal() / (truth.sum(0) + truth.sum(1)) @ truth.sum(axis=1)),
        "macro_precision": float(np.mean(truth.diagonal() / truth.sum(axis=0))),
        "weighted_precision": float(truth.diagonal() / truth.sum(axis=0) @ truth.sum(axis=1)),
        "mcc": (0.70 - truth.sum(0) @ truth.sum(1))
        / math.sqrt((1 - truth.sum(0) @ truth.sum(0)) * (1 - truth.sum(1) @ truth.sum(1))),
        "nll": 1.0,
    }
    generator = np.random.default_rng(0)
    trials, covered = 1500, dict.fromkeys(expected, 0)
    for _ in range(trials):
        counts = generator.multinomial(300, truth.ravel()).reshape(3, 3)
        losses = generator.exponential(size=300)
        result = result_of(counts, nll=(losses.sum(), (losses**2).sum()))
        for name, value in expected.items():
            interval = getattr(result, name)
            covered[name] += interval.low <= value <= interval.high
    for name, count in covered.items():
        assert 0.93 <= count / trials <= 0.97, (name, count / trials)


def test_a_result_cannot_be_changed() -> None:
    result = result_of(np.diag([3, 4]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.samples = 0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        result.confusion[0, 0] = 1


def test_a_result_is_json_also_with_one_sample() -> None:
    meter = Classification(6)
    meter.update(np.zeros((1, 6), dtype=np.float32), np.array([2]))
    plain = meter.compute().to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["nll"]["low"] == 0.0
    assert plain["nll"]["high"] is None
    assert set(plain) == {field.name for field in dataclasses.fields(ClassificationResult)}


def test_the_table_shows_each_score_beside_its_rival() -> None:
    confusion = np.diag([30, 20])
    confusion[0, 1] = 10
    lines = str(result_of(confusion)).splitlines()
    assert lines[0] == "60 samples, 2 classes, 0.95 confidence"
    assert lines[2] == ("accuracy           0.8333 [0.7197, 0.9069]  always the most frequent class: 0.6667")
    assert any(line.startswith("NLL") and "shares of the classes: 0.6365" in line for line in lines)
    assert lines[-2].split()[:2] == ["0", "40"]
    assert "`recall`" in str(result_of(np.diag(np.full(21, 2)))).splitlines()[-1]


def test_results_of_the_same_data_are_equal_and_of_others_are_not() -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(50, 4)), generator.integers(0, 4, 50)

    def measured(*cuts: int, of: np.ndarray = targets) -> ClassificationResult:
        meter = Classification(4)
        for a, b in pairwise([0, *cuts, 50]):
            meter.update(logits[a:b], of[a:b])
        return meter.compute()

    assert measured() == measured(7, 31)
    assert measured() != measured(of=np.roll(targets, 1))
    assert measured() != "another thing"
