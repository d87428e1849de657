"""Many ranks find what one process finds, whoever has how much of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from flyball.errors import InputError
from flyball.evaluation import evaluate
from flyball.objective import Task
from support import measuring
from support.ranks import Ranks, ranks

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def three() -> Iterator[Ranks]:
    with ranks(3) as pool:
        yield pool


def data(kind: str) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 4), (3, 4), (7, 4)] if kind == "cross-entropy" else [(2, 5, 6), (4, 5, 6), (1, 5, 6)]
    return [
        (torch.randn(*shape, generator=generator), torch.randint(shape[-1], shape[:-1], generator=generator))
        for shape in shapes
    ]


@pytest.mark.parametrize("kind", ["cross-entropy", "language"])
def test_uneven_parts_on_three_ranks_give_the_result_of_one_process(three: Ranks, kind: Any) -> None:
    """Property C26: also where one rank has nothing, and on every rank alike."""
    batches = data(kind)
    found = evaluate(lambda x: x, batches, objective=Task(kind), selective=measuring.SELECTIVE[kind])
    alone = {**found.to_dict(), "right": None if found.correct is None else found.correct.tolist()}
    first, *others = three.values(measuring.measure, batches, kind)
    assert first == alone
    assert all(other == first for other in others)


def test_a_label_out_of_range_on_one_rank_is_an_error_on_all(three: Ranks) -> None:
    batches = data("cross-entropy")
    batches[1][1][0] = 9
    answers = three.run(measuring.measure, batches, "cross-entropy")
    assert all(
        isinstance(answer, InputError) and "rank 1: `targets` holds the label 9" in str(answer) for answer in answers
    )


def test_no_data_on_any_rank_is_an_error_on_all(three: Ranks) -> None:
    answers = three.run(measuring.measure, [], "cross-entropy")
    assert all(isinstance(answer, InputError) and "gave no batch" in str(answer) for answer in answers)
