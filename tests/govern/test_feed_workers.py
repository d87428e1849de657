"""Loaders with worker processes, and loaders that keep their own state."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from flyball.govern.feed.draws import GlobalState
from flyball.govern.feed.feed import Feed
from flyball.govern.feed.position import Position, SeekError
from govern.feed_loaders import Counted, generator, numbers, seed


@pytest.fixture(autouse=True)
def _fork_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*set_vital.*")  # torchdata 0.11 calls it
        yield


class Fetched(Dataset[torch.Tensor]):
    """Counts in shared memory how often each sample was fetched, by whichever process."""

    def __init__(self, size: int = 24) -> None:
        self.count = torch.zeros(size, dtype=torch.int32)
        self.count.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, index: int) -> torch.Tensor:
        self.count[index] += 1
        return torch.tensor(float(index))


def build(*, persistent: bool = False, own: bool = False, dataset: Dataset[Any] | None = None) -> DataLoader[Any]:
    return DataLoader(
        dataset or Fetched(),
        batch_size=2,
        shuffle=True,
        num_workers=2,
        persistent_workers=persistent,
        generator=generator() if own else None,
        multiprocessing_context="fork",
    )


def trace(loader: Iterable[Any], epochs: int) -> list[Any]:
    return [[(numbers(batch), torch.rand(()).item()) for batch in loader] for _ in range(epochs)]


@pytest.mark.parametrize(("persistent", "own"), [(False, False), (False, True), (True, False)])
def test_with_workers_the_feed_is_the_plain_loop_and_can_be_sought(*, persistent: bool, own: bool) -> None:
    seed(1)
    plain = trace(build(persistent=persistent, own=own), 3)
    oracle = [[batch for batch, _ in epoch] for epoch in plain]
    seed(1)
    feed: Feed[Any] = Feed(build(persistent=persistent, own=own))
    assert trace(feed, 2) == plain[:2]
    # Back over an epoch's start, on within an epoch, and on into what follows.
    everyone = GlobalState.now()
    loop = iter(feed)
    next(loop)
    feed.seek(Position(1, 7))
    assert [numbers(next(loop)) for _ in range(2)] == oracle[1][7:9]
    feed.seek(Position(1, 11))
    assert [numbers(batch) for batch in loop] == [*oracle[1][11:], *oracle[2]]
    feed.seek(Position(2, 0))
    everyone.restore()
    again = iter(feed)
    assert [(numbers(next(again)), torch.rand(()).item()) for _ in plain[2]] == plain[2]


@pytest.mark.parametrize("persistent", [False, True])
def test_with_workers_another_process_goes_on_where_this_one_stood(*, persistent: bool) -> None:
    seed(2)
    plain = trace(build(persistent=persistent), 3)
    seed(2)
    first: Feed[Any] = Feed(build(persistent=persistent))
    trace(first, 1)
    loop = iter(first)
    for _ in range(5):
        next(loop)
        torch.rand(())
    state, everyone = json.dumps(first.state_dict()), GlobalState.now()
    first.close()
    seed(77)
    second: Feed[Any] = Feed(build(persistent=persistent))
    second.load_state_dict(json.loads(state))
    everyone.restore()
    assert trace(second, 2) == [plain[1][5:], plain[2]]


def test_workers_fetch_no_sample_that_is_skipped() -> None:
    dataset = Fetched(40)
    feed: Feed[Any] = Feed(build(dataset=dataset))
    loop = iter(feed)
    served = numbers(next(loop))
    feed.seek(Position(0, 15))
    served += [number for batch in loop for number in numbers(batch)]
    # Prefetching workers were ahead by four batches, and by one for each of the two that were taken.
    assert len(served) == 2 + 10
    assert int((dataset.count > 0).sum()) <= len(served) + 2 * 5
    dataset.count.zero_()
    feed.seek(Position(0, 18))
    assert numbers(next(iter(feed))) == served[-4:-2]
    assert set(dataset.count.nonzero().flatten().tolist()) <= set(served[-4:])


class Flawed(Fetched):
    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 5:
            raise OSError("the disk is away")
        return super().__getitem__(index)


def test_an_error_in_a_worker_passes_and_the_position_stays_true() -> None:
    feed: Feed[Any] = Feed(DataLoader(Flawed(), batch_size=2, num_workers=2, multiprocessing_context="fork"), keep=0)
    loop = iter(feed)
    assert [numbers(next(loop)) for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="the disk is away"):
        next(loop)
    assert feed.position == Position(0, 2)
    feed.seek(Position(0, 3))
    assert numbers(next(loop)) == [6, 7]
    # What the workers had been sent for is taken before it is dropped, and may be the flawed one.
    feed.seek(Position(0, 0))
    assert numbers(next(loop)) == [0, 1]
    feed.seek(Position(0, 4))
    with pytest.raises(OSError, match="the disk is away"):
        next(loop)
    assert numbers(next(loop)) == [8, 9]
    # The traceback of the error holds the feed, and workers that were forked while it lives would inherit its own.
    feed.close()


class Noisy(Counted):
    def __getitem__(self, index: int) -> torch.Tensor:
        info = get_worker_info()
        assert info is not None
        return torch.tensor([index, torch.rand(()).item(), random.random(), info.id])


def test_an_epoch_read_again_from_its_start_repeats_the_workers_draws() -> None:
    seed(3)
    feed: Feed[Any] = Feed(build(dataset=Noisy()))
    first = [numbers(batch) for batch in feed]
    feed.seek(Position(0, 0))
    loop = iter(feed)
    assert [numbers(next(loop)) for _ in first] == first
    assert any("random augmentation made in a worker" in limit for limit in feed.limits)


class Drawn(IterableDataset[float]):
    """A stream that is random in the worker that reads it."""

    def __iter__(self) -> Iterator[float]:
        for _ in range(6):
            yield torch.rand(()).item()


def test_a_stream_in_workers_is_read_again_and_repeats() -> None:
    seed(6)
    feed: Feed[Any] = Feed(DataLoader(Drawn(), batch_size=2, num_workers=2, multiprocessing_context="fork"))
    first = [numbers(batch) for batch in feed]
    loop = iter(feed)
    next(loop)
    feed.seek(Position(0, 3))
    assert [numbers(next(loop)) for _ in range(3)] == first[3:]


class Numbers(IterableDataset[int]):
    """Says where it stands; counts what was read of it."""

    def __init__(self) -> None:
        self.at = 0
        self.epoch = 0
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        while self.at < 9:
            self.at += 1
            self.read += 1
            yield 100 * self.epoch + self.at - 1
        self.at = 0
        self.epoch += 1

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.epoch = state["at"], state["epoch"]


class OwnState:
    """A loader with a state of its own that is nobody's subclass."""

    def __init__(self) -> None:
        self.numbers = Numbers()

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def state_dict(self) -> dict[str, int]:
        return self.numbers.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.numbers.load_state_dict(state)


