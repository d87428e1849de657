"""Bytes between a running model and an arena: out in one pass, checked and fingerprinted; back in place.

On the CPU one native pass copies, checks and sums. From a GPU the bytes go to pinned memory on a stream of their own,
ordered by events on both sides: they are read after the work that was queued before, and what is queued afterwards
(the next update) waits for them. Nothing reads the arena before the event: `Capture.finish` waits for it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from flyball._native import snapshot_gather, snapshot_inspect, snapshot_scatter
from flyball.errors import SnapshotError
from flyball.govern.snapshot.layout import (
    Layout,
    Member,
    View,
    array_of,
    bytes_of,
    lay_out,
    lazily_changed,
    local,
    mark,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    # The checksum of a piece, and where in it the first value begins that is not finite.
    Finding = tuple[int, int | None]


class Arena:
    """Memory for one snapshot, allocated once and written again and again."""

    def __init__(self, size: int, *, pinned: bool) -> None:
        self.size = size
        self.pinned = pinned
        # NumPy asks the system for huge pages, which a plain tensor does not get; copies into them are faster.
        self.tensor = torch.empty(size, dtype=torch.uint8, pin_memory=True) if pinned else torch.from_numpy(_room(size))
        self.array: NDArray[np.uint8] = self.tensor.numpy()


@dataclass
class Source:
    """A layout and the live memory behind it. Valid while the marks of the tensors stay the same."""

    layout: Layout
    members: list[Member]
    marks: list[tuple[object, ...]]
    arrays: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Of pieces in main memory, their bytes."""
    devices: tuple[torch.device, ...] = ()

    @property
    def pinned(self) -> bool:
        """Whether a GPU will write to the arena."""
        return bool(self.devices)


def bind(members: list[Member], before: Source | None) -> Source:
    """Lay tensors out, or return the layout from before if they still lie where they lay."""
    known = before.marks if before is not None else []
    if before is not None and len(known) == len(members) and all(map(operator.eq, map(mark, members), known)):
        return before
    marks = list(map(mark, members))
    layout = lay_out(members)
    arrays = {}
    for number, piece in enumerate(layout.pieces):
        owner = members[piece.owner].tensor
        if not piece.packed and owner.device.type == "cpu":
            arrays[number] = array_of(owner, piece.size)
    devices = dict.fromkeys(member.tensor.device for member in members if member.tensor.is_cuda)
    return Source(layout, members, marks, arrays, tuple(devices))


class Capture:
    """Bytes on their way into an arena. `finish` waits for them and says what they are."""

    def __init__(self, source: Source, arena: Arena) -> None:
        self._layout = source.layout
        self._arena = arena
        self._findings: dict[int, Finding] = {}
        self._events: list[torch.cuda.Event] = []
        try:
            _copy_from_devices(source, arena, self._events)
            self._copy_from_main_memory(source, arena)
        except BaseException:
            self.wait()  # nobody may get the arena while a GPU still writes to it
            raise

    def _copy_from_main_memory(self, source: Source, arena: Arena) -> None:
        with torch.no_grad():
            for piece in source.layout.pieces:
                owner = source.members[piece.owner].tensor
                if piece.packed and piece.size and not owner.is_cuda:
                    stored(arena.tensor, source.layout, piece.owner).copy_(owner)
        numbers = list(source.arrays)
        pieces = [source.layout.pieces[number] for number in numbers]
        seen = snapshot_gather(
            arena.array,
            [piece.offset for piece in pieces],
            list(source.arrays.values()),
            [piece.lane for piece in pieces],
            torch.get_num_threads(),
        )
        self._findings.update(zip(numbers, seen, strict=True))

    def wait(self) -> None:
        """Wait until no GPU writes to the arena any more."""
        for event in self._events:
            event.synchronize()

    def finish(self) -> tuple[list[int], View | None]:
        """Wait; return the checksum of every piece, and the first tensor that holds a value that is not finite."""
        self.wait()
        layout, arena = self._layout, self._arena
        unseen = [number for number in range(len(layout.pieces)) if number not in self._findings]
        self._findings.update(zip(unseen, inspect(arena, layout, unseen), strict=True))
        bad = [(number, offset) for number, (_, offset) in self._findings.items() if offset is not None]
        first = [layout.views.index(layout.view_at(number, offset)) for number, offset in bad]
        # Memory that is read as several types is checked as each of them.
        first += [index for index in layout.apart if not _is_finite(stored(arena.tensor, layout, index))]
        checksums = [self._findings[number][0] for number in range(len(layout.pieces))]
        return checksums, layout.views[min(first)] if first else None


def inspect(arena: Arena, layout: Layout, numbers: Iterable[int]) -> list[Finding]:
    """Return what is in some pieces of an arena now."""
    pieces = [layout.pieces[number] for number in numbers]
    return snapshot_inspect(
        arena.array,
        [piece.offset for piece in pieces],
        [piece.size for piece in pieces],
        [piece.lane for piece in pieces],
        torch.get_num_threads(),
    )


def made_anew(arena: Arena, layout: Layout, index: int) -> torch.Tensor:
    """Return a captured tensor that owns its memory, where it was."""
    return stored(arena.tensor, layout, index).clone().to(layout.views[index].device)


