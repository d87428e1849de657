"""Two and four processes that agree: alike to the bit, and whoever is gone, late or elsewhere is named on all."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from flyball.errors import AgreementError
from flyball.govern.agreement import Measured, Spoilt
from flyball.govern.records import AgreementLost
from support import agreeing
from support.ranks import Gone, Ranks, ranks


@pytest.fixture(scope="module", params=[2, 4])
def pool(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    with ranks(request.param) as started:
        yield started


def alike(answers: list[Measured]) -> Measured:
    first = repr(answers[0])
    assert all(repr(answer) == first for answer in answers)
    return answers[0]


def test_every_rank_judges_a_step_by_the_same_numbers(pool: Ranks) -> None:
    """The loss is its mean in the order of the ranks; NaN travels as itself; what one rank cannot keep none keeps."""
    losses = [0.1, 0.2, 1e16, -1e16][: pool.count]
    measured = [
        [Measured(loss, 2.5) for loss in losses],
        [Measured(math.nan if rank == 1 else 1.0, math.inf) for rank in range(pool.count)],
        [Measured(1.0, None, keep=rank != 1) for rank in range(pool.count)],
        [
            Measured(1.0, 3.0, shards=4.0, scale=8.0 / (rank + 1), buffers=Spoilt(2 * (rank == 1)))
            for rank in range(pool.count)
        ],
    ]
    answers = pool.values(agreeing.steps, measured)
    steps = [alike([answer[number] for answer in answers]) for number in range(4)]
    assert steps[0] == Measured(sum(losses) / pool.count, 2.5)
    assert math.isnan(steps[1].loss) and steps[1].norm == math.inf
    assert steps[2] == Measured(1.0, None, keep=False)
    assert steps[3] == Measured(1.0, math.sqrt(9.0 + 4.0 * pool.count), 0.0, 8.0 / pool.count, Spoilt.STATE)


def test_norms_that_nobody_has_averaged_are_joined_and_told(pool: Ranks) -> None:
    measured = [[Measured(1.0, float(rank)) for rank in range(pool.count)]]
    joined = alike([answer[0] for answer in pool.values(agreeing.steps, measured)])
    assert joined.norm == math.sqrt(sum(rank * rank for rank in range(pool.count)) / pool.count)


def test_every_rank_gets_the_same_answer_to_every_question(pool: Ranks) -> None:
    answers = pool.values(agreeing.questions)
    assert all(answer == answers[0] for answer in answers)
    found = answers[0]
    assert found["every"] == (True, False)
    assert found["common"] == ({2: 0b110, 4: 0b0}[pool.count], 1 << 52)
    assert found["named"] == "abcd"[pool.count - 1]
    assert found["unnamed"] is None
    assert found["answer"] == (sum(range(pool.count)) / pool.count, False)
    assert found["captured"] == ((), 0, ())
    assert found["not captured"] == ((1,), 2, ())
    assert found["unlike"] == ((), 0, (1,))
    assert found["vote"] == tuple(5 - rank for rank in range(pool.count))
    assert found["first"] == 3


def test_what_differs_before_the_first_step_is_named(pool: Ranks) -> None:
    for error in pool.run(agreeing.different_policies):
        assert isinstance(error, AgreementError)
        assert "`policy` of rank" in str(error)


def test_a_rank_that_is_late_is_named(pool: Ranks) -> None:
    """Also where it is rank 0, which the others wait for."""
    for who in (0, pool.count - 1):
        for rank, error in enumerate(pool.run(agreeing.late, who)):
            if rank != who:
                assert isinstance(error, AgreementError) and error.ranks == (who,)
                assert f"rank {who} is late: no answer for 0." in str(error)


def test_a_rank_out_of_order_is_named_at_once(pool: Ranks) -> None:
    """Spec 1.8: calls carry a sequence number."""
    who = pool.count - 1
    errors = pool.run(agreeing.elsewhere, who)
    assert len({str(error) for error in errors}) == 1
    assert isinstance(errors[0], AgreementError) and errors[0].ranks == (who,)
    assert f"rank {who} is at `rollback` (call 2)" in str(errors[0]) and "`step` (call 2)" in str(errors[0])


def test_an_epoch_that_ends_earlier_on_one_rank_is_named(pool: Ranks) -> None:
    """At its beginning where the loader says how long it is, and else at its end."""
    for error in pool.run(agreeing.more_batches):
        assert isinstance(error, AgreementError) and error.ranks == (1,)
        assert "10 on rank 0, 9 on rank 1" in str(error)
    for error in pool.run(agreeing.ended_earlier):
        assert isinstance(error, AgreementError) and error.ranks == (1,)
        assert "rank 1 is at `end of epoch`" in str(error)


def test_a_rank_that_fails_alone_is_named_by_the_others(pool: Ranks) -> None:
    answers = pool.run(agreeing.an_error_of_its_own)
    for rank, error in enumerate(answers):
        if rank == 1:
            assert isinstance(error, ZeroDivisionError)
        else:
            assert isinstance(error, AgreementError) and error.ranks == (1,)
            assert "rank 1 is gone" in str(error)


def test_a_loss_of_a_rank_is_an_event_and_nothing_is_agreed_after_it(pool: Ranks) -> None:
    for rank, heard in enumerate(pool.values(agreeing.told)):
        if rank != 1:
            assert [type(one) for one in heard] == [AgreementLost, AgreementError, AgreementLost, AgreementError]
            assert list(heard[0].ranks) == [1]
            assert "lost each other before" in str(heard[3])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("program", [agreeing.killed_while_others_agree, agreeing.killed_in_a_backward])
def test_a_killed_rank_is_named_by_all_others(count: int, program: object) -> None:
    """Property 31, the rank that is missing: SIGKILL, at a message of ours or inside one of torch."""
    for victim in (0, count - 1):
        with ranks(count) as started:
            answers = started.run(program, victim, last=True)  # type: ignore[arg-type]
        for rank, answer in enumerate(answers):
            if rank == victim:
                assert answer == Gone(-9)
            else:
                assert isinstance(answer, AgreementError), answer
                assert f"rank {victim} is gone" in str(answer)
                assert answer.ranks == (victim,)
