"""Journals as Arrow tables, one for each kind of event, fast enough for a million of them.

Nearly all lines of a journal are of a few kinds whose fields are plain. Arrow parses those itself, on several threads;
a line that holds a number JSON has no word for, and a kind with parts, goes through Python.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from flyball.errors import JournalError, MissingExtraError
from flyball.events import known_events
from flyball.events.fields import holds_more, taken_as_is
from flyball.events.strict_json import decode, encode

try:
    import pyarrow as pa
    from pyarrow import json as arrow_json
except ImportError as error:
    raise MissingExtraError("pyarrow", extra="data", purpose="reading a journal into Arrow") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_ENVELOPE = {
    "run": pa.string(), "rank": pa.int64(), "seq": pa.int64(), "step": pa.int64(), "wall": pa.float64(),
    "monotonic": pa.float64(),
}  # fmt: skip
_TYPES = {bool: pa.bool_(), float: pa.float64(), int: pa.int64(), str: pa.string()}
_PIECE = 1 << 23


def tables(paths: Sequence[Path]) -> dict[str, pa.Table]:
    """Return the events of some journals by kind.

    Raises:
        JournalError: A complete line is not an event.
    """
    parts: dict[str, list[pa.Table]] = {}
    for path in paths:
        for kind, table in _of_one(path).items():
            parts.setdefault(kind, []).append(table)
    return {kind: pa.concat_tables(some, promote_options="permissive") for kind, some in parts.items()}


def _of_one(path: Path) -> dict[str, pa.Table]:
    found: dict[str, list[pa.Table]] = {}
    with ThreadPoolExecutor() as pool:
        # Arrow lets go of the interpreter while it parses, so pieces are parsed beside each other.
        for parts in pool.map(lambda piece: _of_piece(piece, path), _pieces(path)):
            for kind, table in parts:
                found.setdefault(kind, []).append(table)
    return {kind: pa.concat_tables(some, promote_options="permissive") for kind, some in found.items()}


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield the file in pieces of whole lines; what follows the last newline is left out."""
    rest = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole, newline, torn = piece.rpartition(b"\n")
            if newline:
                yield rest + whole + newline
                rest = torn
            else:
                rest += piece


def _of_piece(piece: bytes, path: Path) -> list[tuple[str, pa.Table]]:
    first = _head(piece)
    # Mostly all lines of a piece are of one kind, and then they need not be told apart.
    alike = piece.count(b"\n" + first) + 1 == piece.count(b"\n")
    by_head: dict[bytes, list[bytes]] = {}
    if not alike or b'"$' in piece:
        for line in piece.splitlines():
            by_head.setdefault(_head(line), []).append(line)
    try:
        if not by_head and (columns := _plain_fields(*_about(first))) is not None:
            return [(_about(first)[0], _fast(piece, columns))]
        by_head = by_head or {first: piece.splitlines()}
        return [(_about(head)[0], _table(*_about(head), lines)) for head, lines in by_head.items()]
    except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise JournalError(f"`{path}` has a line that is not an event: {error}") from error


def _head(line: bytes) -> bytes:
    """Return the beginning that says the kind and the version."""
    return line[: line.find(b',"run":')]


def _about(head: bytes) -> tuple[str, int]:
    found = json.loads(head + b"}")
    return found["kind"], found["version"]


def _table(kind: str, version: int, lines: list[bytes]) -> pa.Table:
    plain = _plain_fields(kind, version)
    if plain is None:
        return _slowly(lines, None)
    marked = [place for place, line in enumerate(lines) if b'"$' in line]
    if not marked:
        return _fast(b"\n".join(lines), plain)
    if len(marked) == len(lines):
        return _slowly(lines, plain)
    strange = set(marked)
    rest = _fast(b"\n".join(line for place, line in enumerate(lines) if place not in strange), plain)
    both = pa.concat_tables([rest, _slowly([lines[place] for place in marked], plain)])
    order = [place for place in range(len(lines)) if place not in strange] + marked
    return both.take(pa.array(_inverse(order)))


def _inverse(order: list[int]) -> list[int]:
    places = [0] * len(order)
    for here, there in enumerate(order):
        places[there] = here
    return places


def _plain_fields(kind: str, version: int) -> dict[str, pa.DataType] | None:
    """Return the columns of a kind whose fields are all plain; None for others."""
    from typing import get_type_hints

    known = known_events().get(kind)
    if known is None or known.version != version:
        return None
    hints = get_type_hints(known)
    columns = {}
    for field in fields(known):
        options = taken_as_is(hints[field.name]) - {type(None)}
        if holds_more(hints[field.name]) or len(options) != 1:
            return None
        columns[field.name] = _TYPES[next(iter(options))]
    return columns


def _fast(lines: bytes, columns: dict[str, pa.DataType]) -> pa.Table:
    schema = pa.schema({**_ENVELOPE, "data": pa.struct(columns)})
    table = arrow_json.read_json(
        pa.BufferReader(lines),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    data = table.column("data").chunk(0)
    own = {name: data.field(place) for place, name in enumerate(columns)}
    return pa.table({**{name: table.column(name) for name in _ENVELOPE}, **_apart(own)})


def _slowly(lines: list[bytes], columns: dict[str, pa.DataType] | None) -> pa.Table:
    found: list[Any] = [decode(line.decode()) for line in lines]
    names = list(dict.fromkeys(name for one in found for name in one["data"]))
    arrays: dict[str, pa.Array] = {}
    for name in names:
        values = [one["data"].get(name) for one in found]
        if columns is not None:
            arrays[name] = pa.array(values, columns[name])
            continue
        parts = any(isinstance(value, dict | list) for value in values)
        arrays[name] = pa.array([None if v is None else encode(v) for v in values] if parts else values)
    envelope = {name: pa.array([one[name] for one in found], kind) for name, kind in _ENVELOPE.items()}
    return pa.table({**envelope, **_apart(arrays)})


def _apart(arrays: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Keep an event's fields apart from the envelope's; its own `step` is what the envelope says."""
    return {(f"{name}_" if name in _ENVELOPE else name): one for name, one in arrays.items() if name != "step"}
