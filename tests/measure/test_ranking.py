"""The ranking meter: exact while it is small, bounded for ever, and right where others are not."""

from __future__ import annotations

import copy
import json
import math
import pickle
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics
from torchmetrics.functional.classification import binary_auroc

from flyball.errors import InputError
from flyball.measure import Ranking, RankingResult

Array = np.ndarray[Any, Any]
GOLDEN = tomllib.loads((Path(__file__).parent.parent / "golden" / "ranking.toml").read_text("utf-8"))["case"]


def measured(scores: Any, labels: Any, *arguments: Any) -> RankingResult:
    meter = Ranking(*arguments)
    meter.update(scores, labels)
    return meter.compute()


def drawn(rows: int, seed: int = 0, shift: float = 1.0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=rows)
    return (generator.normal(size=rows) + shift * labels).astype("f4"), labels


@st.composite
def binary(draw: st.DrawFn) -> tuple[Array, Array]:
    rows = draw(st.integers(2, 60))
    values = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([-1e4, 0.0, -0.0, 1.0, 1e4, 1e-40]))
    scores = draw(arrays.arrays(np.float64, rows, elements=values))
    labels = draw(arrays.arrays(np.int64, rows, elements=st.integers(0, 1)))
    labels[:2] = [0, 1]
    return scores, labels


@settings(max_examples=100, deadline=None)
@given(binary())
def test_small_data_give_what_scikit_learn_gives(data: tuple[Array, Array]) -> None:
    scores, labels = data
    result = measured(scores, labels)
    assert result.auroc is not None
    assert result.average_precision is not None
    assert result.auroc.value == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert result.average_precision.value == pytest.approx(metrics.average_precision_score(labels, scores), abs=1e-12)
    assert result.auroc_bound == result.average_precision_bound == 0.0
    for number in (result.auroc, result.average_precision):
        assert 0.0 <= number.low <= number.value <= number.high <= 1.0
    assert result.prevalence == pytest.approx(labels.mean())


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden_cases(case: dict[str, Any], backend: str) -> None:
    scores, labels = np.array(case["scores"]), np.array(case["labels"])
    if backend == "torch":
        result = measured(torch.from_numpy(scores), torch.from_numpy(labels), 1, case["scale"])
    else:
        result = measured(scores, labels, 1, case["scale"])
    for name in ("auroc", "average_precision"):
        number = getattr(result, name)
        if name not in case:
            assert number is None
        else:
            assert number.value == pytest.approx(case[name], abs=1e-15)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-4])
def test_a_million_scores_are_within_the_bound_and_a_millionth(scale: float) -> None:
    """The bound is proven; that the error is far smaller is luck that random data nearly always have."""
    scores, labels = drawn(1_000_000)
    result = measured(scores * np.float32(scale), labels)
    assert result.auroc is not None
    assert result.average_precision is not None
    error = abs(result.auroc.value - metrics.roc_auc_score(labels, scores))
    assert error <= result.auroc_bound
    precision_error = abs(result.average_precision.value - metrics.average_precision_score(labels, scores))
    assert precision_error <= result.average_precision_bound
    if scale == 1.0:
        assert error <= 1e-6
        assert 0 < result.auroc_bound < 1e-6
        assert result.average_precision_bound < 1e-5
    else:
        assert result.auroc_bound > 1e-5  # a logit of a thousand, or a ten-thousandth, is said to be off the grid


def test_saturated_probabilities_are_ranked_where_bins_of_torchmetrics_see_ties() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=200_000)
    logits = generator.normal(size=200_000) + labels + 12.0
    probabilities = 1.0 / (1.0 + np.exp(-logits))
    exact = metrics.roc_auc_score(labels, logits)
    ours = measured(probabilities, labels, 1, "probabilities").auroc
    theirs = binary_auroc(torch.from_numpy(probabilities), torch.from_numpy(labels), thresholds=200).item()
    assert ours is not None
    assert ours.value == pytest.approx(exact, abs=1e-6)
    assert theirs == pytest.approx(0.5, abs=1e-3)
    assert exact > 0.75


