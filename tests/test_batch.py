"""One protocol for whatever a loader hands out, and one walk through its containers."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from flyball import batch as batches
from flyball import outputs
from flyball.batch import Batch, read
from flyball.errors import InputError
from flyball.nested import is_container, leaves, named, rebuilt

X, Y = torch.zeros(3, 2), torch.tensor([0, 1, 2])
W, M = torch.ones(3), torch.tensor([True, False, True])


class Named(NamedTuple):
    inputs: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True)
class Pair:
    inputs: Any
    labels: Any
    weight: Any = None


@dataclass(frozen=True, slots=True)
class Tokens:
    input_ids: Any
    labels: Any


class Said(NamedTuple):
    loss: torch.Tensor
    logits: torch.Tensor


Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024 -- users have these too


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        ((X, Y), (X, Y, None, None)),
        ([X, Y], (X, Y, None, None)),
        ((X,), (X, None, None, None)),
        ((X, Y, W), (X, Y, W, None)),
        ((X, Y, None, M), (X, Y, None, M)),
        (X, (X, None, None, None)),
        (Batch(X, Y, mask=M), (X, Y, None, M)),
        ({"inputs": X, "targets": Y, "mask": M}, (X, Y, None, M)),
        (OrderedDict(inputs=X, target=Y), (X, Y, None, None)),
        (UserDict({"inputs": X, "label": Y, "weight": W}), (X, Y, W, None)),
        (Named(X, Y), (X, Y, None, None)),
        (Pair(X, Y, W), (X, Y, W, None)),
        (SimpleNamespace(inputs=X, targets=Y, more="ignored by name"), (X, Y, None, None)),
    ],
)
def test_a_batch_is_read_by_position_and_by_name_without_a_copy(given_as: Any, expected: tuple[Any, ...]) -> None:
    assert all(found is wanted for found, wanted in zip(read(given_as), expected, strict=True))


def test_without_inputs_what_is_left_goes_to_the_model_by_name() -> None:
    for given_as in ({"input_ids": X, "attention_mask": W, "labels": Y}, UserDict(input_ids=X, labels=Y), Tokens(X, Y)):
        found = read(given_as)
        assert found.targets is Y
        assert found.inputs["input_ids"] is X
        assert "labels" not in found.inputs
    assert read({"input_ids": X}).targets is None


def test_reading_changes_nothing_in_the_batch() -> None:
    given_as = {"input_ids": X, "labels": Y}
    read(given_as)
    assert given_as == {"input_ids": X, "labels": Y}


@pytest.mark.parametrize(
    ("given_as", "message"),
    [
        ((), "0 parts"),
        ((X, Y, W, M, X), "5 parts; by position it has 1 to 4: inputs, targets, weight, mask"),
        ((X, Y, Y), "`weight` of the batch is a tensor of torch.int64"),
        ((X, Y, W, W), "`mask` of the batch is a tensor of torch.float32"),
        ((X, Y, [1.0]), "`weight` of the batch is a list"),
        ({"inputs": X, "targets": Y, "weights": W}, "`weights` beside `inputs`"),
        ({"inputs": X, "targets": Y, "labels": Y}, "both `targets` and `labels`"),
        ({"labels": Y}, "holds no inputs"),
        ({}, "holds no inputs"),
        (Point(X, Y), "`Point` without `inputs`"),
        ("text", "`str` without `inputs`"),
        (None, "`NoneType` without `inputs`"),
    ],
)
def test_what_cannot_be_placed_is_an_error_that_names_it(given_as: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(given_as)
    assert "collate_fn" in str(caught.value)


def test_samples_are_counted_in_nested_inputs() -> None:
    assert read((X, Y)).samples == 3
    assert read(({"a": ["name", X]}, None)).samples == 3
    assert read(("text", Y)).samples == 3
    with pytest.raises(InputError, match="cannot be counted"):
        _ = read(("text", torch.tensor(1.0))).samples


def test_a_batch_that_is_there_already_is_the_same_object() -> None:
    batch, here = read((X, Y)), torch.device("cpu")
    assert batch.to(here) is batch
    moved = Batch({"a": X, "name": "n"}, [Y], W, M).to(here)
    assert moved.inputs["a"] is X
    assert moved.targets[0] is Y
    assert moved.weight is W


def test_every_tensor_moves_and_each_one_once() -> None:
    there = torch.device("meta")
    moved = Batch((X, {"again": X, "name": "n"}), Pair(Y, [Y]), W, M).to(there)
    assert {leaf.device for leaf in leaves(moved) if isinstance(leaf, torch.Tensor)} == {there}
    assert moved.inputs[0] is moved.inputs[1]["again"]
    assert moved.inputs[1]["name"] == "n"
    assert moved.targets.inputs is moved.targets.labels[0]


def test_what_can_move_itself_does() -> None:
    packed = pack_sequence([X, X[:1]])
    moved = Batch(packed, Y).to(torch.device("meta"))
    assert isinstance(moved.inputs, PackedSequence)
    assert moved.inputs.data.device.type == "meta"
    assert moved.inputs.batch_sizes.device.type == "cpu"  # which a walk through its parts would have moved


def test_only_pinned_memory_is_copied_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[bool] = []

    def recorded(tensor: torch.Tensor, _device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        waits.append(not non_blocking)
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    for pinned in (False, True):
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _, pinned=pinned: pinned)
        Batch(X).to(torch.device("meta"))
    Batch(torch.empty(2, device="meta")).to(torch.device("cpu:0"))
    assert waits == [True, False, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_batch_comes_to_the_device_whole() -> None:
    device = torch.device("cuda", 0)
    values = torch.randn(1000)
    moved = Batch({"pinned": values.pin_memory(), "pageable": values}, values).to(device)
    assert all(torch.equal(leaf.cpu(), values) for leaf in leaves((moved.inputs, moved.targets)))


plain = st.one_of(st.integers(), st.text(max_size=3), st.none())
structures = st.recursive(
    plain,
    lambda part: st.one_of(
        st.lists(part, max_size=3),
        st.lists(part, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), part, max_size=3),
        st.dictionaries(st.text(max_size=2), part, max_size=3).map(UserDict),
        st.builds(Point, part, part),
        st.builds(Pair, part, part),
        st.builds(Tokens, part, part),
    ),
    max_leaves=12,
)


@given(structures)
def test_a_container_is_rebuilt_equal_of_its_type_and_with_every_leaf_seen(value: Any) -> None:
    seen: list[Any] = []

    def part(content: Any) -> Any:
        if is_container(content):
            return rebuilt(content, part)
        seen.append(content)
        return content

    again = part(value)
    assert again == value
    assert type(again) is type(value)
    assert seen == list(leaves(value))
    if is_container(value) and value != ():
        assert again is not value


def test_what_is_no_container_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="`set`"):
        rebuilt({1}, lambda part: part)
    with pytest.raises(TypeError, match="`list` have no names"):
        named([1])
    assert not is_container(Pair)  # the class, not one of its objects


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [({"a": 1, "b": 2}, (1, 2)), ((1, 2), (1, 2)), ([1, 2], ([1, 2], None)), ("one", ("one", None)), (X, (X, None))],
)
def test_a_mapping_is_passed_by_name_and_a_tuple_by_position(inputs: Any, expected: tuple[Any, Any]) -> None:
    assert outputs.forward(lambda a, b=None: (a, b), inputs) == expected


@pytest.mark.parametrize(
    "said",
    [
        X,
        {"logits": X, "loss": Y},
        {"out": X},
        OrderedDict(logits=X),
        (X, Y),
        [X],
        SimpleNamespace(logits=X),
        SimpleNamespace(out=X),
        Said(Y, X),
    ],
)
def test_the_scores_are_found_by_one_rule(said: Any) -> None:
    assert outputs.scores(said) is X


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"heads": X}, "a dict of `heads`"),
        ((), "a tuple of nothing"),
        (({"a": X}, Y), "a tuple of dict, Tensor"),
        (SimpleNamespace(), "a SimpleNamespace"),
        (None, "a NoneType"),
    ],
)
def test_scores_that_are_nowhere_are_an_error_that_says_what_there_is(said: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        outputs.scores(said)
    assert "output=" in str(caught.value)


def test_the_module_page_tells_the_names_that_are_read() -> None:
    page = batches.__doc__ or ""
    assert all(f"`{name}`" in page for name in batches._TARGETS)
