"""Where the bytes of tensors lie: in the memory they live in, and in the arena that mirrors it.

Tensors that share memory (tied weights, views, expanded buffers) are one piece, stored once. A tensor whose elements
leave gaps between them is packed, so that what lies in the gaps is neither stored nor overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from flyball.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Every piece begins at a cache line, plus what its address is behind a multiple of this (the widest element).
_LINE, _WIDEST = 64, 16

# How the native pass reads a type; what is not here holds no value that is not finite.
_LANES = {
    torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64",
    torch.complex32: "float16", torch.complex64: "float32", torch.complex128: "float64",
    torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2",
}  # fmt: skip


_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})


class Member(NamedTuple):
    """A tensor of the state, under the name that messages give it."""

    name: str
    tensor: torch.Tensor
    checked: bool = True
    sharded: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as it was laid out: its geometry, and where in which piece it begins."""

    name: str
    piece: int
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    sharded: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the arena that mirror memory which belongs together."""

    offset: int
    size: int
    lane: str
    owner: int
    """The number of the view that names it, and whose memory begins it."""
    packed: bool


@dataclass(frozen=True)
class Layout:
    """Every view and every piece of a state, and the arena they need."""

    views: tuple[View, ...]
    pieces: tuple[Piece, ...]
    size: int
    """The bytes of the arena, with what aligns its pieces."""
    bytes: int
    """The bytes of the pieces: what the tensors occupy, each byte once."""
    apart: tuple[int, ...]
    """Views of pieces that are read as several types; each is checked by itself."""

    def view_at(self, piece: int, offset: int) -> View:
        """Return the first view whose elements may hold a byte of a piece."""
        for view in self.views:
            if view.piece == piece and view.start <= offset < view.start + span_of(view):
                return view
        return self.views[self.pieces[piece].owner]


def span_of(view: View) -> int:
    """Return the bytes from a view's first element to its last."""
    return _span(view.shape, view.stride, view.dtype.itemsize)


def local(name: str, tensor: torch.Tensor) -> torch.Tensor:  # noqa: C901 -- a list of what cannot be mirrored, and why
    """Return the tensor whose memory is this process's own: of a distributed tensor, its shard.

    Raises:
        SnapshotError: The memory cannot be mirrored; the message says what to do.
    """
    if type(tensor) in _PLAIN and tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.data_ptr():
        return tensor  # nearly all of them, a thousand times a capture
    kind: str | None = None
    remedy = "leave it out of the state that is captured"
    if is_lazy(tensor):
        kind, remedy = "not initialised yet", "run one forward pass first"
    elif hasattr(tensor, "to_local"):
        with torch.no_grad():  # with it, the shard itself and not a copy in a graph
            tensor = tensor.to_local()
        if tensor.__class__.__name__ == "AsyncCollectiveTensor":
            kind, remedy = "still in flight", "wait for it first"
    if kind is None:
        if tensor.layout != torch.strided:
            kind, remedy = f"of layout `{tensor.layout}`", "keep it dense (`.to_dense()`); sparse gradients are fine"
        elif tensor.is_quantized:
            kind, remedy = "quantized", "keep its integers and its scale as separate tensors"
        elif tensor.is_nested or hasattr(tensor, "__tensor_flatten__"):
            kind, remedy = f"a `{type(tensor).__qualname__}`", "keep the tensors inside it instead"
        elif tensor.device.type == "meta":
            kind, remedy = "on the meta device", "materialise it with `to_empty` and initialise it first"
        elif tensor.dtype.is_floating_point and tensor.dtype not in _LANES and tensor.dtype.itemsize == 1:
            kind, remedy = f"of `{tensor.dtype}`, which cannot be checked", "use `float8_e4m3fn` or `float8_e5m2`"
        elif tensor.numel() and not tensor.data_ptr():
            kind, remedy = "without memory at present", "capture between steps, when its storage is there"
    if kind is not None:
        raise SnapshotError(f"`{name}` is {kind}: {remedy}", reason="unsupported")
    return tensor


def mark(member: Member) -> tuple[object, ...]:
    """Return what the layout of a tensor hangs on, its memory included."""
    name, tensor, checked, sharded = member
    return (
        name, checked, sharded, tensor.data_ptr(), tensor.untyped_storage().nbytes(), tensor.shape, tensor.stride(),
        tensor.dtype, tensor.device,
    )  # fmt: skip


@dataclass(slots=True)
class _Run:
    """Memory without gaps that some views lie in."""

    begin: int
    end: int
    views: list[int]
    owner: int


