"""Going back and going on: what a feed serves after any history is what the loader would have served there."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from flyball.errors import InputError
from flyball.govern.feed.draws import GlobalState
from flyball.govern.feed.feed import Feed
from flyball.govern.feed.position import Position, SeekError
from govern.feed_loaders import KINDS, SIZE, Counted, generator, numbers, seed

EPOCHS = 5


def epochs_of(loader: Iterable[Any], count: int = EPOCHS) -> list[list[list[float]]]:
    return [[numbers(batch) for batch in loader] for _ in range(count)]


class FeedAgainstOracle(RuleBasedStateMachine):
    """Any sequence of next, seek, keep, serve_again, save and load, against all epochs read up front."""

    @initialize(kind=st.sampled_from(sorted(KINDS)), value=st.integers(0, 5))
    def start(self, kind: str, value: int) -> None:
        seed(value)
        self.oracle = epochs_of(KINDS[kind].build())
        seed(value)
        self.kind = kind
        self.feed: Feed[Any] = Feed(KINDS[kind].build(), keep=3, reach=0)
        self.at = (0, 0)
        self.begun = 0  # the first epoch that was not opened
        self.loop: Iterator[Any] | None = None
        self.target = 0
        self.finished = -1
        self.out: list[float] | None = None
        self.kept: list[list[float]] = []
        self.saved: tuple[tuple[int, int], dict[str, Any]] | None = None

    def enter(self) -> None:
        if self.loop is None:
            self.target = max(self.at[0], self.finished + 1)
            assume(max(self.at[0], self.target) < EPOCHS)
            self.loop = iter(self.feed)
            self.begun = max(self.begun, self.at[0] + 1)

    @rule()
    def next_batch(self) -> None:
        self.enter()
        assert self.loop is not None
        epoch, batch = self.at
        if batch >= len(self.oracle[epoch]) and epoch <= self.target:
            epoch, batch = epoch + 1, 0
        self.out = None
        if epoch > self.target:
            assert next(self.loop, None) is None
            self.loop, self.at, self.finished = None, (epoch, batch), self.target
            return
        self.begun = max(self.begun, epoch + 1)
        self.out = numbers(next(self.loop))
        assert self.out == self.oracle[epoch][batch]
        assert not self.feed.probing
        self.at = (epoch, batch + 1)

    @rule(data=st.data())
    def seek(self, data: st.DataObject) -> None:
        epoch = data.draw(st.integers(0, min(self.begun, EPOCHS - 1)), label="epoch")
        batch = data.draw(st.integers(0, len(self.oracle[epoch])), label="batch")
        self.feed.seek(Position(epoch, batch))
        self.at = (epoch, batch)

    @precondition(lambda self: self.out is not None)
    @rule()
    def keep(self) -> None:
        assert self.feed.keep("info")
        assert self.out is not None
        self.kept = [self.out, *self.kept][:3]
        self.out = None

    @precondition(lambda self: self.loop is not None)
    @rule(age=st.integers(0, 4))
    def serve_again(self, age: int) -> None:
        assert self.loop is not None
        there = 1 <= age <= len(self.kept)
        assert (self.feed.serve_again(age) is not None) == there
        if there:
            position = self.feed.position
            assert numbers(next(self.loop)) == self.kept[age - 1]
            assert self.feed.probing
            assert self.feed.position == position
            self.out = None

    @rule()
    def save(self) -> None:
        self.saved = (self.at, self.feed.state_dict())

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self) -> None:
        assert self.saved is not None
        self.at, state = self.saved
        self.feed.load_state_dict(state)

    @invariant()
    def stands(self) -> None:
        if hasattr(self, "feed"):
            assert self.feed.position == Position(*self.at)


TestFeedAgainstOracle = FeedAgainstOracle.TestCase
TestFeedAgainstOracle.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_batch_of_every_epoch_can_be_returned_to(kind: str) -> None:
    seed(1)
    oracle = epochs_of(KINDS[kind].build(), 3)
    seed(1)
    feed: Feed[Any] = Feed(KINDS[kind].build())
    assert epochs_of(feed, 3) == oracle
    for epoch in (2, 0, 1):
        for batch in range(len(oracle[epoch])):
            feed.seek(Position(epoch, batch))
            assert numbers(next(iter(feed))) == oracle[epoch][batch]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seek_draws_nothing_from_the_global_generators(kind: str) -> None:
    seed(1)
    feed: Feed[Any] = Feed(KINDS[kind].build())
    epochs_of(feed, 2)
    torch.rand(3)
    before = GlobalState.now()
    feed.seek(Position(0, 1))
    next(iter(feed))
    assert GlobalState.now() == before


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_goes_on_where_this_one_stood(kind: str) -> None:
    for stop in (0, 1, 2):
        seed(1)
        build = KINDS[kind].build
        oracle = epochs_of(build(), 3)
        if stop >= len(oracle[1]):
            continue
        seed(1)
        first: Feed[Any] = Feed(build())
        list(first)
        if stop:
            for _ in first:
                if first.position.batch == stop:
                    break
        state, everyone = json.dumps(first.state_dict()), GlobalState.now()
        assert pickle.loads(pickle.dumps(first.state_dict())) == first.state_dict()  # noqa: S301 -- made here
        seed(99)
        second: Feed[Any] = Feed(build())
        second.load_state_dict(json.loads(state))
        assert second.position == Position(1, stop)
        everyone.restore()
        assert [[numbers(batch) for batch in second] for _ in range(2)] == [oracle[1][stop:], oracle[2]]


def training(feed: Feed[Any], epochs: range) -> Iterator[tuple[Position, list[float], float]]:
    """A loop that draws like dropout, as a generator so that a test may step in between two steps."""
    for _ in epochs:
        for batch in feed:
            yield feed.position, numbers(batch), torch.rand(()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("back", "after"), [(1, 3), (2, 6), (5, 6), (0, 2), (1, 13)])
def test_property_16_steps_after_a_rollback_in_replay_mode_repeat_the_original_ones(
    kind: str, back: int, after: int
) -> None:
    seed(7)
    feed: Feed[Any] = Feed(KINDS[kind].build())
    steps = training(feed, range(9))
    everyone, state, rest = GlobalState.now(), feed.state_dict(), []
    for count in range(1, after + 1):
        step = next(steps)
        if count == back:
            everyone, state = GlobalState.now(), feed.state_dict()
        if count > back:
            rest.append(step)
    rest += [next(steps) for _ in range(8)]
    for _ in range(2):
        feed.load_state_dict(state)
        everyone.restore()
        assert [next(steps) for _ in rest] == rest


def test_property_17_skip_never_serves_a_discarded_batch_again() -> None:
    seed(8)
    feed: Feed[Any] = Feed(DataLoader(Counted(40), batch_size=2, shuffle=True))
    batches, good, discarded = iter(feed), list[float](), list[float]()
    for _ in range(4):
        good += numbers(next(batches))
    snapshot = feed.state_dict()
    for _ in range(3):
        discarded += numbers(next(batches))
    onward = Position(0, feed.position.batch + 2)
    feed.load_state_dict(snapshot)
    feed.seek(onward)
    rest = [number for batch in batches for number in numbers(batch)]
    assert len(rest) == 40 - 18
    assert not set(rest) & {*good, *discarded}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].touches])
def test_skipped_samples_are_never_fetched(kind: str) -> None:
    loader = KINDS[kind].build()
    if not isinstance(loader, DataLoader):
        return
    dataset = loader.dataset
    assert isinstance(dataset, Counted)
    feed: Feed[Any] = Feed(loader)
    order = [numbers(batch) for batch in feed]
    list(feed)
    for history in ([(0, 2)], [(0, 0), (0, len(order) - 1)], [(1, 1), (0, 1)]):
        batches = iter(feed)
        for epoch, batch in history:
            dataset.fetched.clear()
            feed.seek(Position(epoch, batch))
            served = numbers(next(batches))
            assert sorted(dataset.fetched) == sorted(served)
            assert epoch or served == order[batch]
        feed.close()


def test_a_seek_back_over_the_epoch_s_start_goes_on_in_the_same_loop() -> None:
    feed = Feed([10, 11, 12])
    seen: list[list[int]] = []
    for epoch in range(3):
        seen.append([])
        for batch in feed:
            seen[-1].append(batch)
            if epoch == 1 and feed.position == Position(1, 2) and len(seen[-1]) < 3:
                feed.seek(Position(0, 1))
    assert seen == [[10, 11, 12], [10, 11, 11, 12, 10, 11, 12], [10, 11, 12]]
    assert feed.position == Position(3, 0)


def test_a_seek_into_the_next_epoch_ends_the_loop() -> None:
    feed = Feed([10, 11, 12])
    seen: list[list[int]] = []
    for epoch in range(3):
        seen.append([])
        for batch in feed:
            seen[-1].append(batch)
            if epoch == 0:
                feed.seek(Position(1, 1))
    assert seen == [[10], [11, 12], [10, 11, 12]]


def test_a_seek_past_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    feed: Feed[Any] = Feed(DataLoader(Counted(), batch_size=4))
    batches = iter(feed)
    next(batches)
    feed.seek(Position(0, 50))
    assert list(batches) == []
    assert feed.position == Position(1, 0)


def test_a_seek_between_two_loops_does_not_cost_an_epoch() -> None:
    sampler: DistributedSampler[Any] = DistributedSampler(Counted(), num_replicas=1, rank=0)
    oracle = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        oracle.append([int(index) for index in sampler])
    sampler.set_epoch(0)
    feed: Feed[Any] = Feed(DataLoader(Counted(), batch_size=None, sampler=sampler))
    seen: list[list[float]] = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen.append([batch.item() for batch in feed])
        if epoch == 0:
            feed.seek(Position(0, 9))
    assert seen == [oracle[0], oracle[0][9:] + oracle[1], oracle[2]]


def test_an_epoch_that_never_was_cannot_be_sought() -> None:
    feed = Feed([1, 2])
    list(feed)
    with pytest.raises(SeekError, match="epoch 7, batch 0 was not begun"):
        feed.seek(Position(7, 0))
    assert feed.position == Position(1, 0)
    with pytest.raises(InputError, match="before the first batch"):
        Position(0, -1)


def test_a_generator_skips_by_reading_and_refuses_to_go_back() -> None:
    feed = Feed(iter(range(10)))
    batches = iter(feed)
    next(batches)
    feed.seek(Position(0, 4))
    assert next(batches) == 4
    with pytest.raises(SeekError, match="cannot be rewound"):
        feed.seek(Position(0, 2))
    assert next(batches) == 5
    fresh = Feed(iter(range(10)))
    fresh.load_state_dict(feed.state_dict())
    assert list(fresh) == [6, 7, 8, 9]


class Lazy(Sampler[int]):
    """Draws each index from a generator that the training draws from too."""

    def __iter__(self) -> Iterator[int]:
        left = list(range(SIZE))
        while left:
            yield left.pop(random.randrange(len(left)))

    def __len__(self) -> int:
        return SIZE


def test_an_order_that_does_not_repeat_is_refused_and_not_served() -> None:
    seed(1)
    feed: Feed[Any] = Feed(DataLoader(Counted(), batch_size=2, sampler=Lazy()))
    batches = iter(feed)
    for _ in range(4):
        next(batches)
        random.random()
    feed.seek(Position(0, 3))
    with pytest.raises(SeekError, match="did not give the same order again"):
        next(batches)


def test_a_state_taken_with_other_settings_is_refused_by_name() -> None:
    def build(size: int, rank: int) -> Feed[Any]:
        sampler: DistributedSampler[Any] = DistributedSampler(Counted(), num_replicas=2, rank=rank)
        return Feed(DataLoader(Counted(), batch_size=size, sampler=sampler))

    feed = build(2, 0)
    next(iter(feed))
    state = feed.state_dict()
    with pytest.raises(InputError, match=r"`batch_sampler.batch_size` is 3 here and was 2"):
        build(3, 0).load_state_dict(state)
    with pytest.raises(InputError, match=r"`batch_sampler.sampler.rank` is 1 here and was 0"):
        build(2, 1).load_state_dict(state)
    with pytest.raises(InputError, match="version 1"):
        build(2, 0).load_state_dict({**state, "version": 2})


def test_a_shared_generator_goes_on_across_processes_and_epochs() -> None:
    def build() -> DataLoader[Any]:
        return DataLoader(Counted(), batch_size=3, shuffle=True, generator=generator())

    oracle = epochs_of(build(), 4)
    first: Feed[Any] = Feed(build())
    list(first)
    list(first)
    second: Feed[Any] = Feed(build())
    second.load_state_dict(first.state_dict())
    assert epochs_of(second, 2) == oracle[2:]


def test_the_loader_itself_is_not_touched() -> None:
    loader = DataLoader(Counted(), batch_size=3, shuffle=True)
    before = copy.copy(vars(loader))
    list(Feed(loader))
    assert vars(loader) == before


class Ahead(DataLoader[Any]):
    """A subclass whose `__iter__` is a generator function that reads one batch ahead, as some launchers do."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        waiting = next(batches)
        for batch in batches:
            yield waiting + 100
            waiting = batch
        yield waiting + 100


def test_what_a_subclass_adds_is_kept_before_and_after_a_seek() -> None:
    def build() -> Ahead:
        return Ahead(Counted(), batch_size=2, shuffle=True, generator=generator())

    oracle = epochs_of(build(), 3)
    feed: Feed[Any] = Feed(build())
    assert epochs_of(feed, 2) == oracle[:2]
    loop = iter(feed)
    next(loop)
    for position in (Position(1, 0), Position(1, 3), Position(0, 2), Position(2, 1), Position(2, 4)):
        feed.seek(position)
        assert numbers(next(loop)) == oracle[position.epoch][position.batch]


def test_a_loop_that_was_left_does_not_block_the_next() -> None:
    feed = Feed([1, 2, 3])
    for batch in feed:
        if batch == 2:
            break
    assert list(feed) == [1, 2, 3]
