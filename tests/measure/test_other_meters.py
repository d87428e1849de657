"""The meters of texts, numbers and probabilities: their formulas, their laws, and what they refuse."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics
from torchmetrics.functional import r2_score

from flyball.errors import InputError
from flyball.measure import Calibration, Classification, Regression, Text, perplexity

Array = np.ndarray[Any, Any]


def drawn(rows: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, classes)) * 2, generator.integers(classes, size=rows)


def softmax(logits: Array) -> Array:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalized: Array = shares / shares.sum(axis=1, keepdims=True)
    return normalized


def text_pair(part: slice) -> tuple[Text, tuple[Any, ...]]:
    logits, targets = drawn(90, 40)
    targets[::7] = -100
    return Text(40), (logits[part], targets[part])


def regression_pair(part: slice) -> tuple[Regression, tuple[Any, ...]]:
    predictions, targets = np.random.default_rng(0).normal(size=(2, 90))
    return Regression(), (predictions[part], targets[part])


def calibration_pair(part: slice) -> tuple[Calibration, tuple[Any, ...]]:
    logits, targets = drawn(90, 4)
    return Calibration(4), (softmax(logits)[part], targets[part])


@pytest.mark.parametrize("pair", [text_pair, regression_pair, calibration_pair])
def test_partition_order_and_serialisation_leave_no_trace(pair: Any) -> None:
    whole, batch = pair(slice(None))
    whole.update(*batch)
    merged, _ = pair(slice(None))
    for part in (slice(60, 90), slice(0, 1), slice(1, 60)):
        shard, batch = pair(part)
        shard.update(*batch)
        merged.merge(shard)
    assert merged.state_dict() == whole.state_dict()
    assert merged.compute().to_dict() == whole.compute().to_dict()
    loaded, _ = pair(slice(None))
    loaded.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for other in (loaded, pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):  # noqa: S301 - its own pickle
        assert other.state_dict() == whole.state_dict()
        other.merge(other)
        assert other.state_dict() != whole.state_dict()
    plain = whole.compute().to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert "confidence" in str(whole.compute())
    empty, _ = pair(slice(None))
    with pytest.raises(InputError, match="has seen 0"):
        empty.compute()
    with pytest.raises(InputError, match="`other` is a dict"):
        empty.merge({})
    with pytest.raises(InputError, match="`state` lacks"):
        empty.load_state_dict({"version": 1})
    with pytest.raises(InputError, match="`state`"):
        empty.load_state_dict({**whole.state_dict(), **dict.fromkeys(list(whole.state_dict())[2:], "x")})
    assert empty.state_dict() == pair(slice(None))[0].state_dict()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_loss_of_a_text_is_that_of_torch_over_what_is_not_ignored(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(60, 500, generator=generator) * 3).to(dtype)
    targets = torch.randint(500, (60,), generator=generator)
    targets[::5] = -100
    meter = Text(500)
    meter.update(logits, targets, size=250)
    result = meter.compute()
    loss = torch.nn.functional.cross_entropy(logits.double(), targets).item()
    assert result.loss.value == pytest.approx(loss, abs=2e-6)
    assert result.perplexity.value == pytest.approx(math.exp(loss), rel=1e-5)
    assert (result.tokens, result.ignored, result.bytes) == (48, 12, 250)
    assert result.bits_per_byte is not None
    assert result.bits_per_byte.value == pytest.approx(loss * 48 / math.log(2) / 250, rel=1e-5)
    kept = targets >= 0
    assert result.accuracy.value == pytest.approx((logits.argmax(1) == targets)[kept].double().mean().item())


def test_a_padded_row_may_hold_anything_and_a_wrong_one_refuses_the_batch() -> None:
    logits, targets = drawn(5, 6)
    logits[2] = math.nan
    targets[2] = -100
    meter = Text(6)
    meter.update(logits, targets)
    before = meter.state_dict()
    for wrong, labels, message in [
        (logits, np.array([0, 1, 2, 3, 4]), "`logits` holds NaN in row 2"),
        (logits, np.array([0, 1, -100, 3, 6]), "`targets` holds 6"),
        (logits[:, :5], targets, "`logits` has 5 columns"),
        (logits[:3], targets, "5 `targets`"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.update(wrong, labels)
    assert meter.state_dict() == before
    for arguments, message in [((1,), "`vocabulary` is 1"), ((5, 0.5), "`ignore_index` is 0.5")]:
        with pytest.raises(InputError, match=message):
            Text(*arguments)  # type: ignore[arg-type]
    strict = Text(6, None)
    with pytest.raises(InputError, match="`targets` holds -100"):
        strict.update(np.zeros((5, 6)), targets)


def test_perplexity_is_exp_infinite_above_the_clamp_and_nan_for_nan() -> None:
    """Property 38."""
    assert perplexity(2.0) == math.exp(2.0)
    assert perplexity(20.0) == perplexity(math.inf) == math.inf
    assert perplexity(19.999) == math.exp(19.999)
    assert math.isnan(perplexity(math.nan))


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 40)), elements=st.floats(-1e6, 1e6)),
    st.sampled_from([0.0, 1e9]),
)
def test_errors_are_those_of_scikit_learn(pair: Array, offset: float) -> None:
    predictions, targets = pair + offset
    meter = Regression()
    meter.update(predictions, targets)
    result = meter.compute()
    assert result.mae.value == pytest.approx(metrics.mean_absolute_error(targets, predictions), rel=1e-9, abs=1e-9)
    assert result.mse.value == pytest.approx(metrics.mean_squared_error(targets, predictions), rel=1e-9, abs=1e-9)
    assert result.max_error == metrics.max_error(targets, predictions)
    if result.r2 is None:
        assert np.ptp(targets) < 1e-150  # its square is no number any more
    elif np.ptp(targets) > 1e-3:
        reference = metrics.r2_score(targets, predictions)
        assert result.r2.value == pytest.approx(reference, rel=1e-6, abs=1e-6)
        assert result.r2.low <= result.r2.value <= result.r2.high


def test_r2_keeps_its_digits_where_torchmetrics_loses_them() -> None:
    generator = np.random.default_rng(0)
    targets = generator.normal(size=1000)
    predictions = targets + 0.5 * generator.normal(size=1000)
    exact = metrics.r2_score(targets, predictions)
    shift = 2.0**24
    meter = Regression()
    meter.update(predictions + shift, targets + shift)
    ours = meter.compute().r2
    assert ours is not None
    assert ours.value == pytest.approx(exact, abs=1e-7)
    theirs = r2_score(torch.from_numpy(predictions + shift), torch.from_numpy(targets + shift)).item()
    assert abs(theirs - exact) > 1e-3 or abs(theirs - exact) > 100 * abs(ours.value - exact)


def test_intervals_of_errors_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered, trials = dict.fromkeys(("mae", "mse", "rmse", "bias", "r2"), 0), 500
    truth = {"mae": math.sqrt(2 / math.pi), "mse": 1.0, "rmse": 1.0, "bias": 0.0, "r2": 0.75}
    for _ in range(trials):
        targets = 2 * generator.normal(size=300)
        meter = Regression()
        meter.update(targets + generator.normal(size=300), targets)
        result = meter.compute()
        for name, value in truth.items():
            interval = getattr(result, name)
            covered[name] += interval.low <= value <= interval.high
    for name, count in covered.items():
        assert 0.92 <= count / trials <= 0.98, (name, count / trials)


def test_numbers_that_cannot_be_measured_are_refused() -> None:
    meter = Regression()
    good = np.zeros(4)
    bad = np.array([0.0, math.inf, 0.0, 0.0])
    for predictions, targets, message in [
        (good, np.zeros(3), r"`predictions` has shape \(4,\)"),
        (good, np.zeros((4, 1)), "nothing is broadcast"),
        (bad, good, "`predictions` holds inf at place 1"),
        (good, bad * math.nan, "`targets` holds nan at place 0"),
        (good, np.full(4, 1e71), "`targets` holds 1e\\+71"),
        (good > 1, good, "`predictions` has type bool"),
        (torch.zeros(4, requires_grad=True), good, "`predictions` requires grad"),
        (torch.zeros(4, device="meta"), good, "`predictions` is a meta tensor"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.update(predictions, targets)  # type: ignore[arg-type]
    assert meter.samples == 0
    meter.update(torch.ones(4, dtype=torch.bfloat16), good)
    assert meter.compute().r2 is None
    assert meter.compute().mae.value == 1.0


def test_probabilities_say_what_their_logits_say() -> None:
    logits, targets = drawn(400, 5)
    by_logits, by_shares = Classification(5), Calibration(5)
    by_logits.update(logits, targets)
    by_shares.update(softmax(logits), targets)
    ours, theirs = by_shares.compute(), by_logits.compute()
    for name in ("accuracy", "nll", "brier", "top_label_brier", "ece", "mce", "ece_equal_mass"):
        assert getattr(ours, name).value == pytest.approx(getattr(theirs, name).value, abs=1e-9), name


def test_a_binary_probability_and_its_complement_are_symmetric() -> None:
    """A calibrated p = 0.1 has a small error, not 0.81: the confidence is max(p, 1 - p)."""
    generator = np.random.default_rng(0)
    labels = generator.random(20_000) < 0.1
    meter, mirrored = Calibration(), Calibration()
    meter.update(np.full(20_000, 0.1), labels)
    mirrored.update(np.full(20_000, 0.9), ~labels)
    assert meter.compute().ece.value == pytest.approx(mirrored.compute().ece.value, abs=1e-12)
    assert meter.compute().ece.value < 0.01


def test_what_was_called_impossible_has_an_infinite_loss_and_is_counted() -> None:
    meter = Calibration()
    meter.update(np.array([0.0, 1.0, 0.5]), np.array([1, 1, 0]))
    result = meter.compute()
    assert (result.nll.value, result.impossible) == (math.inf, 1)
    assert result.to_dict()["nll"]["value"] is None  # which JSON can hold
    assert sum(one.count for one in result.reliability) == 3


def test_logits_given_as_probabilities_are_told() -> None:
    meter = Calibration(3)
    targets = np.zeros(2, dtype=int)
    for shares, labels, message in [
        (np.array([[2.0, -1.0, 0.0]] * 2), targets, r"`probabilities` holds 2\.0 at \(0, 0\).*`Classification`"),
        (np.full((2, 3), 0.5), targets, "`probabilities` has the sum 1.5 in row 0"),
        (np.full((2, 2), 0.5), targets, r"`probabilities` has shape \(2, 2\)"),
        (np.full((2, 3), math.nan), targets, "`probabilities` holds nan"),
        (np.eye(3, dtype=int)[:2], targets, "`probabilities` has type int64"),
        (np.eye(3)[:2], targets + 3, "`targets` holds 3 in row 0"),
        (np.eye(3)[:2], targets[:1], r"`targets` has shape \(1,\)"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.update(shares, labels)
    assert meter.samples == 0


@settings(max_examples=60)
@given(arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(0.0, 1e60)))
def test_quantiles_of_the_error_are_right_to_a_256th(errors: Array) -> None:
    meter = Regression()
    meter.update(errors, np.zeros(len(errors)))
    for share, found in meter.compute().quantiles.items():
        exact = np.quantile(errors, share, method="inverted_cdf")
        assert found.value == pytest.approx(exact, rel=1 / 256, abs=1e-300)
        assert found.low <= exact <= found.high


def test_the_interval_of_a_quantile_covers_whatever_the_distribution() -> None:
    rng = np.random.default_rng(0)
    held = dict.fromkeys((0.5, 0.9, 0.95), 0)
    for _ in range(400):
        meter = Regression()
        meter.update(rng.exponential(size=150), np.zeros(150))
        found = meter.compute().quantiles
        for share in held:
            held[share] += found[share].low <= -math.log(1.0 - share) <= found[share].high
    assert all(count / 400 >= 0.93 for count in held.values()), held


def test_damaged_counts_of_errors_are_refused() -> None:
    meter = Regression()
    meter.update(np.array([1.0, 2.0]), np.zeros(2))
    state = meter.state_dict()
    one, _, two, _ = state["cells"]
    for cells in ([one, 1], [two, 1, one, 1], [one, 2, two, 0], [one, 1, 1 << 60, 1], [one, -1, two, 3], "ab"):
        with pytest.raises(InputError, match="`cells`"):
            meter.load_state_dict({**state, "cells": cells})
    assert meter.state_dict() == state


@pytest.mark.parametrize("least", [1e-74, 1e-150])
def test_targets_that_hardly_vary_give_an_r2_without_an_end_and_no_error(least: float) -> None:
    meter = Regression()
    meter.update(np.array([7650.0, 0.0]), np.array([least, 0.0]))
    r2 = meter.compute().r2
    assert r2 is not None
    assert r2.value < -1e100
    assert (r2.low, r2.high) == (-np.inf, 1.0)