@dataclass
class Writes:
    """Live memory to be filled from an arena, planned before anything is written."""

    layout: Layout
    tensors: list[torch.Tensor]
    whole: list[tuple[torch.Tensor, int, int, int | None]]
    """The first tensor of live memory, its offset in the arena, its bytes, and the piece if it is all of one."""
    single: list[tuple[int, torch.Tensor]]
    """Tensors whose memory is now laid out in another way, and the captured one each takes its values from."""
    arrays: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """The bytes of pieces that are at hand already."""

    def run(self, arena: Arena, checksums: Sequence[int]) -> list[str]:
        """Write everything in place, a piece at a time; return the names of what was not as verified on its way."""
        near = [write for write in self.whole if write[0].device.type == "cpu" and write[2]]
        targets = [
            self.arrays[piece] if piece is not None and piece in self.arrays else array_of(tensor, size)
            for tensor, _, size, piece in near
        ]
        arrived = snapshot_scatter(arena.array, [offset for _, offset, _, _ in near], targets, torch.get_num_threads())
        with torch.no_grad():
            for tensor, offset, size, _ in self.whole:
                if tensor.is_cuda and size:
                    bytes_of(tensor, size).copy_(arena.tensor[offset : offset + size])
            for index, tensor in self.single:
                tensor.copy_(stored(arena.tensor, self.layout, index))
        for tensor in self.tensors:
            # Written behind autograd's back: a graph that saved the old values must not use the new ones silently.
            if not tensor.is_inference():
                torch.autograd.graph.increment_version(tensor)
        return [
            self.layout.views[self.layout.pieces[number].owner].name
            for (_, _, _, number), checksum in zip(near, arrived, strict=True)
            if number is not None and checksum != checksums[number]
        ]


def plan_writes(layout: Layout, targets: Sequence[tuple[int, torch.Tensor]], source: Source | None) -> Writes:
    """Find out how live tensors take the bytes of captured ones; `source` is where the newest capture read from.

    Raises:
        SnapshotError: Tensors share memory now that was not shared at the capture.
    """
    if source is not None and source.layout is layout and _unmoved(source, targets):
        return _straight_back(source)
    members = [Member(layout.views[index].name, local(layout.views[index].name, tensor)) for index, tensor in targets]
    live = lay_out(members)
    of_piece: dict[int, list[int]] = {}
    for number, view in enumerate(live.views):
        of_piece.setdefault(view.piece, []).append(number)
    writes = Writes(layout, [member.tensor for member in members], [], [])
    for number, piece in enumerate(live.pieces):
        numbers = of_piece[number]
        pairs = [(live.views[one], layout.views[targets[one][0]]) for one in numbers]
        places = {(saved.piece, saved.start - now.start) for now, saved in pairs}
        saved_piece, start = next(iter(places))
        mirror = layout.pieces[saved_piece]
        alike = all(now.stride == saved.stride for now, saved in pairs) and not piece.packed and not mirror.packed
        if alike and len(places) == 1 and start >= 0 and start + piece.size <= mirror.size:
            whole = saved_piece if (start, piece.size) == (0, mirror.size) else None
            writes.whole.append((members[piece.owner].tensor, mirror.offset + start, piece.size, whole))
        elif len({(saved.piece, saved.start, saved.stride, now.start, now.shape) for now, saved in pairs}) == 1:
            first = members[numbers[0]].tensor
            writes.single.append((targets[numbers[0]][0], first))
        else:
            names = ", ".join(f"`{members[one].name}`" for one in numbers[:8])
            raise SnapshotError(
                f"{names} share memory now, and had values of their own in the snapshot: untie them first, or "
                "restore a snapshot taken after they were tied",
                reason="structure",
            )
    return writes


def _unmoved(source: Source, targets: Sequence[tuple[int, torch.Tensor]]) -> bool:
    """Say whether the tensors are all those that the source has, where they were."""
    if len(targets) != len(source.members):
        return False
    for index, tensor in targets:
        name, _, checked, sharded = source.members[index]
        if mark(Member(name, local(name, tensor), checked, sharded)) != source.marks[index]:
            return False
    return True


def _straight_back(source: Source) -> Writes:
    """Return the writes that are the capture turned round."""
    writes = Writes(source.layout, [member.tensor for member in source.members], [], [], source.arrays)
    for number, piece in enumerate(source.layout.pieces):
        tensor = source.members[piece.owner].tensor
        if piece.packed and piece.size:
            writes.single.append((piece.owner, tensor))
        elif piece.size:
            writes.whole.append((tensor, piece.offset, piece.size, number))
    return writes


def fence(layout: Layout) -> None:
    """Wait until every GPU of a layout has done what was queued."""
    for device in dict.fromkeys(view.device for view in layout.views):
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _copy_from_devices(source: Source, arena: Arena, events: list[torch.cuda.Event]) -> None:
    """Queue the copies of what lies on GPUs, and note the events after which the arena may be read."""
    for device in source.devices:
        current = torch.cuda.current_stream(device)
        side = _side_stream(device)
        side.wait_stream(current)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        try:
            with torch.no_grad(), torch.cuda.stream(side):
                for piece in source.layout.pieces:
                    owner = source.members[piece.owner].tensor
                    if owner.device != device or not piece.size:
                        continue
                    if piece.packed:
                        stored(arena.tensor, source.layout, piece.owner).copy_(owner, non_blocking=True)
                    else:
                        room = arena.tensor[piece.offset : piece.offset + piece.size]
                        room.copy_(bytes_of(owner, piece.size), non_blocking=True)
        finally:  # also after a failure: what was queued has to be waited for
            event.record(side)
            events.append(event)
        current.wait_event(event)


def _room(size: int) -> NDArray[np.uint8]:
    """Return memory that begins at a cache line."""
    raw = np.empty(size + 63, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size]


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    # From torch's own pool: a stream of flyball's own for every capture would fragment its allocator.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _is_finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all()) if not lazily_changed(tensor) else True