def lay_out(members: Sequence[Member]) -> Layout:
    """Find the pieces of dense tensors of this process, and give each its place in an arena."""
    runs = _runs(members)
    views: dict[int, View] = {}
    pieces: list[Piece] = []
    apart: list[int] = []
    cursor = 0
    for run, packed in runs:
        size = run.end - run.begin
        lanes = {_lane(members[index]) for index in run.views}
        if len(lanes) > 1:
            apart += [index for index in run.views if _lane(members[index]) != "opaque"]
        lane = lanes.pop() if len(lanes) == 1 else "opaque"
        offset = cursor + (0 if packed else run.begin % _WIDEST)
        for index in run.views:
            name, tensor, _, sharded = members[index]
            geometry = tuple(tensor.shape), tuple(_packed(tensor.shape) if packed else tensor.stride())
            start = tensor.data_ptr() - run.begin if tensor.numel() and not packed else 0
            views[index] = View(name, len(pieces), start, *geometry, tensor.dtype, tensor.device, sharded)
        pieces.append(Piece(offset, size, lane, run.owner, packed))
        cursor = -(-(offset + size) // _LINE) * _LINE
    ordered = tuple(views[index] for index in range(len(members)))
    return Layout(ordered, tuple(pieces), cursor, sum(piece.size for piece in pieces), tuple(sorted(apart)))


def bytes_of(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Return the bytes of a tensor's memory from its first element on, shared and not copied."""
    with torch.no_grad():
        window = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        start = tensor.storage_offset() * tensor.element_size()
        return window.set_(tensor.untyped_storage(), start, (size,), (1,))


def array_of(tensor: torch.Tensor, size: int) -> NDArray[np.uint8]:
    """Return the bytes of a tensor in main memory, shared and not copied."""
    array: NDArray[np.uint8] = bytes_of(tensor, size).numpy() if size else np.empty(0, np.uint8)
    return array


def lazily_changed(tensor: torch.Tensor) -> bool:
    """Say whether the values are the memory's, conjugated or negated on reading."""
    return tensor.is_conj() or tensor.is_neg()


def stored(arena: torch.Tensor, layout: Layout, index: int) -> torch.Tensor:
    """Return a view of the arena with the values of a tensor that was captured."""
    view = layout.views[index]
    piece = layout.pieces[view.piece]
    begin = piece.offset + view.start
    window = arena[begin : begin + span_of(view)].view(view.dtype)
    return window.as_strided(view.shape, view.stride)


def _lane(member: Member) -> str:
    return _LANES.get(member.tensor.dtype, "opaque") if member.checked else "opaque"


def _span(shape: Sequence[int], stride: Sequence[int], itemsize: int) -> int:
    if 0 in shape:
        return 0
    return (1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))) * itemsize


def _packed(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]


def _without_gaps(tensor: torch.Tensor) -> bool:
    """Say whether the elements cover every byte from the first to the last."""
    reach = 1
    for step, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if step > reach:
                return False
            reach += (size - 1) * step
    return True


def _runs(members: Sequence[Member]) -> list[tuple[_Run, bool]]:
    """Return the memory to mirror, in the order in which it is first named, and whether it is packed."""
    dense: list[tuple[tuple[str, int, int], int, int, int]] = []
    gaps: dict[tuple[object, ...], _Run] = {}
    empty: list[_Run] = []
    for index, (_, tensor, _, _) in enumerate(members):
        storage = tensor.untyped_storage()
        place = (str(tensor.device), storage.data_ptr(), storage.nbytes())
        begin = tensor.data_ptr()
        span = _span(tensor.shape, tensor.stride(), tensor.element_size())
        if span == 0:
            empty.append(_Run(0, 0, [index], index))
        elif tensor.device.type in {"cpu", "cuda"} and not lazily_changed(tensor) and _without_gaps(tensor):
            dense.append((place, begin, begin + span, index))
        else:
            size = tensor.numel() * tensor.element_size()
            key = (place, begin, tensor.shape, tensor.stride(), tensor.dtype, lazily_changed(tensor))
            run = gaps.setdefault(key, _Run(0, size, [], index))
            run.views.append(index)
    dense.sort(key=lambda item: (item[0], item[1], -item[2], item[3]))
    merged: list[_Run] = []
    before: tuple[str, int, int] | None = None
    for place, begin, end, index in dense:
        if merged and place == before and begin < merged[-1].end:
            merged[-1].views.append(index)
            merged[-1].end = max(merged[-1].end, end)
        else:
            merged.append(_Run(begin, end, [index], index))
        before = place
    every = [
        *((run, False) for run in merged),
        *((run, True) for run in gaps.values()),
        *((run, True) for run in empty),
    ]
    return sorted(every, key=lambda item: min(item[0].views))
