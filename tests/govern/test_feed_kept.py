"""Kept batches: which are held, for how long, and that a changed one is never served."""

from __future__ import annotations

import logging
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from flyball.errors import InputError
from flyball.govern.feed.feed import Feed
from flyball.govern.feed.held import Held
from flyball.govern.feed.position import Position
from flyball.govern.feed.shelf import Shelf

Pair = namedtuple("Pair", ["x", "y"])  # noqa: PYI024 -- a user's batch need not be typed


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    rest: dict[str, Any]


def tensors(count: int = 40) -> list[torch.Tensor]:
    return [torch.tensor([float(number)]) for number in range(count)]


def kept_feed(count: int, **settings: int) -> tuple[Feed[torch.Tensor], Any]:
    feed = Feed(tensors(), **settings)
    loop = iter(feed)
    for number in range(count):
        next(loop)
        assert feed.keep(number)
    return feed, loop


def test_a_kept_batch_comes_again_and_moves_nothing() -> None:
    feed, loop = kept_feed(5)
    assert [entry.info for entry in feed.shelf.entries] == [4, 3, 2, 1, 0]
    kept = feed.serve_again(4)
    assert kept is not None
    assert kept.info == 1
    assert kept.position == Position(0, 1)
    seen = [(feed.probing, feed.probe)]
    assert next(loop).item() == 1
    seen.append((feed.probing, feed.probe))
    assert feed.position == Position(0, 5)
    assert feed.served == 5
    assert next(loop).item() == 5
    assert [*seen, (feed.probing, feed.probe)] == [(False, None), (True, kept), (False, None)]


def test_a_batch_is_served_again_after_the_last_of_the_epoch() -> None:
    feed = Feed(tensors(2))
    seen = []
    for batch in feed:
        seen.append(batch.item())
        if not feed.probing:
            feed.keep()
            if len(seen) == 2:
                feed.serve_again(2)
    assert seen == [0, 1, 0]
    assert feed.position == Position(1, 0)


def test_a_missing_age_is_none_and_the_next_batch_is_ordinary() -> None:
    feed, loop = kept_feed(3)
    assert feed.serve_again(1) is not None
    assert feed.serve_again(4) is None
    assert feed.serve_again(1, anchor=True) is None
    assert next(loop).item() == 3
    assert not feed.probing


