"""What a governor writes into the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from flyball.events import Event, event


class Sink(Protocol):
    """Where events go: a journal, or whatever passes them on."""

    def write(self, event: Event, /) -> None:
        """Take an event; never raise because of where it goes."""


@event("vitals.spoken", version=1)
class VerdictGiven(Event):
    """A step was doubtful or worse: what was seen, and what was done with the update."""

    step: int
    level: str
    action: str
    reasons: Sequence[str]
    text: str
    position: str | None


@event("snapshot.committed", version=1)
class SnapshotCommitted(Event):
    """A snapshot has stood its probation and can be rolled back to."""

    step: int
    snapshot: int
    taken_at: int
    bytes: int
    seconds: float


@event("snapshot.discarded", version=1)
class SnapshotDiscarded(Event):
    """A snapshot was taken and is not worth keeping."""

    step: int
    reason: str


@event("snapshot.unwritten", version=1)
class SnapshotUnwritten(Event):
    """A snapshot is kept in memory, and could not be written to the disk."""

    step: int
    snapshot: int
    reason: str


@event("rollback.done", version=3)
class RolledBack(Event):
    """The run is as it was when it was last known to be good; the fields are those of `RollbackReport`."""

    step: int
    reason: str
    snapshot: int
    taken_at: int
    back_to: int
    attempt: int
    learning_rate_factor: float
    seconds: float
    codes: Sequence[str] = ()
    seen_at: int | None = None
    steps_lost: int = 0
    updates_lost: int = 0
    recovery: str = "skip"
    data_stood_at: str | None = None
    data_go_on_at: str | None = None
    restored: Sequence[str] = ()
    created: Sequence[str] = ()
    differs: Sequence[str] = ()
    passed_over: Sequence[str] = ()
    abandoned: Sequence[int] = ()
    bytes: int = 0
    checksum: str = ""
    digest: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)


@event("rollback.failed", version=1)
class RollbackBroken(Event):
    """No snapshot could be restored; the message says why, and whether the run is as it was."""

    step: int
    reason: str
    message: str


@event("governor.exhausted", version=1)
class Exhausted(Event):
    """The governor stopped the run; the message lists what happened."""

    step: int
    message: str


@event("agreement.timeout", version=1)
class AgreementLost(Event):
    """The ranks cannot agree any more: these are gone, late, or at another place of their program."""

    ranks: Sequence[int]
    message: str
