"""Snapshots on the disk: a folder for each, with `tensors.safetensors` and `snapshot.json`.

Every run writes into a folder of its own, so that two runs, or a run and the one that goes on where it ended, can be
given the same place: neither removes what the other needs. A snapshot's folder is written under a temporary name,
flushed, and renamed, so it is there whole or not at all. Every tensor can be opened with safetensors under the name it
has in the model. Nothing is unpickled: the plain data are JSON, with a tag where JSON has no word (a tuple, bytes, an
array, NaN).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from flyball.errors import SnapshotError
from flyball.govern.snapshot.layout import Layout, Piece, View, span_of
from flyball.govern.snapshot.plain import Leaf, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

TENSORS, PLAIN = "tensors.safetensors", "snapshot.json"
FORMAT = 1

_FOLDER = re.compile(r"snapshot-(\d{8,18})")
_RUN = re.compile(r"run-\d{8}T\d{12}-[0-9a-f]{8}")
# Read as what it is where safetensors has the type; as bytes otherwise.
_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

# By name, and no other attribute of torch by whatever name a file holds.
_DTYPES = {str(one): one for one in vars(torch).values() if isinstance(one, torch.dtype)}


@dataclass(frozen=True)
class Saved:
    """A snapshot as it is written and read; `arena` is empty in one that was read."""

    id: int
    step: int
    finite: bool
    trees: dict[str, Any]
    layout: Layout
    checksums: list[int]
    arena: torch.Tensor


def folder_of_this_run(place: Path) -> Path:
    """Return a folder that no other run writes to; it is made when the first snapshot is written."""
    return place / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:8]}"


def write(folder: Path, saved: Saved, name: str | None = None) -> Path:
    """Write a snapshot into a folder of its own and return that folder.

    Args:
        folder: Where its folder goes; made if need be.
        saved: What is written.
        name: What its folder is called, by default after its id.

    Raises:
        SnapshotError: The disk refuses, or something in the plain data has no form in JSON; it is named. Nothing is
            left behind, and folders from before are as they were.
    """
    final = folder / (name or f"snapshot-{saved.id:08}")
    temporary = folder / f".{final.name}.{os.getpid()}.part"
    plain = _plain(saved)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write_tensors(temporary / TENSORS, saved)
        _write_flushed(temporary / PLAIN, [plain])
        _flush_folder(temporary)
        if final.exists():
            shutil.rmtree(final)  # the same id, from a run before this one
        temporary.rename(final)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SnapshotError(
            f"snapshot {saved.id} is committed in memory, but could not be written to `{final}` "
            f"({error.strerror or error}): make room there; snapshots written before are as they were",
            reason="disk",
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def keep_only(folder: Path, ids: Collection[int]) -> None:
    """Remove the snapshots of a folder that are no longer kept, and what a killed process left half-written."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = _FOLDER.fullmatch(path.name)
        if (match and int(match[1]) not in ids) or re.fullmatch(r"\.snapshot-\d+\.\d+\.part", path.name):
            shutil.rmtree(path, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """Return the snapshots of a folder, and of the runs in it: the runs by their beginning, each one's oldest first."""
    if not folder.is_dir():
        return []
    inside = sorted(folder.iterdir())
    here = [path for path in inside if _FOLDER.fullmatch(path.name)]
    return here + [path for run in inside if _RUN.fullmatch(run.name) for path in found(run)]


def read(path: Path) -> tuple[Saved, Callable[[torch.Tensor], None]]:
    """Read a snapshot's plain data; return it, and a function that reads its tensors into an arena.

    Raises:
        SnapshotError: A file is missing or damaged; it is named.
    """
    try:
        body = _checked((path / PLAIN).read_bytes())
        pieces = tuple(Piece(*entry) for entry in body["pieces"])
        views = tuple(
            View(name, piece, start, tuple(shape), tuple(stride), _DTYPES[dtype], torch.device(device), sharded)
            for name, piece, start, shape, stride, dtype, device, sharded in body["views"]
        )
        layout = Layout(views, pieces, body["size"], sum(piece.size for piece in pieces), tuple(body["apart"]))
        _check_layout(layout)
        trees = decode(body["trees"])
        checksums = [int(one, 16) for one in body["checksums"]]
        if len(checksums) != len(pieces) or not all(isinstance(number, int) for number in (body["id"], body["step"])):
            raise ValueError("its parts do not fit each other")
        saved = Saved(
            body["id"], body["step"], bool(body["finite"]), trees, layout, checksums, torch.empty(0, dtype=torch.uint8)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _damaged(path / PLAIN, error) from error
    return saved, lambda arena: _read_tensors(path / TENSORS, layout, arena)


def _write_tensors(path: Path, saved: Saved) -> None:
    # By hand, as the library's own function refuses tensors that share a storage, and our arena is one; it would take
    # a second copy of everything to please it. The format is a length, a JSON header, and the bytes in order.
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "flyball": "snapshot"}}
    cursor = 0
    for number, piece in enumerate(saved.layout.pieces):
        type_, shape = _declared(saved.layout, piece)
        header[_key(saved.layout, number)] = {
            "dtype": type_, "shape": shape, "data_offsets": [cursor, cursor + piece.size],
        }  # fmt: skip
        cursor += piece.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    array = saved.arena.numpy()
    spans = (array[piece.offset : piece.offset + piece.size].data for piece in saved.layout.pieces)
    _write_flushed(path, [len(text).to_bytes(8, "little"), text, *(span for span in spans if span.nbytes)])