def test_one_column_two_columns_and_a_flat_array_are_the_same() -> None:
    logits, labels = drawn(500)
    pair = np.stack([np.ones_like(logits), logits + 1], axis=1)
    expected = measured(logits, labels).auroc
    assert expected is not None
    assert measured(logits[:, None], labels[:, None]).auroc == expected
    assert measured(torch.from_numpy(logits), torch.from_numpy(labels > 0)).auroc == expected
    by_pair = measured(pair, labels).auroc
    assert by_pair is not None
    assert by_pair.value == pytest.approx(expected.value, abs=1e-5)
    shares = np.exp(pair.astype("f8")) / np.exp(pair.astype("f8")).sum(axis=1, keepdims=True)
    by_share = measured(shares, labels, 1, "probabilities").auroc
    assert by_share is not None
    assert by_share.value == pytest.approx(expected.value, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_strides_change_nothing(dtype: torch.dtype) -> None:
    scores = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    classes = torch.arange(60) % 4
    expected = measured(scores.double(), classes, 4)
    assert measured(scores, classes, 4) == expected
    assert measured(scores.T.contiguous().T, classes.repeat_interleave(2)[::2], 4) == expected
    flags = torch.nn.functional.one_hot(classes, 4)
    assert measured(scores, flags, 4) == measured(scores, flags.bool(), 4) == expected


def test_classes_are_ranked_against_the_rest_and_absent_ones_are_listed() -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(300, 5))
    labels = generator.integers(4, size=300)
    scores[np.arange(300), labels] += 1
    result = measured(scores, labels, 5)
    assert result.absent == (4,)
    assert result.per_class[4].auroc is result.per_class[4].average_precision is None
    expected = [metrics.roc_auc_score(labels == c, scores[:, c]) for c in range(4)]
    assert result.auroc is not None
    assert result.auroc.value == pytest.approx(np.mean(expected))
    for one, value in zip(result.per_class, expected, strict=False):
        assert one.auroc is not None
        assert one.auroc.value == pytest.approx(value)
    assert "without positives or negatives: 4" in str(result)
    plain = result.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@pytest.mark.parametrize("rows", [500, 20_000])
def test_shards_in_any_order_are_equal_to_the_last_bit(rows: int) -> None:
    """Property: partition and permutation never change a result, small or large."""
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(rows, 4)).astype("f4"), generator.integers(4, size=rows)
    whole = Ranking(4)
    whole.update(scores, labels)
    order = generator.permutation(rows)
    merged = Ranking(4)
    for part in np.array_split(order, 16):
        shard = Ranking(4)
        shard.update(scores[part], labels[part])
        merged.merge(shard)
    assert merged.state_dict() == whole.state_dict()
    assert merged.compute() == whole.compute()
    loaded = Ranking(4)
    loaded.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for other in (loaded, pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)):  # noqa: S301 - its own pickle
        assert other.state_dict() == whole.state_dict()


def test_the_state_does_not_grow_with_the_samples() -> None:
    meter = Ranking()
    sizes = []
    for seed in range(4):
        scores, labels = drawn(200_000, seed)
        meter.update(scores / 1000, labels)  # so close that their cells fill
        sizes.append(len(pickle.dumps(meter.state_dict()["scores"])))
    assert max(sizes) < 3 * 2**14 * 9
    assert sizes[3] < 1.3 * sizes[0]  # larger counts, not more of them


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = 0.5 * (1 + math.erf(1 / 2))  # of two normal distributions one apart
    precision = measured(*drawn(2_000_000, 99)).average_precision
    assert precision is not None
    covered, trials = {"auroc": 0, "average_precision": 0}, 600
    for trial in range(trials):
        result = measured(*drawn(120, 1000 + trial))
        assert result.auroc is not None
        assert result.average_precision is not None
        covered["auroc"] += result.auroc.low <= truth <= result.auroc.high
        number = result.average_precision
        covered["average_precision"] += number.low <= precision.value <= number.high
    assert 0.93 <= covered["auroc"] / trials <= 0.97
    assert 0.92 <= covered["average_precision"] / trials <= 0.99


def test_a_perfect_ranking_of_few_is_not_certain() -> None:
    for labels, value in (([0, 0, 1, 1, 1], 1.0), ([1, 1, 0, 0, 0], 0.0)):
        number = measured(np.arange(5.0), np.array(labels)).auroc
        assert number is not None
        assert number.value == value
        assert number.high - number.low == pytest.approx(1 - 0.025**0.5)
    lone = measured(np.array([0.0, 2.0, 1.0]), np.array([0, 0, 1])).auroc
    assert lone is not None
    assert (lone.low, lone.value, lone.high) == (0.0, 0.5, 1.0)


