"""Known-good states of a run, in memory: a few of them, older ones further apart.

    ring = SnapshotRing(state)
    info = ring.capture(step)        # a candidate: complete, finite, fingerprinted, but not yet trusted
    ring.promote(info.id)            # after some healthy steps; or ring.discard(info.id)
    report = ring.restore(info.id)   # in place, all or nothing

A capture goes to a buffer that holds no other snapshot, so the last good one is never the one being written. Buffers
are allocated when first needed and used again: there are `slots` + `candidates` of them, and never more.

Which ones stay. Promoted snapshots are numbered 1, 2, 3, …. When there is one too many, those are kept that are the
newest; the newest before it whose number is a multiple of 2; the newest before that whose number is a multiple of 4;
and so on. With three slots, the oldest is between two and seven promotions old, once there were that many.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flyball.errors import InputError, SnapshotError
from flyball.govern.snapshot import spill as disk
from flyball.govern.snapshot.mirror import Arena, Capture, Source, bind
from flyball.govern.snapshot.restore import Kept, first_line, prepare, verify
from flyball.govern.snapshot.restore import Prepared as Prepared
from flyball.govern.snapshot.restore import RestoreReport as RestoreReport
from flyball.govern.snapshot.restore import SnapshotInfo as SnapshotInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from flyball.govern.snapshot.state import TrainingState


class SnapshotRing:
    """Snapshots of one training state: candidates on probation, and the committed ones that can be restored.

    Args:
        state: What is captured.
        slots: How many committed snapshots are kept.
        memory_cap: The most bytes that all buffers together may take; no limit if None.
        spill: A folder where committed snapshots are also written, to survive the process: in a folder of this ring's,
            a folder for each.
        candidates: How many captures may be on probation at a time.

    Raises:
        InputError: A number is below one.
    """

    def __init__(
        self,
        state: TrainingState,
        slots: int = 3,
        memory_cap: int | None = None,
        spill: Path | None = None,
        *,
        candidates: int = 1,
    ) -> None:
        for name, value in (("slots", slots), ("candidates", candidates), ("memory_cap", memory_cap)):
            if value is not None and value < 1:
                raise InputError(f"`{name}` is {value}: it must be at least 1")
        self.state = state
        self.slots = slots
        self.memory_cap = memory_cap
        self.spill = None if spill is None else disk.folder_of_this_run(spill)
        self._most_candidates = candidates
        self._pending: dict[int, Kept] = {}
        self._committed: list[Kept] = []
        self._free: list[Arena] = []
        self._source: Source | None = None
        self._next = 1
        self._promotions = 0

    @property
    def committed(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots that can be restored, oldest first."""
        return tuple(kept.info for kept in self._committed if kept.info is not None)

    @property
    def candidates(self) -> tuple[SnapshotInfo, ...]:
        """The finished captures that are neither promoted nor discarded, oldest first."""
        return tuple(kept.info for kept in self._pending.values() if kept.info is not None)

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot that can be restored."""
        return bool(self._committed)

    @property
    def on_probation(self) -> bool:
        """Whether there is a candidate."""
        return bool(self._pending)

    @property
    def bytes(self) -> int:
        """The bytes of all buffers that exist now."""
        return sum(kept.arena.size for kept in self._holders()) + sum(arena.size for arena in self._free)

    @property
    def bound(self) -> int:
        """The bytes that all buffers take once each has been used, for the state as it was last captured."""
        return (self.slots + self._most_candidates) * (self._source.layout.size if self._source else 0)

    def capture(self, step: int) -> SnapshotInfo:
        """Take a snapshot; it is a candidate until it is promoted.

        Raises:
            SnapshotError: Nothing was captured, for the reason that it gives; snapshots from before are as they were.
        """
        return self.finish(self.begin(step))

    def begin(self, step: int) -> int:
        """Start a capture and return its id: copies from a GPU go on while the program does.

        What is queued on the GPU afterwards waits for the copies, so the next update cannot tear them. Memory of the
        CPU is copied at once.

        Raises:
            SnapshotError: As for `capture`.
        """
        if len(self._pending) >= self._most_candidates:
            ids = ", ".join(str(id_) for id_ in self._pending)
            raise SnapshotError(
                f"snapshot {ids} is still on probation, and its buffer is the spare one: promote or discard it first",
                reason="busy",
            )
        started = time.perf_counter()
        id_, self._next = self._next, self._next + 1  # also where it fails: ranks number their captures alike
        captured = self.state.capture()
        source = self._source = bind(captured.members, self._source)
        arena = self._room(source.layout.size, pinned=source.pinned)
        with self._back_on_failure(arena):
            capture = Capture(source, arena)
            kept = Kept(id_, step, started, captured.trees, source.layout, arena, capture)
        self._pending[id_] = kept
        return id_

    def finish(self, id: int) -> SnapshotInfo:  # noqa: A002 -- what it is called everywhere
        """Wait for a capture that was begun, and check it.

        Raises:
            SnapshotError: A tensor holds a value that is not finite (the first one is named), or there is no such
                candidate. The capture is gone; snapshots from before are as they were.
        """
        kept = self._candidate(id)
        if kept.info is not None:
            return kept.info
        if kept.capture is None:
            raise SnapshotError(f"snapshot {id} was never begun", reason="unknown")
        try:
            kept.checksums, bad = kept.capture.finish()
            if bad is not None:
                raise SnapshotError(
                    f"`{bad.name}` holds a value that is not finite after step {kept.step}, so the state is not worth "
                    "keeping: look for the step that made it, or restore a snapshot from before",
                    reason="not-finite",
                )
            kept.info = _info(kept, finite=not self.state.unchecked)
        except BaseException:
            self.discard(id)
            raise
        kept.capture = None
        return kept.info

    def promote(self, id: int) -> SnapshotInfo:  # noqa: A002
        """Commit a candidate; if there are more than `slots` now, the one that is needed least goes.

        Raises:
            SnapshotError: There is no such candidate, it is not finite, or it was committed and the folder for
                `spill` could not be written (reason ``disk``).
        """
        info = self.finish(id)
        kept = self._pending.pop(id)
        self._commit(kept)
        if self.spill is not None:
            disk.write(self.spill, _saved(kept, info))
            disk.keep_only(self.spill, [one.id for one in self._committed])
        return info

    def discard(self, id: int) -> None:  # noqa: A002
        """Drop a candidate, or a committed snapshot that is no longer wanted; its buffer is used again.

        Raises:
            SnapshotError: There is no such snapshot, or it is the only committed one.
        """
        if id in self._pending:
            kept = self._pending.pop(id)
            if kept.capture is not None:
                kept.capture.wait()  # a GPU may still write into the buffer
        else:
            kept = self._find(id)
            if len(self._committed) == 1:
                raise SnapshotError(f"snapshot {id} is the only committed one: commit another one first", reason="busy")
            self._committed.remove(kept)
            if self.spill is not None:
                disk.keep_only(self.spill, [one.id for one in self._committed])
        self._release(kept.arena)

    def verify(self, id: int) -> None:  # noqa: A002
        """Compare every byte of a committed snapshot with what was captured.

        Raises:
            SnapshotError: It is damaged (what is, is named), or there is no such snapshot.
        """
        verify(self._find(id))

    def restore(self, id: int) -> RestoreReport:  # noqa: A002
        """Put the run back to a committed snapshot, in place: tensors keep their identity, gradients are cleared.

        Everything that can be checked is checked before anything is changed.

        Raises:
            SnapshotError: Nothing was changed: the snapshot is damaged, the run has another structure now, memory is
                short, or a component refused its state (and all that loaded theirs before it got back what they had).
            RollbackFailed: It broke off half-way; the snapshot is intact and can be restored again.
        """
        return self.prepare(id).commit()

    def prepare(self, id: int) -> Prepared:  # noqa: A002
        """Do the part of a restore that may fail and can be taken back, so that several processes can do it together.

        Raises:
            SnapshotError: As for `restore`; nothing was changed.
        """
        return prepare(self.state, self._find(id), self._source)

    def checksums(self, id: int) -> dict[str, int]:  # noqa: A002
        """Return the checksum of the memory that each tensor of a snapshot lies in, by the name of the tensor."""
        kept = next((one for one in self._holders() if one.id == id), None) or self._find(id)
        return {view.name: kept.checksums[view.piece] for view in kept.layout.views}

    def load(self, path: Path) -> SnapshotInfo:
        """Add a snapshot that was written to a folder, as the newest committed one.

        Raises:
            SnapshotError: A file is missing or damaged (it is named), or the memory cap does not allow it.
        """
        saved, fill = disk.read(path)
        arena = self._room(saved.layout.size, pinned=any(view.device.type == "cuda" for view in saved.layout.views))
        with self._back_on_failure(arena):
            fill(arena.tensor)
            id_ = max(saved.id, self._next)
            kept = Kept(id_, saved.step, time.perf_counter(), saved.trees, saved.layout, arena, None, saved.checksums)
            verify(kept, f" (`{path}`)")
            kept.info = _info(kept, finite=saved.finite)
        self._next = id_ + 1
        self._commit(kept)
        return kept.info

    def _holders(self) -> Iterator[Kept]:
        yield from self._committed
        yield from self._pending.values()

    def _candidate(self, id_: int) -> Kept:
        if id_ not in self._pending:
            listed = ", ".join(str(one) for one in self._pending) or "none"
            raise SnapshotError(f"there is no candidate {id_}: the candidates are {listed}", reason="unknown")
        return self._pending[id_]

    def _find(self, id_: int) -> Kept:
        for kept in self._committed:
            if kept.id == id_:
                return kept
        listed = ", ".join(str(kept.id) for kept in self._committed) or "none"
        remedy = "promote it first" if id_ in self._pending else f"the committed ones are {listed}"
        raise SnapshotError(f"snapshot {id_} is not committed: {remedy}", reason="unknown")

    def _commit(self, kept: Kept) -> None:
        self._promotions += 1
        kept.number = self._promotions
        self._committed.append(kept)
        while len(self._committed) > self.slots:
            number = superfluous([one.number for one in self._committed], self.slots)
            gone = next(one for one in self._committed if one.number == number)
            self._committed.remove(gone)
            self._release(gone.arena)

    def _room(self, size: int, *, pinned: bool) -> Arena:
        """Return a buffer of a size that holds no snapshot."""
        buffers = self.slots + self._most_candidates
        if self.memory_cap is not None and buffers * size > self.memory_cap:
            raise SnapshotError(
                f"snapshots need {buffers * size} bytes ({self.slots} slots and {self._most_candidates} to write to, "
                f"of {size} each), and `memory_cap` allows {self.memory_cap}: raise it, or lower `slots`",
                reason="memory",
            )
        for arena in self._free:
            if (arena.size, arena.pinned) == (size, pinned):
                self._free.remove(arena)
                return arena
        self._free.clear()  # of tensors that are gone, or came since: what they held is given back first
        while len(self._committed) + len(self._pending) >= buffers and len(self._committed) > 1:
            self._committed.pop(0)  # a snapshot that is loaded takes the place of the oldest
        try:
            return Arena(size, pinned=pinned)
        except (RuntimeError, MemoryError) as error:
            raise SnapshotError(
                f"no memory for a snapshot of {size} bytes ({first_line(error)}): lower `slots`, or free memory. "
                "Snapshots from before are as they were",
                reason="memory",
            ) from error

    def _release(self, arena: Arena) -> None:
        # Only buffers of the present size will be asked for again.
        if self._source is not None and arena.size == self._source.layout.size:
            self._free.append(arena)

    @contextmanager
    def _back_on_failure(self, arena: Arena) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._release(arena)
            raise


def superfluous(numbers: Sequence[int], slots: int) -> int:
    """Return which of the promotions goes; `numbers` are in order, and more than `slots`."""
    needed, before = set(), numbers[-1] + 1
    for level in range(slots):
        fitting = [number for number in numbers if number < before and number % 2**level == 0]
        if not fitting:
            break
        before = fitting[-1]
        needed.add(before)
    return max(number for number in numbers if number not in needed)


def _info(kept: Kept, *, finite: bool) -> SnapshotInfo:
    digest = hashlib.blake2b(digest_size=8)
    for checksum in kept.checksums:
        digest.update(checksum.to_bytes(8, "little"))
    return SnapshotInfo(
        id=kept.id,
        step=kept.step,
        bytes=kept.layout.bytes,
        seconds=time.perf_counter() - kept.started,
        components=tuple(kept.trees),
        tensors=len(kept.layout.views),
        finite=finite,
        checksum=digest.hexdigest(),
    )


def _saved(kept: Kept, info: SnapshotInfo) -> disk.Saved:
    return disk.Saved(kept.id, kept.step, info.finite, kept.trees, kept.layout, kept.checksums, kept.arena.tensor)
