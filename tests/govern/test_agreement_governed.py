"""Governed trainings on two and four processes: replicas under DDP, shards under FSDP2, and faults on one rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from flyball.errors import AgreementError, RollbackFailed, SnapshotError
from support import governed
from support.ranks import Gone, Ranks, ranks

KINDS = ["ddp", "fsdp"]


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks(2) as started:
        yield started


@pytest.fixture(scope="module")
def four() -> Iterator[Ranks]:
    with ranks(4) as started:
        yield started


@pytest.fixture(params=["two", "four"])
def pool(request: pytest.FixtureRequest) -> Ranks:
    started: Ranks = request.getfixturevalue(request.param)
    return started


def same(answers: list[Any]) -> Any:
    """Return what all ranks have answered alike."""
    for rank, answer in enumerate(answers):
        assert answer == answers[0], f"rank {rank} differs from rank 0"
    return answers[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_run_is_the_plain_one(two: Ranks, kind: str) -> None:
    """Under DDP to the bit; shards are clipped too, so but for the order in which their norm is summed."""
    answers = two.values(governed.healthy, kind)
    decided = same([answer[0] for answer in answers])
    assert all(step[1] == "apply" for step in decided)
    for _, state, plain in answers:
        for ours, theirs in zip(state, plain, strict=True):
            if kind == "ddp":
                assert torch.equal(ours, theirs)
            else:
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_is_that_of_all_gradients(two: Ranks, kind: str) -> None:
    answers = two.values(governed.norms, kind)
    ours, whole = same(answers)
    assert math.isclose(ours, whole, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("count", "kind", "fault"),
    [("two", "ddp", "nan"), ("two", "ddp", "large"), ("two", "fsdp", "nan"), ("two", "fsdp", "large")],
)
def test_a_bad_batch_of_one_rank_is_left_out_on_all(
    count: str, kind: str, fault: str, request: pytest.FixtureRequest
) -> None:
    """Property 31: any rank's value that is not finite refuses on all; in doubt all ask together."""
    answers = request.getfixturevalue(count).values(governed.spoilt, kind, fault)
    decided = same([answer["decided"] for answer in answers])
    refused = [step for step in decided if step[1] == "skip" and "asking" in step]
    assert len(refused) >= 3 or sum("data" in step for step in decided) >= 2
    assert not any(step[1] == "rollback" for step in decided)
    assert all(answer["unchanged"] and answer["finite"] for answer in answers)


@pytest.mark.parametrize("kind", KINDS)
def test_panic_rolls_back_all_ranks_to_the_same_snapshot(pool: Ranks, kind: str) -> None:
    """Property 31."""
    answers = pool.values(governed.damaged, kind)
    found = same(answers)
    assert found["decided"][-1][:2] == ("PANIC", "rollback")
    assert len(found["decided"]) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_with_different_snapshots_choose_the_common_one(pool: Ranks, kind: str) -> None:
    """Property 31: the newest that every rank has whole, and the bits of that state on each."""
    whole = pool.values(governed.rolled_back, kind, "none")
    assert same([answer["id"] for answer in whole]) == 4 and same([answer["digest"] for answer in whole])
    found = pool.values(governed.rolled_back, kind, "newest")
    assert same([answer["id"] for answer in found]) == 3
    assert same([answer["to"] for answer in found]) == 10
    assert same([answer["ids"] for answer in found]) == [1, 2, 3]
    assert "rank 1 cannot restore it" in found[0]["passed over"][0]
    assert "is damaged" in found[1]["passed over"][0]
    assert all(answer["whole"] for answer in [*whole, *found])
    assert same([answer["after"] for answer in found])


def test_without_a_common_snapshot_all_ranks_raise_and_are_as_they_were(two: Ranks) -> None:
    for answer in two.values(governed.rolled_back, "ddp", "all"):
        assert isinstance(answer["error"], RollbackFailed)
        assert answer["as before"]


def test_a_replica_that_drifts_apart_is_found_at_the_next_snapshot_and_named(two: Ranks) -> None:
    """One weight of one rank, off by a millionth: the run goes back to where the replicas were alike."""
    decided = same(two.values(governed.drifted))
    assert decided[-1][1] == "rollback"
    assert len(decided) <= 45


def test_replicas_that_never_were_alike_are_refused_by_name(pool: Ranks) -> None:
    for error in pool.run(governed.different_weights):
        assert isinstance(error, SnapshotError) and error.reason == "replicas"
        assert "`4.bias` of rank" in str(error)


def test_a_snapshot_that_one_rank_takes_alone_is_named_at_once(two: Ranks) -> None:
    for error in two.run(governed.snapshot_on_one):
        assert isinstance(error, AgreementError)
        assert "rank 1 is at `snapshot`" in str(error)


def test_a_loader_with_fewer_batches_on_one_rank_is_named_before_it_is_read(two: Ranks) -> None:
    for error in two.run(governed.uneven):
        assert isinstance(error, AgreementError) and error.ranks == (1,)
        assert "different numbers of batches" in str(error)


def test_steps_of_several_batches_are_asked_about_together(two: Ranks) -> None:
    decided = same(two.values(governed.accumulated))
    assert any("asking" in step for step in decided)
    assert any("data" in step for step in decided)
    assert not any(step[1] == "rollback" for step in decided)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_that_is_killed_in_a_training_is_named(kind: str) -> None:
    """Property 31: the missing rank. Who survives says so, and does not hang."""
    with ranks(2) as started:
        answers = started.run(governed.killed, kind, 1, last=True)
    assert answers[1] == Gone(-9)
    assert isinstance(answers[0], AgreementError)
    assert "rank 1 is gone" in str(answers[0])
