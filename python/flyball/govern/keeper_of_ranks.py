"""Snapshots of a run with several ranks: taken by all of them or by none, and gone back to by all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyball.errors import RollbackFailed, SnapshotError
from flyball.govern.agreement import Agreement, Replicas, digest_of, named
from flyball.govern.keeper import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flyball.govern.keeper import Place
    from flyball.govern.policy import Policy
    from flyball.govern.snapshot import Prepared, SnapshotInfo, TrainingState
    from flyball.govern.snapshot.ring import RestoreReport
    from flyball.govern.telling import Teller

# Why no snapshot could be taken, the worst last: the worst of all ranks is the reason on all of them.
_REASONS = ("unknown", "memory", "not-finite")


class KeeperOfRanks(Keeper):
    """A keeper whose snapshots, and ways back, are those of all ranks.

    Args:
        state: What is kept of this rank: of a sharded model, its shards.
        policy: How often, how many, and on what probation.
        teller: Where events go.
        agreement: The other ranks.
        replicas: What all of them have alike.
        spill: A folder of this rank's, that trusted snapshots are written to as well; none if None.
    """

    def __init__(
        self,
        state: TrainingState,
        policy: Policy,
        teller: Teller,
        agreement: Agreement,
        replicas: Replicas,
        *,
        spill: Path | None = None,
    ) -> None:
        super().__init__(state, policy, teller, spill=spill)
        self._agreement = agreement
        self._replicas = replicas

    def _captured(self, place: Place) -> SnapshotInfo:
        """Take a snapshot on every rank, or on none; replicas that have drifted apart are not worth keeping."""
        info: SnapshotInfo | None = None
        failure: SnapshotError | None = None
        names = self._replicas.names()
        checksums: list[int] = []
        try:
            info = super()._captured(place)
            held = self._ring.checksums(info.id)
            checksums = [held[f"model.{name}"] for name in names]
        except SnapshotError as error:
            failure = error
        reason = failure.reason if failure is not None and failure.reason in _REASONS else "unknown"
        taken = self._agreement.captured(
            whole=failure is None, reason=_REASONS.index(reason), digest=digest_of(checksums)
        )
        if info is not None and not (taken.failed or taken.unlike):
            return info
        if info is not None:
            self._ring.discard(info.id)
        if taken.failed:
            here = "" if failure is None else f": {failure}"
            raise SnapshotError(
                f"{named(taken.failed)} could not take the snapshot after update {place.updates}, so none is kept on "
                f"any{here}",
                reason=_REASONS[taken.reason],
            ) from failure
        where = names[self._agreement.first_difference(checksums) or 0]
        raise SnapshotError(
            f"`{where}` of {named(taken.unlike)} is not that of the other ranks after update {place.updates}: start "
            "from the same weights on every rank and average the gradients, as `DistributedDataParallel` does",
            reason="replicas",
        )

    def _ready(
        self, choice: Sequence[SnapshotInfo], unusable: Callable[[Place], str | None], passed_over: list[str]
    ) -> tuple[SnapshotInfo, Prepared] | None:
        """Return the newest snapshot that every rank can restore, prepared on all of them; None on all if none is."""
        ready = super()._ready(choice, unusable, passed_over)
        while True:
            votes = self._agreement.vote(0 if ready is None else ready[0].id)
            lowest = min(votes)
            if ready is not None and lowest == max(votes):
                return ready
            if ready is not None and ready[0].id > lowest:
                behind = [rank for rank, vote in enumerate(votes) if vote == lowest]
                ready[1].abandon()
                passed_over.append(f"snapshot {ready[0].id}: {named(behind)} cannot restore it")
                ready = super()._ready([one for one in choice if one.id <= lowest], unusable, passed_over)
            if lowest == 0:
                return None

    def _commit(self, prepared: Prepared) -> tuple[RestoreReport, str]:
        """Do the rest of the restore, and compare what the ranks have now.

        Raises:
            RollbackFailed: It broke off on a rank, or the replicas are not alike.
        """
        report, failure = None, None
        try:
            report = prepared.commit()
        except RollbackFailed as error:
            failure = error
        digests = self._replicas.digests()
        found = self._agreement.restored(
            whole=failure is None, digest=digest_of(digests), shards=self._replicas.digest_of_shards()
        )
        if failure is not None:
            raise failure
        if found.unlike:
            where = self._replicas.names()[self._agreement.first_difference(digests) or 0]
            raise RollbackFailed(
                f"`{where}` of {named(found.unlike)} is not that of the other ranks after the restore: look for what "
                "writes to it on one rank alone"
            )
        if report is None or found.failed:
            raise RollbackFailed(f"{named(found.failed)} could not finish the restore, which was done here")
        return report, found.digest