SCORES, LABELS = drawn(8)

REFUSED: dict[str, tuple[Any, Any, tuple[Any, ...], str]] = {
    "nan": (np.where(np.arange(8) == 3, np.nan, SCORES), LABELS, (), "`scores` holds NaN in row 3, column 0.*finite"),
    "logits as probabilities": (
        SCORES * 0 + 1.5, LABELS, (1, "probabilities"), "`scores` holds 1.5 in row 0.*between 0 and 1"
    ),
    "label": (SCORES, LABELS + 1, (), "`labels` holds 2 at place"),
    "float labels": (SCORES, LABELS * 0.5, (), "`labels` has type float64"),
    "class": (np.zeros((8, 3)), np.full(8, 3), (3,), "`labels` holds 3 at place 0: a label must be between 0 and 2"),
    "rows": (SCORES[:7], LABELS, (), "`scores` has 7 rows and 1 columns, which do not fit"),
    "columns": (np.zeros((8, 3)), LABELS, (), "`scores` has 8 rows and 3 columns"),
    "dimensions": (np.zeros((8, 3, 1)), LABELS, (3,), r"`scores` has shape \(8, 3, 1\)"),
    "label dimensions": (SCORES, LABELS[:, None, None], (), r"`labels` has shape \(8, 1, 1\)"),
    "meta": (torch.zeros(8, device="meta"), LABELS, (), "`scores` is a meta tensor"),
    "requires grad": (torch.zeros(8, requires_grad=True), LABELS, (), "`scores` requires grad"),
}  # fmt: skip


@pytest.mark.parametrize(("scores", "labels", "arguments", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_batch_is_explained_and_changes_nothing(
    scores: Any, labels: Any, arguments: tuple[Any, ...], message: str
) -> None:
    meter = Ranking(*arguments)
    before = meter.state_dict()
    with pytest.raises(InputError, match=message):
        meter.update(scores, labels)
    assert meter.state_dict() == before
    with pytest.raises(InputError, match="0 samples"):
        meter.compute()


def test_rows_that_are_not_finite_can_be_counted() -> None:
    meter = Ranking(nonfinite="count")
    meter.update(np.where(np.arange(8) == 3, np.inf, SCORES), LABELS)
    kept = np.arange(8) != 3
    assert (meter.samples, meter.left_out) == (7, 1)
    assert meter.compute().auroc == measured(SCORES[kept], LABELS[kept]).auroc
    assert "1 left out" in str(meter.compute())


def test_meters_made_differently_and_damaged_states_are_refused() -> None:
    meter = Ranking()
    meter.update(SCORES, LABELS)
    state = meter.state_dict()
    for other, message in [
        (Ranking(2), "`other` has columns 2"),
        (Ranking(1, "probabilities"), "`other` has scale Probabilities"),
        ({}, "`other` is a dict"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.merge(other)  # type: ignore[arg-type]
    for damage, message in [
        ({"scores": [9, *state["scores"][1:]]}, "`scores` of the state does not count every row"),
        ({"scores": state["scores"][:-1]}, "`scores` of the state has a length"),
        ({"scores": [0.5]}, "something else than ints"),
        ({"classes": 2}, "`scores` of the state does not count"),
        ({"version": 9}, "`version` of the state is 9"),
    ]:
        with pytest.raises(InputError, match=message):
            meter.load_state_dict({**state, **damage})
    with pytest.raises(InputError, match="`probabilities` of the state is True"):
        meter.load_state_dict(Ranking(1, "probabilities").state_dict())
    assert meter.state_dict() == state
    with pytest.raises(InputError, match="`classes` is 0"):
        Ranking(0)
    with pytest.raises(InputError, match="`scores` is 'odds'"):
        Ranking(1, "odds")  # type: ignore[arg-type]


def test_labels_may_be_the_floats_that_a_binary_loss_wants() -> None:
    meter, other = Ranking(), Ranking()
    meter.update(SCORES, LABELS)
    other.update(SCORES, LABELS.astype(np.float32))
    assert meter.compute() == other.compute()
