"""The meters of several ranks become one: on every rank, to the last bit, in one call."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from flyball.errors import InputError
from flyball.measure import Classification, Ranking
from support.metering import reduced
from support.ranks import Ranks, ranks


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks(2) as started:
        yield started


def test_every_rank_gets_what_one_meter_would_have_seen(two: Ranks) -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(90, 3)), generator.integers(3, size=90)
    for make in (Classification, Ranking):
        whole, *shards = (make(3) for _ in range(3))
        whole.update(logits, targets)
        shards[0].update(logits[:20], targets[:20])
        shards[1].update(logits[20:], targets[20:])
        states = two.values(reduced, shards)
        assert states == [whole.state_dict()] * 2


def test_a_rank_without_data_takes_part(two: Ranks) -> None:
    full, empty = Classification(3), Classification(3)
    full.update(np.zeros((1, 3)), np.array([2]))
    assert two.values(reduced, [empty, full]) == [full.state_dict()] * 2


def test_ranks_that_measure_different_things_are_told(two: Ranks) -> None:
    answers = two.run(reduced, [Classification(3), Classification(4)])
    for answer in answers:
        assert isinstance(answer, InputError)
        assert "`classes` of the state is" in str(answer)
