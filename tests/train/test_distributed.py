"""The trainer on several ranks: the hand-written loop to the bit, resumed by all from what all have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flyball.errors import AgreementError, CheckpointError, InputError
from flyball.train.distributed import Part, newest_of_all
from support import trained
from support.ranks import Gone, Ranks, ranks

KINDS = ["ddp", "fsdp"]
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks(2) as started:
        yield started


@pytest.mark.parametrize("governed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_trainer_is_the_hand_written_loop_to_the_bit(two: Ranks, kind: str, governed: bool) -> None:  # noqa: FBT001
    assert two.values(trained.like_a_loop, kind, governed) == [True, True]


@pytest.mark.parametrize(("kind", "governed"), [("ddp", True), ("ddp", False), ("fsdp", True)])
def test_a_signal_to_one_rank_stops_all_and_they_go_on_to_the_bit(
    two: Ranks,
    kind: str,
    governed: bool,  # noqa: FBT001 -- a case
    tmp_path: Path,
) -> None:
    """Properties C24, X6: random state and the place in the data are each rank's own, and come back.

    Rank 0 writes the journal; the others theirs on request.
    """
    answers = two.values(trained.resumed, kind, governed, tmp_path / "run")
    assert [answer["same"] for answer in answers] == [True, True]
    assert answers[0]["stopped"] == answers[1]["stopped"]
    assert answers[0]["stopped"][1] == (10 if governed else 9)
    assert answers[0]["folders"] == ["events.jsonl"] + ["ranks/1/events.jsonl"] * (not governed)


def test_ranks_begin_with_the_same_weights_and_draw_apart_also_after_a_resume(two: Ranks, tmp_path: Path) -> None:
    """R of seeding: weights alike, streams of their own, in Python's and NumPy's generators too."""
    one, other = two.values(trained.drawn, tmp_path / "run")
    assert all(map(torch.equal, one["first"], other["first"]))
    for before, after in ((one["one"], other["one"]), (one["again"], other["again"])):
        assert len(before) == len(after) == 3
        assert not any(map(torch.equal, before, after))
    for rank in (one, other):
        assert not torch.equal(rank["again"][0], rank["one"][0]), "it goes on, and does not begin again"
    assert one["numpy"] != other["numpy"] and one["python"] != other["python"]


def test_parameters_of_the_objective_are_learnt_from_the_data_of_all_ranks(two: Ranks) -> None:
    """By the trainer, also where the ranks made them differently, as by DDP around model and objective."""
    one, other = two.values(trained.bound)
    for how in ("trainer", "bound"):
        assert all(map(torch.equal, one[how], other[how]))
    for by_trainer, by_ddp in zip(one["trainer"], one["bound"], strict=True):
        torch.testing.assert_close(by_trainer, by_ddp)
    assert one["trainer"][-1] != 0.0


def test_groups_that_count_unlike_on_the_ranks_are_each_a_mean_of_its_own(two: Ranks) -> None:
    """Property X5: with the mean over the ranks taken once a step, of the last partial group too."""
    (one, defined), (other, _) = two.values(trained.accumulated, "ddp")
    assert all(map(torch.equal, one, other))
    for mine, wanted in zip(one, defined, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_a_sharded_model_refuses_groups_that_it_would_weigh_wrongly() -> None:
    with ranks(2) as started:
        for error in started.run(trained.accumulated, "fsdp", last=True):
            assert isinstance(error, InputError) and "count unlike many" in str(error)


def test_early_stopping_of_one_rank_is_that_of_all(two: Ranks) -> None:
    """Property X6."""
    assert two.values(trained.over) == [[(2, "early stopping")] * 2] * 2


@pytest.mark.parametrize("governed", [True, False])
def test_a_killed_rank_is_named_in_the_journal_of_the_others(tmp_path: Path, governed: bool) -> None:  # noqa: FBT001
    with ranks(2) as started:
        answers = started.run(trained.killed, "ddp", governed, tmp_path / "run", last=True)
    assert answers[1] == Gone(-9)
    assert isinstance(answers[0], AgreementError) and answers[0].ranks == (1,)
    assert "rank 1 is gone" in (tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1]


def test_all_go_on_from_the_newest_checkpoint_that_all_have(two: Ranks, tmp_path: Path) -> None:
    """One rank's newest is damaged; then it has none at all, which is no reason to begin afresh."""
    for step, error in two.values(trained.common, "ddp", tmp_path / "run"):
        assert step == "00005-step-00000016"
        assert isinstance(error, CheckpointError)
        assert "rank 1: none" in str(error) and "no checkpoint in common" in str(error)


@pytest.mark.parametrize("samples", [64, 61, 9])
def test_every_sample_is_validated_once(two: Ranks, samples: int) -> None:
    for together, alone, difference in two.values(trained.validated, samples):
        assert together == pytest.approx(alone, rel=1e-6)
        assert difference == 0.0


def test_shards_are_loaded_by_another_number_of_ranks(two: Ranks, tmp_path: Path) -> None:
    written = two.values(trained.saved, tmp_path / "sharded")
    with ranks(4) as four:
        read = four.values(trained.loaded, tmp_path / "sharded")
    for answer in [*written, *read]:
        assert all(map(torch.equal, answer, written[0]))
    for error in two.run(trained.saved, tmp_path / "sharded"):
        assert isinstance(error, CheckpointError) and "exists already" in str(error)


def test_a_process_alone_has_all_of_the_data_and_its_own_checkpoints(tmp_path: Path) -> None:
    assert list(Part(range(5))) == [0, 1, 2, 3, 4] and len(Part(range(5))) == 5
    assert newest_of_all(tmp_path) is None
    with pytest.raises(InputError, match="0 samples for 1 ranks"):
        Part([])


@pytest.mark.parametrize(("script", "said"), [("ddp.py", "accuracy 0."), ("fsdp2.py", "2 ranks")])
def test_the_examples_run_under_torchrun(script: str, said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(EXAMPLES / script), str(tmp_path / "run"), "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert said in done.stdout
