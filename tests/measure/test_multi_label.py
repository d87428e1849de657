"""Several labels a row: equal to scikit-learn and torchmetrics, one pass, exact merge, intervals that cover."""

from __future__ import annotations

import copy
import json
import math
import pickle
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, hamming_loss, precision_recall_fscore_support
from torchmetrics.functional.classification import (
    multilabel_exact_match,
    multilabel_f1_score,
    multilabel_hamming_distance,
    multilabel_precision,
    multilabel_recall,
)

from flyball.errors import InputError
from flyball.measure import Estimate, MultiLabel, MultiLabelResult

GOLDEN = tomllib.loads((Path(__file__).parent.parent / "golden" / "multi_label.toml").read_text("utf-8"))["case"]

HOSTILE = st.sampled_from([0.0, -0.0, 1e4, -1e4, 5e-324, -5e-324, 1e-40, 0.5])
CASES = st.tuples(st.integers(1, 12), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.one_of(st.floats(-4, 4, width=32), HOSTILE.map(np.float32))),
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)),
    )
)


def measured(logits: Any, targets: Any, **arguments: Any) -> MultiLabelResult:
    meter = MultiLabel(np.shape(logits)[1], **arguments)
    meter.update(logits, targets)
    return meter.compute()


def value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


@given(CASES)
def test_every_number_is_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = case
    said, found = (logits > 0).astype(int), measured(logits, targets)
    assert found.subset_accuracy.value == pytest.approx(accuracy_score(targets, said))
    assert found.hamming_loss.value == pytest.approx(hamming_loss(targets, said))
    seen = np.flatnonzero((targets | said).any(axis=0))
    for name in ("micro", "macro", "weighted", "samples") if len(seen) else ():
        # A label that is nowhere has no F1; scikit-learn counts it as 0, unless it is left out.
        precision, recall, f1, _ = precision_recall_fscore_support(
            targets, said, average=name, labels=None if name == "samples" else seen, zero_division=0
        )
        assert (value(getattr(found, f"{name}_f1")) or 0.0) == pytest.approx(f1)
        assert (value(getattr(found, f"{name}_precision")) or 0.0) == pytest.approx(precision)
        if name != "macro":  # ours is the mean of those that are defined
            assert (value(getattr(found, f"{name}_recall")) or 0.0) == pytest.approx(recall)
    assert found.macro_recall is None or found.macro_recall.value == pytest.approx(
        np.mean([one.value for one in found.recall if one is not None])
    )