def _read_tensors(path: Path, layout: Layout, arena: torch.Tensor) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for number, piece in enumerate(layout.pieces):
                tensor = file.get_tensor(_key(layout, number))
                raw = tensor.contiguous().reshape(-1).view(torch.uint8)
                arena[piece.offset : piece.offset + piece.size].copy_(raw)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _key(layout: Layout, number: int) -> str:
    return f"{number}:{layout.views[layout.pieces[number].owner].name}"


def _declared(layout: Layout, piece: Piece) -> tuple[str, list[int]]:
    """Return type and shape of a piece if it is one contiguous tensor; those of bytes otherwise."""
    view = layout.views[piece.owner]
    numbers = list(range(len(view.shape)))
    steps, step = [0] * len(numbers), 1
    for dimension in reversed(numbers):
        steps[dimension] = step
        step *= view.shape[dimension]
    plain = all(view.shape[d] == 1 or view.stride[d] == steps[d] for d in numbers)
    if plain and view.start == 0 and step * view.dtype.itemsize == piece.size and view.dtype in _TYPES:
        return _TYPES[view.dtype], list(view.shape)
    return "U8", [piece.size]


def _write_flushed(path: Path, parts: list[Any]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(saved: Saved) -> bytes:
    layout = saved.layout
    body = {
        "id": saved.id,
        "step": saved.step,
        "finite": saved.finite,
        "size": layout.size,
        "apart": list(layout.apart),
        "pieces": [[one.offset, one.size, one.lane, one.owner, one.packed] for one in layout.pieces],
        "views": [
            [one.name, one.piece, one.start, one.shape, one.stride, str(one.dtype), str(one.device), one.sharded]
            for one in layout.views
        ],
        "checksums": [f"{one:016x}" for one in saved.checksums],
        "trees": encode(saved.trees, "state"),
    }
    text = json.dumps(body, allow_nan=False)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f'{{"format": {FORMAT}, "blake2b": "{digest}", "body":\n{text}}}\n'.encode()


def _checked(content: bytes) -> dict[str, Any]:
    """Return the body of a file whose digest is right."""
    head, _, rest = content.partition(b"\n")
    text = rest.removesuffix(b"}\n")
    document: dict[str, Any] = json.loads(content)
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']}, and this version reads {FORMAT}")
    if hashlib.blake2b(text, digest_size=16).hexdigest() != document["blake2b"]:
        raise ValueError("its content is not what was written")
    if json.loads(head + b"null}")["body"] is not None:
        raise ValueError("it has no body")
    body: dict[str, Any] = document["body"]
    return body


def _check_layout(layout: Layout) -> None:
    """Refuse offsets that point outside: what comes from a file is not trusted to be what we wrote."""
    if not all(0 <= index < len(layout.views) for index in layout.apart):
        raise ValueError("it names a tensor that is not there")
    for piece in layout.pieces:
        if not (piece.offset >= 0 and piece.size >= 0 and piece.offset + piece.size <= layout.size):
            raise ValueError("a piece lies outside")
        if not 0 <= piece.owner < len(layout.views):
            raise ValueError("a piece is nobody's")
    for view in layout.views:
        inside = 0 <= view.piece < len(layout.pieces) and view.start >= 0 and len(view.shape) == len(view.stride)
        if not inside or view.start + span_of(view) > layout.pieces[view.piece].size:
            raise ValueError(f"`{view.name}` lies outside")


# Plain data in JSON. Numbers, strings, None, booleans and lists are themselves; everything else is {tag: content}.
_SIMPLE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    tuple: ("tuple", list),
    set: ("set", list),
    frozenset: ("frozenset", list),
    torch.Size: ("size", list),
}