@given(keeps=st.integers(1, 300), near=st.integers(1, 9))
def test_held_are_the_last_few_then_every_fourth_and_four_anchors(keeps: int, near: int) -> None:
    shelf: Shelf[None] = Shelf(near=near, far=32)
    for number in range(1, keeps + 1):
        shelf = shelf.put((), Position(0, number), number, number)
    ages = [age for age in range(1, 33) if age <= keeps and (age <= near or (keeps - age + 1) % 4 == 0)]
    moved = {entry.info for entry in shelf.anchors}
    assert shelf.ages == tuple(age for age in ages if keeps - age + 1 not in moved)
    assert len(shelf.anchors) == min(keeps // 32, 4)
    for entry, update in zip(shelf.anchors, range(keeps // 32 * 32, 0, -32), strict=False):
        assert update - entry.number <= 32
    assert set(range(1, min(near, keeps) + 1)) <= set(shelf.ages)


def test_a_shelf_is_a_value_that_a_rollback_brings_back() -> None:
    feed, loop = kept_feed(4)
    snapshot = feed.shelf
    next(loop)
    feed.keep("later")
    feed.shelf = snapshot
    kept = feed.serve_again(1)
    assert kept is not None
    assert kept.info == 3
    feed.shelf = feed.shelf.cleared()
    assert feed.serve_again(1) is None


@pytest.mark.parametrize("when", ["before keep", "after keep"])
def test_a_change_in_place_voids_the_entry(when: str) -> None:
    feed = Feed([{"x": (torch.zeros(2), 1)} for _ in range(3)])
    loop = iter(feed)
    tensor = next(loop)["x"][0]
    assert isinstance(tensor, torch.Tensor)
    if when == "before keep":
        tensor.view(-1)[0] += 1
        assert not feed.keep()
    else:
        assert feed.keep()
        tensor.mul_(2)
    assert feed.serve_again(1) is None
    assert not feed.shelf.ages


def test_a_loop_that_takes_its_batch_apart_gets_it_whole_again() -> None:
    feed: Feed[dict[str, Any]] = Feed([{"x": torch.ones(1), "labels": [torch.zeros(1), 7]}])
    loop = iter(feed)
    batch = next(loop)
    labels = batch.pop("labels")
    labels.clear()
    assert feed.keep()
    for _ in range(2):
        feed.serve_again(1)
        again = next(loop)
        assert again.keys() == {"x", "labels"}
        assert again["x"] is batch["x"]
        assert again.pop("labels").pop() == 7


@pytest.mark.parametrize(
    "batch",
    [
        (torch.ones(2), None, "text", 3.5),
        Pair(torch.ones(1), [torch.zeros(1)]),
        Frozen(torch.ones(1), {"deep": (torch.zeros(1),)}),
        OrderedDict(x=torch.ones(1)),
        defaultdict(list, x=[torch.ones(1)]),
        UserDict(x=torch.ones(1)),
        pack_sequence([torch.ones(2), torch.ones(1)]),
        torch.ones(2).to_sparse(),
        (np.float32(1), torch.float16, torch.Size([2])),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_every_shape_of_batch_is_held_with_its_own_tensors(batch: object) -> None:
    held = Held(batch)
    again = held.fresh()
    assert held.whole
    assert type(again) is type(batch)
    flat, flat_again = leaves(batch), leaves(again)
    assert flat
    assert all(one is other for one, other in zip(flat, flat_again, strict=True))


def leaves(batch: object) -> list[Any]:
    if isinstance(batch, dict | UserDict):
        return leaves(list(batch.values()))
    if isinstance(batch, Frozen):
        return [batch.x, *leaves(batch.rest)]
    if isinstance(batch, PackedSequence):
        return [batch.data, batch.batch_sizes]
    if isinstance(batch, list | tuple) and not isinstance(batch, torch.Size):
        return [leaf for part in batch for leaf in leaves(part)]
    return [batch]


class Opaque:
    x = 1


@pytest.mark.parametrize("batch", [np.zeros(2), (torch.ones(1), Opaque()), [{1, 2}]])
def test_what_cannot_be_watched_is_not_kept_and_that_is_said_once(
    batch: object, caplog: pytest.LogCaptureFixture
) -> None:
    feed = Feed([batch, batch])
    with caplog.at_level(logging.WARNING):
        for served in feed:
            assert served is batch
            assert not feed.keep()
    assert "batches cannot be kept" in feed.limits[-1]
    assert len(caplog.records) == 1


def test_an_inference_tensor_is_not_kept() -> None:
    with torch.inference_mode():
        batch = torch.ones(1)
    feed = Feed([batch])
    next(iter(feed))
    assert not feed.keep()


def test_the_batches_of_an_accumulated_step_come_again_together() -> None:
    feed = Feed(tensors(), accumulate=3)
    loop = iter(feed)
    for _ in range(3):
        next(loop)
    assert feed.keep("step", batches=3)
    next(loop)
    assert feed.serve_again(1) is not None
    assert [(next(loop).item(), feed.probing) for _ in range(4)] == [(0, True), (1, True), (2, True), (4, False)]


def test_keeping_what_is_not_out_is_refused() -> None:
    feed, loop = kept_feed(2)
    with pytest.raises(InputError, match="0 are out"):
        feed.keep()
    feed.serve_again(1)
    next(loop)
    with pytest.raises(InputError, match="keep a step once"):
        feed.keep()


def test_nothing_is_held_when_nothing_is_to_be_kept() -> None:
    feed = Feed(tensors(), keep=0)
    next(iter(feed))
    assert not feed.keep()
    assert feed.serve_again(1) is None


@pytest.mark.parametrize(("name", "value"), [("keep", -1), ("reach", -2), ("accumulate", 0)])
def test_a_count_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"`{name}` is {value}"):
        Feed([1], **{name: value})