@settings(max_examples=40)
@given(CASES)
def test_every_number_is_torchmetrics(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = torch.from_numpy(case[0]), torch.from_numpy(case[1]).long()
    found, labels = measured(logits, targets), logits.shape[1]
    said = (logits > 0).int()  # torchmetrics takes a sigmoid only if some logit is outside 0 to 1
    rivals = {
        "micro_f1": multilabel_f1_score, "micro_precision": multilabel_precision, "micro_recall": multilabel_recall
    }  # fmt: skip
    for name, rival in rivals.items():
        theirs = float(rival(said, targets, num_labels=labels, average="micro"))
        assert (value(getattr(found, name)) or 0.0) == pytest.approx(theirs, abs=1e-6)
        each = rival(said, targets, num_labels=labels, average=None).reshape(-1).tolist()
        ours = [value(one) or 0.0 for one in getattr(found, name.removeprefix("micro_"))]
        assert ours == pytest.approx(each, abs=1e-6)
    exact = float(multilabel_exact_match(said, targets, num_labels=labels))
    wrong = float(multilabel_hamming_distance(said, targets, num_labels=labels))
    assert (found.subset_accuracy.value, found.hamming_loss.value) == pytest.approx((exact, wrong), abs=1e-6)


def test_logits_between_0_and_1_are_logits() -> None:
    """torchmetrics takes them for probabilities, and finds half of these labels missing."""
    logits, targets = torch.tensor([[0.3, 0.9]]), torch.tensor([[1, 1]])
    assert float(multilabel_recall(logits, targets, num_labels=2, average="micro")) == 0.5
    assert (
        measured(logits, targets).micro_recall == measured([[3.0, 9.0]] @ np.eye(2), [[1, 1]] @ np.eye(2)).micro_recall
    )


@given(CASES, st.randoms(use_true_random=False))
def test_neither_partition_nor_order_nor_type_changes_a_bit(case: tuple[np.ndarray, np.ndarray], chance: Any) -> None:
    logits, targets = case
    whole = MultiLabel(logits.shape[1])
    whole.update(logits, targets)
    order = list(range(len(logits)))
    chance.shuffle(order)
    cut = chance.randint(0, len(order))
    parts = [MultiLabel(logits.shape[1]), MultiLabel(logits.shape[1])]
    kinds: tuple[Any, ...] = (bool, np.int32, np.float64)
    for meter, rows in zip(parts, (order[:cut], order[cut:]), strict=True):
        for row in rows:
            meter.update(
                np.asfortranarray(logits[[row]].astype(np.float64)), targets[[row]].astype(chance.choice(kinds))
            )
    parts[1].merge(parts[0])
    assert parts[1].state_dict() == whole.state_dict()
    assert parts[1].compute() == whole.compute()
    again = pickle.loads(pickle.dumps(whole))  # noqa: S301 -- our own
    assert again.state_dict() == json.loads(json.dumps(whole.state_dict())) == copy.deepcopy(whole).state_dict()


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
@pytest.mark.parametrize("backend", ["numpy", "torch", "bfloat16"])
def test_golden_cases(case: dict[str, Any], backend: str) -> None:
    shape = (-1, case["labels"])
    logits: Any = np.array(case["logits"]).reshape(shape)
    targets: Any = np.array(case["targets"], dtype=np.int64).reshape(shape)
    if backend != "numpy":
        logits, targets = torch.from_numpy(logits), torch.from_numpy(targets).bool()
        logits = logits.bfloat16() if backend == "bfloat16" else logits
    meter = MultiLabel(case["labels"], case.get("threshold", 0.0))
    meter.update(logits, targets)
    if not len(targets):
        with pytest.raises(InputError, match="0 samples"):
            meter.compute()
        return
    found = meter.compute()
    for name in (
        "subset_accuracy",
        "hamming_loss",
        "micro_precision",
        "micro_recall",
        "micro_f1",
        "macro_f1",
        "samples_f1",
    ):
        expected = case.get(name)
        ours = value(getattr(found, name))
        assert ours == (None if expected is None else pytest.approx(expected, abs=1e-15)), name
    assert [*found.positives, *found.predicted, *found.hits] == case["counts"]


def test_intervals_cover_as_often_as_they_say_also_where_labels_err_together() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        hard = rng.normal(size=(n, 1))  # what makes a row hard makes all its labels hard
        targets = rng.random((n, 6)) < 0.3
        return (2.0 * targets - 1.0) * 0.8 + 0.7 * hard + rng.normal(size=(n, 6)), targets

    truth = measured(*draw(400_000))
    names = (
        "subset_accuracy", "hamming_loss", "micro_precision", "micro_recall", "micro_f1", "macro_f1", "samples_f1",
        "weighted_f1", "macro_precision", "macro_recall", "samples_recall",
    )  # fmt: skip
    held = dict.fromkeys(names, 0)
    for _ in range(400):
        found = measured(*draw(120))
        for name in names:
            number = getattr(found, name)
            held[name] += number.low <= getattr(truth, name).value <= number.high
    shares = {name: count / 400 for name, count in held.items()}
    conservative = {name for name in names if name.startswith(("macro", "weighted"))}
    assert all(share >= 0.92 for share in shares.values()), shares
    assert all(share <= 0.98 for name, share in shares.items() if name not in conservative), shares


def test_what_is_all_right_is_not_certain() -> None:
    found = measured(np.array([[5.0, -5.0]] * 9), np.array([[1, 0]] * 9))
    for name in ("subset_accuracy", "micro_f1", "micro_recall", "samples_f1"):
        number = getattr(found, name)
        assert number.value == number.high == 1.0
        assert 0.5 < number.low < 0.75  # nine rows, not eighteen flags
    assert found.hamming_loss.low == 0.0
    assert found.hamming_loss.high == pytest.approx(1.0 - found.subset_accuracy.low)


def test_rows_that_are_not_finite_refuse_their_batch_or_are_counted() -> None:
    logits = np.array([[1.0, math.nan], [1.0, 2.0]], dtype=np.float32)
    targets = np.array([[1, 1], [1, 0]])
    meter = MultiLabel(2)
    before = meter.state_dict()
    with pytest.raises(InputError, match="`logits` holds NaN in row 0, column 1"):
        meter.update(logits, targets)
    assert meter.state_dict() == before
    counting = MultiLabel(2, nonfinite="count")
    counting.update(logits, targets)
    assert (counting.samples, counting.left_out) == (1, 1)
    assert counting.compute().left_out == 1
    only = MultiLabel(2, nonfinite="count")
    only.update(logits[:1], targets[:1])
    with pytest.raises(InputError, match="1 rows were left out"):
        only.compute()


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((2, 2)), np.array([[0, 2], [0, 0]]), "`targets` holds 2 in row 0, column 1"),
        (np.zeros((2, 2)), np.array([[0, 0], [-1, 0]]), "`targets` holds -1 in row 1, column 0"),
        (np.zeros((2, 2)), np.array([[0, 255], [0, 0]], dtype=np.uint8), "`targets` holds 255 in row 0, column 1"),
        (np.zeros((2, 2)), np.zeros((2, 3), dtype=np.int64), "`targets` [2, 3], but the meter has 2 labels"),
        (np.zeros((2, 3)), np.zeros((2, 3), dtype=np.int64), "the meter has 2 labels"),
        (np.zeros((2, 2)), np.zeros(2, dtype=np.int64), r"`targets` has shape \(2,\)"),
        (np.zeros((2, 2)), np.full((2, 2), 0.5), "`targets` has type float64"),
        (np.zeros((2, 2), dtype=np.int64), np.zeros((2, 2), dtype=np.int64), "`logits` has type int64"),
        (torch.zeros(2, 2, requires_grad=True), np.zeros((2, 2), dtype=np.int64), "`logits` requires grad"),
        (torch.zeros(2, 2, device="meta"), np.zeros((2, 2), dtype=np.int64), "meta tensor"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_named_and_changes_nothing(logits: Any, targets: Any, message: str) -> None:
    meter = MultiLabel(2)
    meter.update(np.ones((1, 2)), np.ones((1, 2), dtype=np.int64))
    before = meter.state_dict()
    with pytest.raises(InputError, match=message.replace("[", r"\[").replace("]", r"\]")):
        meter.update(logits, targets)
    assert meter.state_dict() == before


def test_arguments_states_and_other_meters_that_do_not_fit_are_named() -> None:
    for arguments, message in (
        ((0,), "`labels` is 0"),
        ((2, math.nan), "`threshold` is NaN"),
        ((2, "0"), "`threshold`"),
    ):
        with pytest.raises(InputError, match=message):
            MultiLabel(*arguments)
    meter = MultiLabel(2)
    with pytest.raises(InputError, match="`other` has threshold 1, but this meter has 0"):
        meter.merge(MultiLabel(2, 1.0))
    with pytest.raises(InputError, match="`threshold` of the state is 1"):
        meter.load_state_dict(MultiLabel(2, 1.0).state_dict())
    damaged = meter.state_dict()
    damaged["counts"][0] = -1
    with pytest.raises(InputError, match="holds -1"):
        meter.load_state_dict(damaged)
    damaged["counts"] = "counts"
    with pytest.raises(InputError, match="`state` holds something else"):
        meter.load_state_dict(damaged)


def test_the_table_names_rivals_and_the_result_is_plain_data() -> None:
    found = measured(np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]), np.array([[1, 0], [0, 1], [0, 0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = str(found)
    assert "always the commoner answer: 0.3333" in text
    assert "1 rows have no label and get none" in text
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["empty"] == 1
    assert "for each label" in str(measured(np.zeros((2, 30)), np.zeros((2, 30), dtype=np.int64)))
