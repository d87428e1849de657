"""What ranks must have alike: weights that follow the losses, and the statistics of an average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from support import sharing
from support.ranks import Ranks, ranks

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks(2) as pool:
        yield pool


def test_ranks_weigh_their_terms_alike_from_the_losses_of_all(two: Ranks) -> None:
    losses = torch.rand(2, 5, 3, 2, generator=torch.Generator().manual_seed(0))  # rank, epoch, sample, term
    first, second = two.values(sharing.weigh, losses)
    assert first == second
    alone = sharing.weigh(0, losses.mean(0, keepdim=True))
    assert torch.tensor(first) == pytest.approx(torch.tensor(alone))
    assert first[-1] != [1.0, 1.0]


def test_the_statistics_of_an_average_are_those_of_the_data_of_all_ranks(two: Ranks) -> None:
    """Property C32: uneven parts too."""
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(size, 3, generator=generator) for size in (4, 9, 6)]
    state = sharing.normalised().state_dict()
    first, second = two.values(sharing.refresh, state, [batches[:1], batches[1:]])
    alone = sharing.refresh(0, state, [batches])
    for name, wanted in alone.items():
        assert torch.equal(first[name], second[name])
        if "num" not in name:
            torch.testing.assert_close(first[name], wanted)
