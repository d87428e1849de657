"""What a rollback did, in full: for the caller, and for the journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.govern.records import RolledBack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyball.govern.keeper import Place, Return
    from flyball.govern.recovery import Attempt
    from flyball.govern.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """What a rollback did.

    Args:
        snapshot_id: The snapshot that the run went back to.
        step: The step at which it happened.
        taken_at: The update after which the snapshot was taken.
        back_to: The step at which it was taken.
        steps_lost: How many steps lie between.
        updates_lost: How many updates were taken back.
        reason: Why.
        codes: The codes of the verdict that led to it; empty if it was asked for.
        seen_at: The step of that verdict: that of the batch which first raised the question.
        recovery: What the policy says is done about data and chance.
        attempt: The how-manieth rollback within the window of the policy.
        learning_rate_factor: What the learning rate is multiplied with at first.
        data_stood_at: Where the next batch would have come from.
        data_go_on_at: Where it comes from now; None without a feed, where the data are yours.
        restored: The components that were restored, in order.
        created: Tensors that had vanished since and were made anew.
        differs: Components that, read back, do not say what they said when the snapshot was taken.
        passed_over: Newer snapshots that could not be restored, and why.
        abandoned: Snapshots taken after this one, which belong to the branch that was left, and are gone.
        bytes: What was put back.
        checksum: Of the tensors that were put back; equal states, laid out alike, have equal checksums.
        digest: Of the weights of all ranks together, each of which has compared its own; empty in a single process.
        seconds: How long it took.
        phases: Seconds of each phase, by name, in order.
    """

    snapshot_id: int
    step: int
    taken_at: int
    back_to: int
    steps_lost: int
    updates_lost: int
    reason: str
    codes: tuple[str, ...]
    seen_at: int | None
    recovery: str
    attempt: int
    learning_rate_factor: float
    data_stood_at: str | None
    data_go_on_at: str | None
    restored: tuple[str, ...]
    created: tuple[str, ...]
    differs: tuple[str, ...]
    passed_over: tuple[str, ...]
    abandoned: tuple[int, ...]
    bytes: int
    checksum: str
    digest: str
    seconds: float
    phases: Mapping[str, float]

    def event(self) -> RolledBack:
        """Return this as what is written into the journal."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return RolledBack(snapshot=fields.pop("snapshot_id"), **fields)


def reported(
    back: Return, attempt: Attempt, *, left: Place, now: Place, recovery: str, reason: str, verdict: Verdict | None
) -> RollbackReport:
    """Return the report of a way back that was taken.

    Args:
        back: The way.
        attempt: The rung of the ladder.
        left: Where the run stood before.
        now: Where it stands now.
        recovery: The policy's.
        reason: Why.
        verdict: What led to it, if it was not asked for.
    """
    restored = back.restored
    return RollbackReport(
        snapshot_id=back.info.id,
        step=left.step,
        taken_at=back.info.step,
        back_to=back.place.step,
        steps_lost=left.step - back.place.step,
        updates_lost=left.updates - back.place.updates,
        reason=reason,
        codes=() if verdict is None else verdict.reasons,
        seen_at=None if verdict is None else verdict.step,
        recovery=recovery,
        attempt=attempt.number,
        learning_rate_factor=attempt.rate,
        data_stood_at=None if left.position is None else str(left.position),
        data_go_on_at=None if now.position is None else str(now.position),
        restored=restored.components,
        created=restored.created,
        differs=restored.differs,
        passed_over=back.passed_over,
        abandoned=back.abandoned,
        bytes=restored.bytes,
        checksum=back.info.checksum,
        digest=back.digest,
        seconds=restored.seconds,
        phases=restored.phases,
    )
