"""Equal to torchmetrics and scikit-learn on random and hostile inputs, ties and saturation among them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)

from flyball.measure import Calibration, Classification, Ranking, Regression

VALUES = st.one_of(st.floats(-8, 8, width=32), st.sampled_from([0.0, -0.0, 1e4, -1e4, 1e-40, 2.0, -2.0]))
CLASSES = st.tuples(st.integers(1, 30), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=VALUES.map(np.float32).map(float)),
        hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)
SCORES = st.integers(2, 40).flatmap(
    lambda rows: st.tuples(
        hnp.arrays(np.float64, rows, elements=VALUES), hnp.arrays(np.int64, rows, elements=st.integers(0, 1))
    )
)


@settings(max_examples=60)
@given(CLASSES)
def test_classes_are_scored_as_scikit_learn_does(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = case
    meter = Classification(logits.shape[1])
    meter.update(logits, targets)
    found, said = meter.compute(), logits.argmax(axis=1)
    labels = np.arange(logits.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a single class, and of classes that are predicted and not there
        balanced, correlation = (score(targets, said) for score in
                                 (metrics.balanced_accuracy_score, metrics.matthews_corrcoef))  # fmt: skip
    assert (found.confusion == metrics.confusion_matrix(targets, said, labels=labels)).all()
    assert found.accuracy.value == metrics.accuracy_score(targets, said)
    assert found.macro_f1.value == pytest.approx(metrics.f1_score(targets, said, average="macro", zero_division=0))
    assert found.weighted_f1.value == pytest.approx(
        metrics.f1_score(targets, said, average="weighted", zero_division=0)
    )
    assert found.balanced_accuracy.value == pytest.approx(balanced)
    assert (found.mcc.value if found.mcc else 0.0) == pytest.approx(correlation, abs=1e-12)
    wide = torch.from_numpy(logits).double()
    loss = float(torch.nn.functional.cross_entropy(wide, torch.from_numpy(targets)))
    assert found.nll.value == pytest.approx(loss, rel=1e-6, abs=2e-6)
    shares = wide.softmax(1).numpy()
    brier = float(((shares - np.eye(len(labels))[targets]) ** 2).sum(axis=1).mean())
    assert found.brier.value == pytest.approx(brier, abs=2e-6)


@settings(max_examples=40)
@given(CLASSES)
def test_classes_are_scored_as_torchmetrics_does(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = torch.from_numpy(case[0]), torch.from_numpy(case[1])
    count = logits.shape[1]
    meter = Classification(count)
    meter.update(logits, targets)
    found, said = meter.compute(), logits.argmax(1)
    assert (found.confusion == multiclass_confusion_matrix(said, targets, count).numpy()).all()
    assert found.accuracy.value == pytest.approx(
        float(multiclass_accuracy(said, targets, count, average="micro")), abs=1e-6
    )
    assert [one.value if one else 0.0 for one in found.recall] == pytest.approx(
        multiclass_recall(said, targets, count, average="none").tolist(), abs=1e-6
    )
    assert found.macro_f1.value == pytest.approx(float(multiclass_f1_score(said, targets, count)), abs=1e-6)


def test_a_calibration_error_of_confidences_on_an_edge_is_that_of_the_definition() -> None:
    """A confidence of 0.2 lies in (0, 0.2] of five bins; in float32 torchmetrics puts it where it likes."""
    shares = np.full((4, 5), 0.2)
    meter = Calibration(5, bins=5)
    meter.update(shares, np.array([0, 0, 1, 2]))
    assert meter.compute().ece.value == pytest.approx(0.3)  # right on two of four, and 0.2 sure
    theirs = float(multiclass_calibration_error(torch.from_numpy(shares), torch.tensor([0, 0, 1, 2]), 5, n_bins=5))
    assert theirs == pytest.approx(0.3, abs=1e-6)


@settings(max_examples=80)
@given(SCORES)
def test_rankings_are_those_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    meter = Ranking()
    meter.update(scores, labels)
    found = meter.compute()
    if 0 < labels.sum() < len(labels):
        assert found.auroc is not None
        assert found.auroc.value == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-14)
    else:
        assert found.auroc is None  # scikit-learn warns and returns NaN
    if labels.any():
        assert found.average_precision is not None
        assert found.average_precision.value == pytest.approx(
            metrics.average_precision_score(labels, scores), abs=1e-14
        )


@settings(max_examples=60)
@given(
    hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 30)), elements=st.floats(-1e6, 1e6)),
)
def test_errors_are_those_of_scikit_learn(pair: np.ndarray) -> None:
    meter: Any = Regression()
    meter.update(pair[0], pair[1])
    found = meter.compute()
    assert found.mae.value == pytest.approx(metrics.mean_absolute_error(pair[1], pair[0]), rel=1e-12, abs=1e-300)
    assert found.mse.value == pytest.approx(metrics.mean_squared_error(pair[1], pair[0]), rel=1e-12, abs=1e-300)
    assert found.max_error == pytest.approx(metrics.max_error(pair[1], pair[0]), rel=1e-12)
    assert math.isfinite(found.rmse.value)