def encode(value: Tree, name: str) -> Tree:  # noqa: C901, PLR0911 -- one branch for each kind of data
    """Return plain data as JSON holds them, with a tag where it has no word.

    Args:
        value: A frozen tree.
        name: What it is called in messages.

    Raises:
        SnapshotError: Something in it has no form in a file without code; it is named.
    """
    kind = type(value)
    if value is None or kind in {bool, int, str}:
        return value
    if kind is float:
        return value if np.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return [encode(one, f"{name}[{index}]") for index, one in enumerate(value)]
    if kind in {dict, OrderedDict, Counter, defaultdict}:
        items = [[encode(key, name), encode(one, f"{name}.{key}")] for key, one in value.items()]
        factory = getattr(value, "default_factory", None)
        if factory not in {None, dict, list, int, float, set}:
            raise _no_form(name, factory)
        tags = {dict: "dict", OrderedDict: "ordered", Counter: "counter", defaultdict: "default"}
        return {tags[kind]: items, **({"factory": factory.__name__} if factory is not None else {})}
    if kind in _SIMPLE:
        tag, listed = _SIMPLE[kind]
        return {tag: [encode(one, f"{name}[{index}]") for index, one in enumerate(listed(value))]}
    if kind is deque:
        return {"deque": [encode(one, name) for one in value], "most": value.maxlen}
    if kind is Leaf:
        return {"tensor": value.index}
    if kind is complex:
        return {"complex": [repr(value.real), repr(value.imag)]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        content = base64.b64encode(value.tobytes()).decode()
        return {
            "array": content,
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "scalar": kind is not np.ndarray,
        }
    if isinstance(value, torch.dtype | torch.device):
        return {"torch": str(value) if isinstance(value, torch.dtype) else f"device:{value}"}
    raise _no_form(name, value)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "dict": lambda content: {decode(key): decode(one) for key, one in content},
    "ordered": lambda content: OrderedDict((decode(key), decode(one)) for key, one in content),
    "counter": lambda content: Counter({decode(key): decode(one) for key, one in content}),
    "tuple": lambda content: tuple(map(decode, content)),
    "set": lambda content: set(map(decode, content)),
    "frozenset": lambda content: frozenset(map(decode, content)),
    "size": lambda content: torch.Size(map(decode, content)),
    "tensor": Leaf,
    "complex": lambda content: complex(float(content[0]), float(content[1])),
    "bytes": base64.b64decode,
    "torch": lambda content: (
        torch.device(content.removeprefix("device:")) if content.startswith("device:") else _DTYPES[content]
    ),
}
_FACTORIES: dict[str | None, Any] = {None: None, "dict": dict, "list": list, "int": int, "float": float, "set": set}


def decode(value: Tree) -> Tree:
    """Return what `encode` was given; what comes from a file may raise any of the errors of a wrong type or value."""
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        dtype = np.dtype(value["dtype"])
        if dtype.hasobject:
            raise ValueError("an array of objects")
        array = np.frombuffer(base64.b64decode(value["array"]), dtype).reshape(value["shape"])
        return array[()] if value["scalar"] else array.copy()
    if "default" in value:
        items = ((decode(key), decode(one)) for key, one in value["default"])
        return defaultdict(_FACTORIES[value.get("factory")], items)
    if "deque" in value:
        return deque(map(decode, value["deque"]), maxlen=value["most"])
    (tag, content), *_ = value.items()
    return _DECODERS[tag](content)


def _no_form(name: str, value: object) -> SnapshotError:
    return SnapshotError(
        f"`{name}` is a `{type(value).__module__}.{type(value).__qualname__}`, which has no form in a file without "
        "code: keep it out of the state_dict, or do not use `spill`",
        reason="unsupported",
    )


def _damaged(path: Path, error: BaseException) -> SnapshotError:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return SnapshotError(f"`{path}` cannot be read ({why}): restore an older snapshot", reason="damaged")
