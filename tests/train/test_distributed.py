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


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_to_one_rank_stops_all_and_they_go_on_to_the_bit(two: Ranks, kind: str, tmp_path: Path) -> None:
    """Each rank's random state and place in the data are its own, and come back."""
    answers = two.values(trained.resumed, kind, tmp_path / "run")
    assert [answer["same"] for answer in answers] == [True, True]
    assert answers[0]["stopped"] == answers[1]["stopped"]
    assert answers[0]["stopped"][1] == 10
    assert answers[0]["folders"] == ["events.jsonl", "ranks/1/events.jsonl"]


def test_a_killed_rank_is_named_in_the_journal_of_the_others(tmp_path: Path) -> None:
    with ranks(2) as started:
        answers = started.run(trained.killed, "ddp", tmp_path / "run", last=True)
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
