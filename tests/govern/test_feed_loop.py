"""A loop over a feed is the loop over its loader, bit for bit, whatever the loader is."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from flyball.errors import InputError
from flyball.govern.feed.feed import Feed
from flyball.govern.feed.position import Position
from govern.feed_loaders import KINDS, SIZE, Counted, numbers, seed


def trace(loader: Iterable[Any], epochs: int = 3) -> list[Any]:
    """Every batch of a loop that draws from the global generators as training with dropout does."""
    seen: list[Any] = []
    for _ in range(epochs):
        for batch in loader:
            drawn = torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002 -- as loops do
            seen += [numbers(batch), drawn]
        seen.append("epoch")
    return [*seen, torch.rand(()).item(), random.random()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_over_the_feed_is_the_plain_loop(kind: str) -> None:
    seed(1)
    plain = trace(KINDS[kind].build())
    seed(1)
    assert trace(Feed(KINDS[kind].build())) == plain


@pytest.mark.parametrize("noise", [random.random, lambda: torch.rand(()).item()])
def test_augmentation_in_the_main_process_draws_as_in_the_plain_loop(noise: Callable[[], float]) -> None:
    seed(2)
    plain = trace(DataLoader(Counted(noise=noise), batch_size=2, shuffle=True))
    seed(2)
    assert trace(Feed(DataLoader(Counted(noise=noise), batch_size=2, shuffle=True))) == plain


def test_an_epoch_opens_where_the_plain_loop_opens_it() -> None:
    def early(loader: Iterable[Any]) -> list[Any]:
        batches = iter(loader)
        return [torch.rand(()).item(), [numbers(batch) for batch in batches], torch.rand(()).item()]

    seed(3)
    plain = early(DataLoader(Counted(), batch_size=2, shuffle=True))
    seed(3)
    assert early(Feed(DataLoader(Counted(), batch_size=2, shuffle=True))) == plain


def test_batches_are_the_objects_of_the_loader() -> None:
    batches = [{"x": torch.zeros(2)}, (torch.ones(1), "a"), object(), None, [1, 2]]
    assert all(served is batch for served, batch in zip(Feed(batches), batches, strict=True))


def test_a_position_counts_what_was_handed_out() -> None:
    feed = Feed(DataLoader(Counted(), batch_size=4))
    assert feed.position == Position(0, 0)
    assert len(feed) == 3
    seen = []
    for _ in range(2):
        seen += [feed.position for _ in feed]
    assert seen == [Position(epoch, batch) for epoch in range(2) for batch in (1, 2, 3)]
    assert feed.position == Position(2, 0)
    assert feed.served == 6


def test_a_loop_left_by_break_gives_its_epoch_up_as_with_the_loader() -> None:
    def broken(loader: Iterable[Any]) -> list[list[float]]:
        seen = []
        for _ in range(3):
            for count, batch in enumerate(loader):
                seen.append(numbers(batch))
                if count == 1:
                    break
        return seen

    seed(4)
    plain = broken(DataLoader(Counted(), batch_size=2, shuffle=True))
    seed(4)
    assert broken(Feed(DataLoader(Counted(), batch_size=2, shuffle=True))) == plain


def test_the_sampler_follows_set_epoch() -> None:
    def epochs(sampler: DistributedSampler[Any], loader: Iterable[Any]) -> list[list[float]]:
        seen = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            seen += [numbers(batch) for batch in loader]
        return seen

    samplers: list[DistributedSampler[Any]] = [DistributedSampler(Counted(), num_replicas=2, rank=0) for _ in range(2)]
    loaders = [DataLoader(Counted(), batch_size=2, sampler=sampler) for sampler in samplers]
    assert epochs(samplers[0], Feed(loaders[0])) == epochs(samplers[1], loaders[1])


@pytest.mark.parametrize("loader", [[], DataLoader(Counted(0), batch_size=2), iter(())])
def test_an_empty_loader_is_refused_by_name(loader: Iterable[Any]) -> None:
    with pytest.raises(InputError, match=rf"`{type(loader).__name__}`, has no batch"):
        list(Feed(loader))


@pytest.mark.parametrize("loader", [3, {"a": 1}, "batches"])
def test_what_holds_no_batches_is_refused(loader: Iterable[Any]) -> None:
    with pytest.raises(InputError, match="give a loader, or a list of batches"):
        Feed(loader)


def test_a_generator_says_once_what_it_cannot_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        feed = Feed(iter([1, 2]))
    assert "cannot be rewound" in feed.limits[0]
    assert [record.name for record in caplog.records] == ["flyball.govern"]
    assert list(feed) == [1, 2]
    with pytest.raises(InputError, match="used up after one epoch"):
        list(feed)
    assert len(caplog.records) == 1


def test_a_loader_without_limits_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        feed = Feed(DataLoader(Counted(), batch_size=2, shuffle=True))
        list(feed)
    assert feed.limits == ()
    assert not caplog.records


def test_a_second_loop_at_once_is_refused() -> None:
    feed = Feed([1, 2, 3])
    with pytest.raises(InputError, match="still running"):
        list(zip(feed, feed, strict=True))
    held = iter(feed)
    next(held)
    feed.close()
    assert feed.position == Position(0, 1)
    feed.seek(feed.position)
    assert list(feed) == [2, 3]
    assert list(held) == []


class Flaky(Counted):
    """Fails at one sample until it is repaired."""

    broken = True

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 5 and self.broken:
            raise OSError("the disk is away")
        return super().__getitem__(index)


def test_an_error_of_the_loader_passes_and_the_position_stays_true() -> None:
    dataset = Flaky()
    feed = Feed(DataLoader(dataset, batch_size=2))
    batches = iter(feed)
    seen = [numbers(next(batches)) for _ in range(2)]
    with pytest.raises(OSError, match="the disk is away"):
        next(batches)
    assert feed.position == Position(0, 2)
    dataset.broken = False
    seen += [numbers(batch) for batch in batches]
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]


def test_an_iterator_goes_on_after_a_break() -> None:
    def numbered() -> Iterator[int]:
        yield from range(SIZE)

    feed = Feed(numbered())
    assert next(iter(feed)) == 0
    assert list(feed) == list(range(1, SIZE))
