"""The classification meter, seen from Python: one pass, exact merges, nothing unknown reported."""

from __future__ import annotations

import copy
import json
import math
import pickle
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flyball.errors import FlyballError, InputError
from flyball.measure import Classification
from flyball.measure.tensors import outcomes

GOLDEN = tomllib.loads((Path(__file__).parent.parent / "golden" / "classification.toml").read_text("utf-8"))["case"]

Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def drawn(rows: int, classes: int, seed: int = 0, dtype: str = "float32") -> Batch:
    """Logits that are right more often than not, and all distinct in practice."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(classes, size=rows)
    logits = generator.normal(size=(rows, classes)) * 2
    logits[np.arange(rows), targets] += 2
    return logits.astype(dtype), targets


def measured(batch: Batch, classes: int, topk: tuple[int, ...] = (1,)) -> Classification:
    meter = Classification(classes, topk)
    meter.update(*batch)
    return meter


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    classes = draw(st.integers(2, 40))
    rows = draw(st.integers(1, 12))
    values = st.one_of(st.floats(-30, 30, width=32), st.sampled_from([-1e30, -1e4, 0.0, -0.0, 1.0, 1e4, 1e30]))
    logits = draw(arrays.arrays(np.float64, (rows, classes), elements=values))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    targets = draw(arrays.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return logits.astype(dtype), targets


def naive(logits: np.ndarray[Any, Any], target: int) -> tuple[list[int], float]:
    """The order of the classes and the loss, by sorting and plain loops in double precision."""
    row = [float(x) for x in logits]
    order = sorted(range(len(row)), key=lambda index: -row[index])
    top = row[order[0]]
    others = math.fsum(math.exp(row[index] - top) for index in order[1:])
    return order, top - row[target] + math.log1p(others)


@settings(max_examples=100, deadline=None)
@given(batches())
def test_counts_and_loss_are_those_of_a_naive_oracle(batch: Batch) -> None:
    logits, targets = batch
    rows, classes = logits.shape
    ks = tuple(sorted({1, (classes + 1) // 2, classes}))
    result = measured(batch, classes, ks).compute()
    confusion = np.zeros((classes, classes), dtype=np.int64)
    losses, hits = [], dict.fromkeys(ks, 0)
    for row, target in zip(logits, targets, strict=True):
        order, loss = naive(row, target)
        assert order[0] == row.argmax()
        confusion[target, order[0]] += 1
        losses.append(loss)
        for k in ks:
            hits[k] += target in order[:k]
    np.testing.assert_array_equal(result.confusion, confusion)
    assert {k: rate.value for k, rate in result.topk.items()} == {k: hits[k] / rows for k in ks}
    assert result.topk[1] == result.accuracy
    tolerance = 2e-6 if logits.dtype == np.float32 else 1e-12
    assert result.nll.value == pytest.approx(math.fsum(losses) / rows, rel=1e-12, abs=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden_cases(case: dict[str, Any], dtype: str) -> None:
    logits = np.array(case["logits"], dtype=dtype)
    meter = measured((logits, np.array(case["targets"])), case["classes"], tuple(case["topk"]))
    state = meter.state_dict()
    confusion = np.array(state["confusion"]).reshape(case["classes"], case["classes"])
    cells = [[int(i), int(j), int(confusion[i, j])] for i, j in np.argwhere(confusion)]
    assert cells == case["confusion"]
    assert state["hits"] == case["hits"]
    total = meter.compute().nll.value * meter.samples
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    assert abs(total - case["nll"]) <= tolerance * (1 + case["nll"])


def test_one_pass_and_64_random_shards_are_equal_to_the_last_bit() -> None:
    logits, targets = drawn(1000, 7)
    whole = measured((logits, targets), 7, (1, 3))
    generator = np.random.default_rng(1)
    cuts = np.sort(generator.integers(0, 1001, size=63))
    order = generator.permutation(1000)
    merged = Classification(7, (1, 3))
    for index in generator.permutation(64):
        rows = np.split(order, cuts)[index]
        merged.merge(measured((logits[rows], targets[rows]), 7, (1, 3)))
    assert merged.state_dict() == whole.state_dict()
    assert merged.compute().to_dict() == whole.compute().to_dict()


def test_the_sum_of_the_losses_is_the_exact_one() -> None:
    logits, targets = drawn(500, 5, dtype="float64")
    singles = [measured((logits[[i]], targets[[i]]), 5).compute().nll.value for i in range(500)]
    assert measured((logits, targets), 5).compute().nll.value == math.fsum(singles) / 500


def test_merging_a_meter_into_itself_doubles_every_count() -> None:
    meter = measured(drawn(50, 3), 3)
    twice = measured(drawn(50, 3), 3)
    twice.update(*drawn(50, 3))
    meter.merge(meter)
    assert meter.state_dict() == twice.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_what_torch_computes(dtype: torch.dtype) -> None:
    logits, targets = (torch.from_numpy(array) for array in drawn(400, 20))
    logits = logits.to(dtype)
    meter = Classification(20, topk=(1, 2, 5))
    meter.update(logits, targets)
    result = meter.compute()
    for k in (1, 2, 5):
        hit = (logits.topk(k).indices == targets[:, None]).any(1)
        assert result.topk[k].value == pytest.approx(hit.double().mean().item(), abs=1e-15)
    loss = torch.nn.functional.cross_entropy(logits.double(), targets).item()
    assert result.nll.value == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_targets_of_every_integer_width_are_the_same(dtype: str) -> None:
    logits, targets = drawn(30, 4)
    expected = measured((logits, targets), 4).state_dict()
    assert measured((logits, targets.astype(dtype)), 4).state_dict() == expected


def test_memory_layout_changes_nothing() -> None:
    logits, targets = drawn(40, 6)
    expected = measured((logits, targets), 6).state_dict()
    wide = np.zeros((40, 12), dtype=np.float32)
    wide[:, ::2] = logits
    packed = np.zeros(40, dtype=[("pad", "u1"), ("logits", "f4", (6,))])
    packed["logits"] = logits
    misaligned = np.frombuffer(b"\0" + logits.tobytes(), dtype=np.uint8)[1:].view("f4")
    layouts = [
        np.asfortranarray(logits),
        wide[:, ::2],
        packed["logits"],
        misaligned.reshape(40, 6),
        logits[::-1][::-1],
        logits.view(np.recarray),
    ]
    for layout in layouts:
        assert measured((layout, targets), 6).state_dict() == expected
    strided = np.repeat(targets, 2)[::2]
    assert measured((logits, strided), 6).state_dict() == expected
    frozen = logits.copy()
    frozen.flags.writeable = False
    assert measured((frozen, targets), 6).state_dict() == expected
    square, square_targets = drawn(6, 6)
    turned = measured((square.T.copy().T, square_targets), 6)
    assert turned.state_dict() == measured((square, square_targets), 6).state_dict()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [3, 50])
def test_halves_of_any_strides_are_what_their_float32_is(dtype: torch.dtype, classes: int) -> None:
    logits, targets = (torch.from_numpy(array) for array in drawn(40, classes))
    logits = logits.to(dtype)
    logits[0, 0] = 2.0**-24  # subnormal in float16
    expected = measured((logits.float().numpy(), targets.numpy()), classes).state_dict()
    for layout in (logits, logits.T.contiguous().T, logits.repeat(1, 2)[:, :classes], logits.flip(0).flip(0)):
        meter = Classification(classes, (1,))
        meter.update(layout, targets)
        assert meter.state_dict() == expected
    if dtype == torch.float16:
        assert measured((logits.numpy(), targets.numpy()), classes).state_dict() == expected


def test_rows_that_are_not_finite_can_be_counted_instead_of_refused() -> None:
    logits, targets = drawn(30, 4)
    bad = logits.copy()
    bad[[3, 7, 20], [0, 3, 1]] = [math.nan, math.inf, -math.inf]
    meter = Classification(4, nonfinite="count")
    meter.update(bad, targets)
    kept = np.isfinite(bad).all(axis=1)
    assert meter.state_dict() == {**measured((logits[kept], targets[kept]), 4).state_dict(), "left_out": 3}
    assert (meter.samples, meter.left_out, meter.compute().left_out) == (27, 3, 3)
    assert "27 samples, 3 left out as not finite" in str(meter.compute())
    meter.merge(meter)
    assert meter.left_out == 6
    again = pickle.loads(pickle.dumps(meter))  # noqa: S301 - its own pickle
    again.update(bad, targets)
    assert again.left_out == 9
    with pytest.raises(InputError, match="`targets` holds 4 in row 3"):
        meter.update(bad, np.where(np.arange(30) == 3, 4, targets))
    only = Classification(4, nonfinite="count")
    only.update(np.full((2, 4), math.nan), targets[:2])
    with pytest.raises(InputError, match=r"0 samples.*2 rows were left out"):
        only.compute()


@settings(max_examples=60, deadline=None)
@given(batches())
def test_what_torch_computes_on_a_device_is_what_rust_computes(batch: Batch) -> None:
    logits, targets = (torch.from_numpy(array) for array in batch)
    classes = logits.shape[1]
    here = Classification(classes, tuple(range(1, classes + 1)))
    here.update(logits, targets)
    there = Classification(classes, tuple(range(1, classes + 1)))
    there._native.update_outcomes(*outcomes(logits, targets, classes, leave_out=False))
    ours, theirs = here.compute(), there.compute()
    np.testing.assert_array_equal(ours.confusion, theirs.confusion)
    assert ours.topk == theirs.topk
    for name in ("nll", "brier", "top_label_brier"):
        value = getattr(theirs, name).value
        assert getattr(ours, name).value == pytest.approx(value, rel=1e-6, abs=2e-6), name


def test_the_torch_path_refuses_and_counts_as_the_other_does() -> None:
    logits, targets = (torch.from_numpy(array) for array in drawn(8, 3))
    logits[5, 2] = math.nan
    with pytest.raises(InputError, match="`logits` holds nan in row 5, column 2"):
        outcomes(logits, targets, 3, leave_out=False)
    whole, real, left_out = outcomes(logits, targets, 3, leave_out=True)
    assert (len(whole), len(real), left_out) == (7, 7, 1)
    for wrong, message in [
        (targets.float(), "`targets` has type torch.float32"),
        (targets[:7], r"`targets` has shape \(7,\)"),
        (targets + 3, "`targets` holds .* with 3 classes"),
        ([0] * 8, "`targets` is a list"),
    ]:
        with pytest.raises(InputError, match=message):
            outcomes(logits, wrong, 3, leave_out=True)
    for bad, message in [
        (logits.requires_grad_(), "`logits` requires grad"),
        (logits.detach()[0], r"`logits` has shape \(3,\)"),
        (logits.detach().long(), "`logits` has type torch.int64"),
    ]:
        with pytest.raises(InputError, match=message):
            outcomes(bad, targets, 3, leave_out=True)
    meter = Classification(3)
    for row, column, value in [(0, 0, 3), (1, 1, -1), (2, 2, 1)]:
        broken = whole.copy()
        broken[row, column] = value if column < 2 else (broken[row, 2] == 0)
        with pytest.raises(InputError, match=f"`outcomes` holds in row {row} what no row"):
            meter._native.update_outcomes(broken, real, 0)
    with pytest.raises(InputError, match="`outcomes` are not rows of three columns"):
        meter._native.update_outcomes(whole, real[:6], 0)
    assert meter.samples == 0


class Grown(torch.Tensor):
    """A tensor type that lives outside torch."""


def test_a_subclass_of_tensor_is_a_tensor() -> None:
    logits, targets = drawn(10, 3)
    subclassed = torch.from_numpy(logits).as_subclass(Grown)
    meter = Classification(3)
    meter.update(subclassed, torch.from_numpy(targets))
    assert meter.state_dict() == measured((logits, targets), 3).state_dict()


LOGITS, TARGETS = drawn(8, 3)


def broken(row: int, column: int, value: float) -> np.ndarray[Any, Any]:
    logits = LOGITS.copy()
    logits[row, column] = value
    return logits


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "requires grad": (
        torch.zeros(8, 3, requires_grad=True), TARGETS, r"`logits` requires grad.*`\.detach\(\)`"
    ),
    "meta": (torch.zeros(8, 3, device="meta"), TARGETS, "`logits` is a meta tensor.*real forward"),
    "bfloat16 that requires grad": (
        torch.zeros(8, 3, dtype=torch.bfloat16, requires_grad=True), TARGETS, r"`logits` requires grad"
    ),
    "bfloat16 on meta": (
        torch.zeros(8, 3, dtype=torch.bfloat16, device="meta"), TARGETS, "`logits` is a meta tensor"
    ),
    "eight bits": (
        torch.zeros(8, 3).to(torch.float8_e4m3fn), TARGETS, r"`logits` has type torch.float8_e4m3fn.*`\.float\(\)`"
    ),
    "byte order of halves": (LOGITS.astype(">f2"), TARGETS, "`logits` has type >f2.*native byte order"),
    "sparse": (torch.zeros(8, 3).to_sparse(), TARGETS, r"`logits` has the layout torch.sparse_coo.*`\.to_dense\(\)`"),
    "negated view": (
        torch.zeros(8, 3, dtype=torch.complex64).conj().imag, TARGETS, r"`logits` is a view.*`\.resolve_neg\(\)`"
    ),
    "integer logits": (LOGITS.astype("int64"), TARGETS, "`logits` has type int64.*float32"),
    "byte order": (LOGITS.astype(">f4"), TARGETS, "`logits` has type >f4.*native byte order"),
    "list": (LOGITS.tolist(), TARGETS, "`logits` is a list: pass a NumPy array"),
    "masked": (np.ma.masked_array(LOGITS), TARGETS, "`logits` is a masked array.*leave out"),
    "one dimension": (LOGITS[0], TARGETS[:1], r"`logits` has shape \(3,\).*a row for each sample"),
    "three dimensions": (LOGITS[None], TARGETS, r"`logits` has shape \(1, 8, 3\).*classes last"),
    "columns": (LOGITS[:, :2].copy(), TARGETS, "`logits` has 2 columns.*3 classes"),
    "turned": (np.zeros((3, 8), "f4"), TARGETS, "`logits` has 8 columns.*3 classes"),
    "rows": (LOGITS[:7], TARGETS, "`logits` has 7 rows, but `targets` has 8 values"),
    "no targets": (LOGITS, TARGETS[:0], "`logits` has 8 rows, but `targets` has 0 values"),
    "bool targets": (LOGITS, TARGETS > 1, r"`targets` has type bool.*`\.long\(\)`"),
    "float targets": (LOGITS, TARGETS * 1.0, r"`targets` has type float64.*`\.long\(\)`"),
    "uint64 targets": (LOGITS, TARGETS.astype("u8"), "`targets` has type uint64.*signed"),
    "one-hot targets": (LOGITS, np.eye(3)[TARGETS], r"`targets` has shape \(8, 3\).*argmax\(1\)"),
    "target too large": (
        LOGITS, np.where(np.arange(8) == 5, 3, TARGETS), "`targets` holds 3 in row 5: with 3 classes"
    ),
    "ignored target": (LOGITS, np.full(8, -100), "`targets` holds -100 in row 0.*leave out rows"),
    "nan": (broken(7, 2, math.nan), TARGETS, "`logits` holds NaN in row 7, column 2.*finite"),
    "inf": (broken(3, 1, -math.inf), TARGETS, "`logits` holds -inf in row 3, column 1"),
    "huge": (
        broken(2, 0, 1.0).astype("f8") * 1e141, TARGETS, "`logits` holds .* in row 0, column .*1e140"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("logits", "targets", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_batch_is_explained_and_changes_nothing(logits: object, targets: object, message: str) -> None:
    meter = measured((LOGITS, TARGETS), 3)
    before = meter.state_dict()
    with pytest.raises(InputError, match=message):
        meter.update(logits, targets)  # type: ignore[arg-type]
    assert meter.state_dict() == before


def test_the_binding_itself_refuses_what_it_cannot_read() -> None:
    native = Classification(3)._native
    for logits, targets in [
        (np.frombuffer(b"\0" + LOGITS.tobytes(), dtype=np.uint8)[1:].view("f4").reshape(8, 3), TARGETS),
        (LOGITS, np.repeat(TARGETS, 2)[::2]),
        (LOGITS.astype("int32"), TARGETS),
        (LOGITS, TARGETS.astype("int32")),
    ]:
        with pytest.raises(InputError, match=r"pass a copy|convert it"):
            native.update(logits, targets, None, False)  # noqa: FBT003 -- the binding has no keywords
    with pytest.raises(InputError, match="`half` is `float8`"):
        native.update(LOGITS.astype("f2").view("u2"), TARGETS, "float8", False)  # noqa: FBT003
    assert native.samples == 0


@pytest.mark.parametrize(
    ("classes", "topk", "message"),
    [
        (1, (1,), "`classes` is 1"),
        (0, (1, 5), "`classes` is 0"),
        (-1, (1,), "`classes` holds -1"),
        (True, (1,), "`classes` holds True"),
        (2.0, (1,), r"`classes` holds 2\.0"),
        (100_000, (1,), "`classes` is 100000: it must be between 2 and 16384"),
        (3, (1, 4), "`topk` holds 4: with 3 classes"),
        (3, (0,), "`topk` holds 0"),
        (3, (1, 1), "`topk` holds 1 more than once"),
        (3, 5, "`topk` is 5: pass a sequence"),
        (3, "1", "`topk` holds '1'"),
    ],
)
def test_a_shape_that_cannot_be_measured_is_refused(classes: object, topk: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classification(classes, topk)  # type: ignore[arg-type]


def test_the_default_topk_fits_every_number_of_classes() -> None:
    assert Classification(3).topk == (1,)
    assert Classification(5).topk == (1, 5)
    assert Classification(5, [3, 1]).topk == (1, 3)
    assert Classification(5, ()).topk == ()


def test_an_empty_batch_changes_nothing_and_an_empty_meter_has_no_scores() -> None:
    meter = Classification(3)
    meter.update(LOGITS[:0], TARGETS[:0])
    assert meter.samples == 0
    with pytest.raises(InputError, match=r"0 samples.*`update`"):
        meter.compute()
    meter.update(LOGITS, TARGETS)
    meter.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert meter.samples == 8


def test_the_state_survives_json_pickle_and_copies() -> None:
    meter = measured(drawn(60, 4), 4, (1, 2))
    state = meter.state_dict()
    loaded = Classification(4, (1, 2))
    loaded.load_state_dict(json.loads(json.dumps(state)))
    for other in (loaded, pickle.loads(pickle.dumps(meter)), copy.deepcopy(meter)):  # noqa: S301 - its own pickle
        assert other.state_dict() == state
        other.update(*drawn(5, 4))
    assert meter.state_dict() == state


def test_a_damaged_state_is_refused_and_the_meter_goes_on() -> None:
    meter = measured(drawn(60, 3), 3)
    state = meter.state_dict()
    damages: list[tuple[str, Any, str]] = [
        ("version", 1, "`version` of the state is 1"),
        ("bins", 0, "`bins` is 0"),
        ("scores", [0] * 7, "`scores` of the state has length 7"),
        ("reliability", [0] * 5, "`reliability` of the state holds 0 hits of 0"),
        ("left_out", -1, "`left_out` of the state is -1"),
        ("samples", 61, "`confusion` of the state sums to 60"),
        ("samples", -1, "`samples` of the state is -1"),
        ("samples", 2**70, "something else than ints"),
        ("samples", 60.0, "something else than ints"),
        ("classes", 4, "`confusion` of the state has length 9, not 16"),
        ("classes", 10**6, "`classes` is 1000000"),
        ("hits", [61], "`hits` of the state holds 61"),
        ("nll", state["nll"][1:], "`nll` of the state has length 66"),
        ("nll", [0.5] * 67, "something else than ints"),
        ("nll", "x" * 67, "something else than ints"),
        ("confusion", None, "something else than ints"),
    ]
    for field, value, message in damages:
        with pytest.raises(InputError, match=message):
            meter.load_state_dict({**state, field: value})
    with pytest.raises(InputError, match="`state` lacks `nll`"):
        meter.load_state_dict({name: part for name, part in state.items() if name != "nll"})
    with pytest.raises(InputError, match="`state` has the unknown key `loss`"):
        meter.load_state_dict({**state, "loss": 0})
    assert meter.state_dict() == state


def test_meters_made_differently_do_not_mix() -> None:
    meter = Classification(3)
    with pytest.raises(InputError, match="`other` has classes 4"):
        meter.merge(Classification(4))
    with pytest.raises(InputError, match=r"`other` has topk \[1, 2\]"):
        meter.merge(Classification(3, (1, 2)))
    with pytest.raises(InputError, match="`other` is a dict"):
        meter.merge({})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`classes` of the state is 4"):
        meter.load_state_dict(Classification(4).state_dict())
    with pytest.raises(InputError, match="`other` has bins 10, but this meter has 15"):
        meter.merge(Classification(3, bins=10))
    with pytest.raises(InputError, match="`bins` of the state is 10"):
        meter.load_state_dict(Classification(3, bins=10).state_dict())
    with pytest.raises(InputError, match="`nonfinite` is 'skip': pass one of `raise`, `count`"):
        Classification(3, nonfinite="skip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`topk` of the state is"):
        meter.load_state_dict(Classification(3, (1, 2)).state_dict())


def test_threads_may_share_a_meter_and_merge_both_ways() -> None:
    batch = drawn(900, 10)
    left, right = Classification(10), Classification(10)
    with ThreadPoolExecutor(4) as pool:
        for meter in (left, right) * 8:
            pool.submit(meter.update, *batch)
    assert left.samples == right.samples == 8 * 900
    assert left.state_dict() == right.state_dict()
    with ThreadPoolExecutor(4) as pool:
        merges = [pool.submit(a.merge, b) for a, b in [(left, right), (right, left)] * 4]
    assert all(merge.exception() is None for merge in merges)


def test_errors_of_the_core_belong_to_the_family() -> None:
    with pytest.raises(FlyballError):
        Classification(1)
    with pytest.raises(ValueError, match="classes"):
        Classification(1)
