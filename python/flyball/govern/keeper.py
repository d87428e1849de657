"""When a snapshot is taken, when it is trusted, and which one the run goes back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from flyball.errors import RollbackFailed, SnapshotError
from flyball.govern import records
from flyball.govern.snapshot import Prepared, SnapshotInfo, SnapshotRing, TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flyball.govern.feed import Feed, Position, Shelf
    from flyball.govern.policy import Policy
    from flyball.govern.snapshot.ring import RestoreReport
    from flyball.govern.telling import Teller

# Why a snapshot that is trusted may not be on the disk.
_UNWRITTEN = frozenset({"disk", "unsupported"})

# Why no snapshot could be taken, where it is the state that is damaged.
_DAMAGE = frozenset({"not-finite", "replicas"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where loop and data stand.

    Args:
        step: How many steps were judged.
        updates: How many of them are in the weights.
        era: How many shifts of the loss had been announced.
        feed: What serves the batches.
        position: Where it stands.
        shelves: The feeds there are, and the batches that each keeps.
    """

    step: int
    updates: int
    era: int = 0
    feed: Feed[Any] | None = None
    position: Position | None = None
    shelves: tuple[tuple[Feed[Any], Shelf[Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class Return:
    """A way back that was taken.

    Args:
        info: The snapshot.
        place: Where the run stood when it was taken.
        restored: What the restore did.
        passed_over: Newer snapshots that could not be restored, and why.
        abandoned: Newer snapshots, which belong to the branch that was left; they are gone.
        digest: Of the weights of all ranks together; empty in a single process.
    """

    info: SnapshotInfo
    place: Place
    restored: RestoreReport
    passed_over: tuple[str, ...]
    abandoned: tuple[int, ...]
    digest: str = ""


class Health(NamedTuple):
    """What a healthy update led to.

    Attributes:
        damage: What is not finite in the state, if that is why no snapshot could be taken.
        captured: Whether a candidate was taken, and holds the state as it is now.
    """

    damage: str | None = None
    captured: bool = False


class Keeper:
    """Take snapshots at a cadence, trust them after a probation, and lead back to the newest that holds.

    Args:
        state: What is kept.
        policy: How often, how many, and on what probation.
        teller: Where events go.
        spill: A folder that trusted snapshots are written to as well; none if None.
    """

    def __init__(self, state: TrainingState, policy: Policy, teller: Teller, *, spill: Path | None = None) -> None:
        self._policy = policy
        self._teller = teller
        self._ring = SnapshotRing(state, slots=policy.snapshots, memory_cap=policy.memory_cap, spill=spill)
        self._places: dict[int, Place] = {}
        self._captured_at = 0
        self._healthy = 0

    @property
    def committed(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots that can be restored, oldest first."""
        return self._ring.committed

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot that can be restored."""
        return self._ring.ready

    def keep(self, place: Place) -> SnapshotInfo:
        """Take a snapshot and trust it at once.

        Raises:
            SnapshotError: A value is not finite, or there is no room; older snapshots are as they were.
        """
        self._drop_candidates()
        return self._trust(self._capture(place), place)

    def doubt(self) -> None:
        """Begin the probation anew."""
        self._healthy = 0

    def healthy(self, updates: int, place: Callable[[], Place]) -> Health | None:
        """Count a healthy update; trust the candidate, or take one, if it is time.

        Args:
            updates: How many updates are in the weights.
            place: Says where the run stands; asked only if something is done.

        Returns:
            What it led to; None if it was not yet time for anything, as nearly always.
        """
        self._healthy += 1
        if self._ring.on_probation:
            if self._healthy >= self._policy.probation:
                self._trust(self._ring.candidates[0], place())
            return None
        return self._take(place()) if updates - self._captured_at >= self._policy.snapshot_every else None

    def _take(self, place: Place) -> Health:
        try:
            self._capture(place)
        except SnapshotError as error:
            self._captured_at = place.updates
            self._teller.tell(records.SnapshotDiscarded(step=place.step, reason=str(error)))
            if error.reason in _DAMAGE:
                return Health(damage=str(error))
            self._teller.warn("step %d: no snapshot was taken (%s)", place.step, error)
            return Health()
        return Health(captured=True)

    def distrust(self, step: int, reason: str) -> None:
        """Drop the candidate: the state that it holds looks damaged, which alone is no reason to go back."""
        if self._ring.candidates:
            self._drop_candidates()
            self._teller.tell(records.SnapshotDiscarded(step=step, reason=reason))

    def go_back(self, older: int, step: int, unusable: Callable[[Place], str | None]) -> Return:
        """Restore the newest snapshot that can be restored.

        Args:
            older: How many of the newest to pass over.
            step: Where the run stands, for the message.
            unusable: Says why the run could not go on from a place, if so; asked before anything is changed.

        Snapshots that are newer than it belong to the branch that is left: they are dropped, so that no later rollback
        leads forward to one of them.

        Raises:
            RollbackFailed: None could be; the message says whether the run is as it was, or a mix.
        """
        self._drop_candidates()
        passed_over: list[str] = []
        mixed: RollbackFailed | None = None
        newest_first = self._ring.committed[::-1]
        choice = newest_first[max(0, min(older, len(newest_first) - 1)) :]
        while (ready := self._ready(choice, unusable, passed_over)) is not None:
            info, prepared = ready
            try:
                restored, digest = self._commit(prepared)
            except RollbackFailed as error:
                if not isinstance(error.__cause__, Exception | None):
                    raise  # an interrupt: the user wants an end, and not another attempt
                passed_over.append(f"snapshot {info.id}: {error}")
                mixed = error
                choice = tuple(one for one in choice if one.id < info.id)
            else:
                self._healthy, self._captured_at = 0, info.step
                abandoned = self._abandon(info.id)
                return Return(info, self._places[info.id], restored, tuple(passed_over), abandoned, digest)
        why = "; ".join(passed_over) or "there is none"
        if mixed is not None:
            raise RollbackFailed(
                f"no snapshot could be restored whole at step {step} ({why}), and the run is a mix of states: do not "
                "train on; look into these reasons, and resume from a checkpoint",
                restored=mixed.restored,
                not_restored=mixed.not_restored,
            ) from mixed
        raise RollbackFailed(
            f"no snapshot could be restored at step {step} ({why}), and the run is as it was before: look into these "
            "reasons, or resume from a checkpoint"
        )

    def _ready(
        self, choice: Sequence[SnapshotInfo], unusable: Callable[[Place], str | None], passed_over: list[str]
    ) -> tuple[SnapshotInfo, Prepared] | None:
        """Return the first of some snapshots that can be restored, with all done that may fail and be taken back."""
        for info in choice:
            if (reason := unusable(self._places[info.id])) is not None:
                passed_over.append(f"snapshot {info.id}: {reason}")
                continue
            try:
                return info, self._ring.prepare(info.id)
            except SnapshotError as error:
                passed_over.append(f"snapshot {info.id}: {error}")
        return None

    def _commit(self, prepared: Prepared) -> tuple[RestoreReport, str]:
        """Do the rest of a restore; return what it did, and a digest of the weights of all ranks.

        Raises:
            RollbackFailed: It broke off half-way.
        """
        return prepared.commit(), ""

    def _abandon(self, restored: int) -> tuple[int, ...]:
        newer = tuple(info.id for info in self._ring.committed if info.id > restored)
        for id_ in newer:
            self._ring.discard(id_)
            del self._places[id_]
        return newer

    def _drop_candidates(self) -> None:
        for candidate in self._ring.candidates:
            self._ring.discard(candidate.id)

    def _capture(self, place: Place) -> SnapshotInfo:
        info = self._captured(place)
        self._captured_at = place.updates
        self._healthy = 0
        self._places[info.id] = place
        return info

    def _captured(self, place: Place) -> SnapshotInfo:
        return self._ring.capture(place.updates)

    def _trust(self, info: SnapshotInfo, place: Place) -> SnapshotInfo:
        try:
            committed = self._ring.promote(info.id)
        except SnapshotError as error:
            if error.reason not in _UNWRITTEN:
                raise
            committed = info  # it is trusted, and only the disk does not have it
            self._teller.tell(records.SnapshotUnwritten(step=place.step, snapshot=info.id, reason=str(error)))
            self._teller.warn("step %d: %s", place.step, error)
        alive = {one.id for one in self._ring.committed}
        self._places = {id_: place for id_, place in self._places.items() if id_ in alive}
        self._teller.tell(
            records.SnapshotCommitted(
                step=place.step,
                snapshot=committed.id,
                taken_at=committed.step,
                bytes=committed.bytes,
                seconds=committed.seconds,
            )
        )
        return committed