def test_a_loader_with_its_own_state_is_brought_back_by_it() -> None:
    loader = OwnState()
    feed = Feed(loader)
    loop = iter(feed)
    assert [next(loop) for _ in range(4)] == [0, 1, 2, 3]
    state = feed.state_dict()
    assert list(loop) == [4, 5, 6, 7, 8]
    second = iter(feed)
    assert [next(second) for _ in range(3)] == [100, 101, 102]
    feed.load_state_dict(state)
    loader.numbers.read = 0
    assert next(second) == 4
    assert loader.numbers.read == 1
    assert list(second) == [5, 6, 7, 8, *range(100, 109)]
    elsewhere = Feed(OwnState())
    elsewhere.load_state_dict(state)
    assert list(elsewhere) == [4, 5, 6, 7, 8]
    assert list(elsewhere) == list(range(100, 109))
    elsewhere.load_state_dict(state)
    elsewhere.seek(Position(0, 1))
    with pytest.raises(SeekError, match="no state of the loader was taken"):
        iter(elsewhere)


def test_a_state_between_two_epochs_holds_the_loader_s_own() -> None:
    feed = Feed(OwnState())
    list(feed)
    elsewhere = Feed(OwnState())
    elsewhere.load_state_dict(json.loads(json.dumps(feed.state_dict())))
    assert list(elsewhere) == list(range(100, 109))


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_s_stateful_loader_over_a_stream(workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def make() -> Iterable[Any]:
        context = "fork" if workers else None
        loader: Iterable[Any] = stateful.StatefulDataLoader(
            Numbers(), batch_size=2, num_workers=workers, multiprocessing_context=context
        )
        return loader

    seed(4)
    plain = trace(make(), 2)
    seed(4)
    feed: Feed[Any] = Feed(make())
    loop = iter(feed)
    served = [(numbers(next(loop)), torch.rand(()).item()) for _ in range(3)]
    state, everyone = feed.state_dict(), GlobalState.now()
    served += [(numbers(batch), torch.rand(()).item()) for batch in loop]
    assert [served, *trace(feed, 1)] == plain
    feed.load_state_dict(state)
    everyone.restore()
    assert [(numbers(batch), torch.rand(()).item()) for batch in feed][: len(plain[0]) - 3] == plain[0][3:]
    elsewhere: Feed[Any] = Feed(make())
    elsewhere.load_state_dict(state)
    everyone.restore()
    assert trace(elsewhere, 1)[0] == plain[0][3:]


def test_torchdata_s_stateful_loader_over_a_map_is_sought_without_reading() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def make(dataset: Dataset[Any]) -> Iterable[Any]:
        loader: Iterable[Any] = stateful.StatefulDataLoader(
            dataset, batch_size=2, shuffle=True, num_workers=2, multiprocessing_context="fork"
        )
        return loader

    seed(5)
    plain = trace(make(Fetched()), 2)
    seed(5)
    dataset = Fetched()
    feed: Feed[Any] = Feed(make(dataset))
    assert trace(feed, 2) == plain
    dataset.count.zero_()
    feed.seek(Position(0, 9))
    loop = iter(feed)
    assert [numbers(next(loop)) for _ in range(3)] == [batch for batch, _ in plain[0][9:]]
    assert int((dataset.count > 0).sum()) == 6


class Augmented(Counted):
    """Draws from every generator that a dataset can draw from, in the worker."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.own = np.random.default_rng(7)

    def __getitem__(self, index: int) -> torch.Tensor:
        info = get_worker_info()
        assert info is not None
        legacy = float(np.random.random())  # noqa: NPY002 -- what many augmentations draw from
        drawn = [torch.rand(()).item(), random.random(), legacy, float(self.own.random())]
        return torch.tensor([index, *drawn, info.id], dtype=torch.float64)


@cache
def augmented(*, persistent: bool) -> list[Any]:
    """Three epochs of the loop over the loader itself."""
    seed(4)
    return trace(build(persistent=persistent, dataset=Augmented(24)), 3)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("at", [1, 5, 12, 24, 29])
def test_a_state_that_is_loaded_elsewhere_brings_the_workers_draws_back(*, persistent: bool, at: int) -> None:
    plain = augmented(persistent=persistent)
    seed(4)
    first: Feed[Any] = Feed(build(persistent=persistent, dataset=Augmented(24)), keep=0)
    served = 0
    while served < at:
        for _ in first:
            torch.rand(())
            served += 1
            if served == at and at % 12:
                break  # in the middle of an epoch; else the loop finds out that it is over
    state, everyone = json.dumps(first.state_dict()), GlobalState.now()
    first.close()
    seed(78)
    second: Feed[Any] = Feed(build(persistent=persistent, dataset=Augmented(24)), keep=0)
    second.load_state_dict(json.loads(state))
    everyone.restore()
    rest = [item for epoch in trace(second, 3 - at // 12) for item in epoch]
    assert rest == [item for epoch in plain for item in epoch][at:]
    second.close()
