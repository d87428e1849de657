"""How a kept snapshot is put back: everything that can be checked first, then in place, and loud if it breaks off."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyball.errors import RollbackFailed, SnapshotError
from flyball.govern.snapshot.components import Component, Plan, Turn
from flyball.govern.snapshot.mirror import fence, inspect, made_anew, plan_writes
from flyball.govern.snapshot.plain import leaves, same, thaw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from flyball.govern.snapshot.layout import Layout
    from flyball.govern.snapshot.mirror import Arena, Capture, Source, Writes
    from flyball.govern.snapshot.state import TrainingState, Undo


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a snapshot is.

    Args:
        id: Its number; later ones have higher numbers.
        step: The step it was taken after, as the caller counts.
        bytes: What its tensors occupy, shared memory counted once.
        seconds: How long the capture took.
        components: The names of what it holds.
        tensors: How many tensors, under all their names.
        finite: Whether every floating value was looked at; false if `unchecked` buffers were left out.
        checksum: Of all tensors: equal states, laid out alike, have equal checksums.
    """

    id: int
    step: int
    bytes: int
    seconds: float
    components: tuple[str, ...]
    tensors: int
    finite: bool
    checksum: str


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    Args:
        id: The snapshot.
        step: The step it was taken after.
        bytes: What was put back.
        seconds: How long it took in all.
        phases: Seconds of each phase, by name, in order.
        components: What was restored, in order.
        created: Tensors that had vanished since and were made anew.
        differs: Components that, read back, do not say what they said at the capture, or nothing at all: their own
            loading left something out, or keeps something on purpose.
    """

    id: int
    step: int
    bytes: int
    seconds: float
    phases: Mapping[str, float]
    components: tuple[str, ...]
    created: tuple[str, ...]
    differs: tuple[str, ...]


@dataclass(slots=True)
class Kept:
    """A snapshot, or one on its way."""

    id: int
    step: int
    started: float
    trees: dict[str, Any]
    layout: Layout
    arena: Arena
    capture: Capture | None
    checksums: list[int] = field(default_factory=list)
    info: SnapshotInfo | None = None
    number: int = 0


@dataclass(slots=True)
class Prepared:
    """A restore of which only what must not fail is left: do it with `commit`, or take it back with `abandon`."""

    kept: Kept
    plans: Mapping[str, tuple[Component, Plan]]
    writes: Writes
    fresh: dict[int, torch.Tensor]
    undo: Undo
    restored: list[str]
    watch: _Watch

    def commit(self) -> RestoreReport:
        """Put everything back.

        Raises:
            RollbackFailed: It broke off half-way.
        """
        kept, plans, watch = self.kept, self.plans, self.watch
        _put_back(kept, plans, self.fresh, writes=self.writes, restored=self.restored, watch=watch)
        differs = _differs(kept, plans)
        watch.lap("compare")
        views = kept.layout.views
        return RestoreReport(
            id=kept.id,
            step=kept.step,
            bytes=kept.layout.bytes,
            seconds=watch.total,
            phases=watch.laps,
            components=tuple(self.restored),
            created=tuple(views[index].name for _, plan in plans.values() for index in plan.fresh if _own(plan, plans)),
            differs=differs,
        )

    def abandon(self) -> None:
        """Leave the run as it was before."""
        self.undo.put_back(self.restored)


def prepare(state: TrainingState, kept: Kept, source: Source | None) -> Prepared:
    """Do everything of a restore that may fail and can be taken back; `source` is where the newest capture read from.

    Raises:
        SnapshotError: Nothing was changed.
        RollbackFailed: A component refused its state, and then also what it had before.
    """
    watch = _Watch()
    plans = state.plan(kept.trees, kept.layout.views)
    targets = [target for _, plan in plans.values() for target in plan.targets]
    writes = plan_writes(kept.layout, targets, source)
    fence(kept.layout)
    watch.lap("plan")
    verify(kept)
    watch.lap("verify")
    fresh = _made_anew(kept, plans)
    undo = state.keep_foreign()
    watch.lap("prepare")
    restored = _load_foreign(kept, plans, fresh, undo)
    watch.lap("foreign")
    return Prepared(kept, plans, writes, fresh, undo, restored, watch)


def verify(kept: Kept, where: str = "") -> None:
    """Compare every byte with what was captured.

    Raises:
        SnapshotError: Something is damaged; it is named.
    """
    found = inspect(kept.arena, kept.layout, range(len(kept.layout.pieces)))
    damaged = [
        kept.layout.views[piece.owner].name
        for piece, (checksum, _), expected in zip(kept.layout.pieces, found, kept.checksums, strict=True)
        if checksum != expected
    ]
    if damaged:
        raise SnapshotError(
            f"snapshot {kept.id}{where} is damaged in {_listed(damaged)}: it is not restored; use an older one",
            reason="damaged",
        )


def _made_anew(kept: Kept, plans: Mapping[str, tuple[Component, Plan]]) -> dict[int, torch.Tensor]:
    try:
        return {index: made_anew(kept.arena, kept.layout, index) for _, plan in plans.values() for index in plan.fresh}
    except (RuntimeError, MemoryError) as error:
        raise SnapshotError(
            f"no memory to make vanished tensors anew ({first_line(error)}): nothing was changed; free memory, "
            "then restore again",
            reason="memory",
        ) from error


def _differs(kept: Kept, plans: Mapping[str, tuple[Component, Plan]]) -> tuple[str, ...]:
    """Read back what foreign code loaded."""
    found = []
    for name, (component, _) in plans.items():
        if component.turn is Turn.FOREIGN:
            try:
                anew = {index: made_anew(kept.arena, kept.layout, index) for index in leaves(kept.trees[name])}
                if same(thaw(kept.trees[name], anew.__getitem__), component.capture()):
                    continue
            except Exception:  # noqa: BLE001, S110 -- the run is restored: a reading that fails must not hide that
                pass
            found.append(name)
    return tuple(found)


class _Watch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        return self._last - self._started


def _load_foreign(
    kept: Kept, plans: Mapping[str, tuple[Component, Plan]], fresh: dict[int, torch.Tensor], undo: Undo
) -> list[str]:
    """Let foreign components load their state; if one fails, give all of them back what they had."""
    loaded: list[str] = []
    for name, (component, plan) in plans.items():
        if component.turn is not Turn.FOREIGN:
            continue
        loaded.append(name)  # before it is: a load that fails half-way has to be undone, too
        try:
            plan.apply(fresh.__getitem__)
        except BaseException as error:
            try:
                undo.put_back(loaded)
            except BaseException as second:  # noqa: BLE001 -- whatever it is, the run must not go on in silence
                raise RollbackFailed(
                    f"`{name}` refused the state of snapshot {kept.id} ({error!r}), and putting back what was there "
                    f"failed as well ({second!r}): the tensors are as before the restore, these are not known",
                    not_restored=tuple(loaded),
                ) from error
            if not isinstance(error, Exception):
                raise
            raise SnapshotError(
                f"`{name}` refused the state of snapshot {kept.id} ({error!r}): nothing was changed. Look at its "
                "`load_state_dict`",
                reason="refused",
            ) from error
    return loaded


def _put_back(
    kept: Kept,
    plans: Mapping[str, tuple[Component, Plan]],
    fresh: dict[int, torch.Tensor],
    *,
    writes: Writes,
    restored: list[str],
    watch: _Watch,
) -> None:
    """Write what cannot be taken back; from here on, a failure is loud."""
    at = "the tensors"
    try:
        damaged = writes.run(kept.arena, kept.checksums)
        watch.lap("copy")
        for name, (component, plan) in plans.items():
            if component.turn is not Turn.FOREIGN:
                at = f"`{name}`"
                plan.apply(fresh.__getitem__)
                restored.append(name)
        watch.lap("apply")
    except BaseException as error:
        missing = tuple(name for name in plans if name not in restored)
        raise RollbackFailed(
            f"restoring snapshot {kept.id} broke off at {at} ({error!r}), with {_listed(restored)} restored and "
            f"{_listed(missing)} not: do not train on; the snapshot is intact, so restore it again or stop the run",
            restored=tuple(restored),
            not_restored=missing,
        ) from error
    if damaged:
        raise RollbackFailed(
            f"{_listed(damaged)} was not what had been verified of snapshot {kept.id} when it was copied: something "
            "else writes to its memory; stop that, then restore an older one",
            not_restored=tuple(plans),
        )


def _own(plan: Plan, plans: Mapping[str, tuple[Component, Plan]]) -> bool:
    """Say whether a plan is that of a component whose tensors normally stay."""
    return any(one is plan and component.turn is Turn.OWN for component, one in plans.values())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(f"`{name}`" for name in names[:8]) + more) or "nothing"


def first_line(error: BaseException) -> str:
    """Return what an allocator says, without its advice."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
