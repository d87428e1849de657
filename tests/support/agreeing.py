"""What ranks do in the tests of their agreement; run by `support.ranks`."""

from __future__ import annotations

import gc
import os
import signal

import torch
import torch.distributed as dist

from flyball.events import Event
from flyball.govern.agreement import Agreement, Measured, digest_of

_HELD: list[Agreement] = []


class Told(list[Event]):
    """Events, as they came."""

    def write(self, event: Event) -> None:
        self.append(event)


def agreement(timeout: float = 30.0, told: Told | None = None) -> Agreement:
    made = Agreement.of_this_run(timeout, (Told() if told is None else told).write)
    assert made is not None
    return made


def steps(rank: int, measured: list[list[Measured]]) -> list[Measured]:
    """Agree on some steps."""
    one = agreement()
    return [one.step(step[rank]) for step in measured]


def questions(rank: int) -> dict[str, object]:
    """Agree on everything that is asked now and then."""
    one = agreement()
    one.start(policy=7, model=8)
    digests = [1, 2, 3, 4 + (rank == 1), 5]
    return {
        "every": one.every(rank < 9, rank != 1),
        "common": one.common(0b1110 >> rank, 1 << 52),
        "named": one.first_named(None if rank == 0 else "abcd"[rank], list("abcd")),
        "unnamed": one.first_named(None, list("abcd")),
        "answer": one.answer(float(rank), whole=rank != 1),
        "captured": one.captured(whole=True, reason=0, digest=1),
        "not captured": one.captured(whole=rank != 1, reason=2 if rank == 1 else 0, digest=1),
        "unlike": one.captured(whole=True, reason=0, digest=1 + (rank == 1)),
        "vote": one.vote(5 - rank),
        "restored": one.restored(whole=True, digest=3, shards=rank).failed,
        "first": one.first_difference(digests),
        "digest": one.restored(whole=True, digest=3, shards=rank).digest,
    }


def different_policies(rank: int) -> None:
    agreement().start(model=1, policy=digest_of(["a" if rank else "b"]))


def killed_while_others_agree(rank: int, victim: int) -> None:
    """One rank is killed where the others agree."""
    one = agreement(timeout=30.0)
    one.step(Measured(1.0, 1.0))
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    one.step(Measured(1.0, 1.0))


def killed_in_a_backward(rank: int, victim: int) -> None:
    """One rank is killed where the others average their gradients, which is no message of ours."""
    one = agreement(timeout=30.0)
    with one.naming_ranks():
        if rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.ones(1))
        dist.all_reduce(torch.ones(1))


def late(rank: int, who: int) -> None:
    """One rank does not come, and is not gone."""
    one = agreement(timeout=0.3)
    _HELD.append(one)
    if rank != who:
        one.step(Measured(1.0, 1.0))


def elsewhere(rank: int, who: int) -> None:
    """One rank is at another place of its program."""
    one = agreement(timeout=30.0)
    one.step(Measured(1.0, 1.0))
    if rank == who:
        one.vote(1)
    one.step(Measured(1.0, 1.0))


def more_batches(rank: int) -> None:
    agreement(timeout=30.0).epoch(0, 0, 10 - (rank == 1))


def ended_earlier(rank: int) -> None:
    """A rank whose loader has no length comes to its end, and the others do not."""
    one = agreement(timeout=30.0)
    one.epoch(0, 0, None)
    for _ in range(3 - (rank == 1)):
        one.step(Measured(1.0, 1.0))
    one.end(3)


def an_error_of_its_own(rank: int) -> None:
    """One rank fails alone, and lets go of its governor."""
    one: Agreement | None = agreement(timeout=30.0)
    assert one is not None
    if rank == 1:
        one = None
        gc.collect()
        raise ZeroDivisionError
    one.step(Measured(1.0, 1.0))


def told(rank: int) -> list[Event]:
    """Return the events of a run that loses rank 1."""
    heard = Told()
    one = agreement(timeout=30.0, told=heard)
    if rank == 1:
        return heard
    for _ in range(2):
        try:
            one.step(Measured(1.0, 1.0))
        except RuntimeError as error:
            heard.append(error)  # type: ignore[arg-type]
    return heard
