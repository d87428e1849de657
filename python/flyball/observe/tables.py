"""Journals as Arrow tables, one for each kind of event, fast enough for a million of them.

Nearly all lines of a journal are of a few kinds whose fields are plain. Arrow parses those itself, on all cores; a line
that holds a number JSON has no word for, and a kind with parts, goes through Python.
"""

from __future__ import annotations

import io
import json
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
    from collections.abc import Sequence
    from pathlib import Path

_ENVELOPE = {
    "run": pa.string(), "rank": pa.int64(), "seq": pa.int64(), "step": pa.int64(), "wall": pa.float64(),
    "monotonic": pa.float64(),
}  # fmt: skip
_TYPES = {bool: pa.bool_(), float: pa.float64(), int: pa.int64(), str: pa.string()}
_BLOCK = 1 << 22


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
    whole = path.read_bytes()
    lines = whole[: whole.rfind(b"\n") + 1].splitlines()
    del whole
    by_head: dict[bytes, list[bytes]] = {}
    for line in lines:
        by_head.setdefault(line[: line.find(b',"run":')], []).append(line)
    found: dict[str, list[pa.Table]] = {}
    for head, some in by_head.items():
        try:
            about = json.loads(head + b"}")
            kind, version = about["kind"], about["version"]
            found.setdefault(kind, []).append(_table(kind, version, some))
        except (ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            raise JournalError(f"`{path}` has a line that is not an event: {error}") from error
    return {kind: pa.concat_tables(some, promote_options="permissive") for kind, some in found.items()}


def _table(kind: str, version: int, lines: list[bytes]) -> pa.Table:
    plain = _plain_fields(kind, version)
    if plain is None:
        return _slowly(lines, None)
    marked = [place for place, line in enumerate(lines) if b'"$' in line]
    if not marked:
        return _fast(lines, plain)
    if len(marked) == len(lines):
        return _slowly(lines, plain)
    strange = set(marked)
    rest = _fast([line for place, line in enumerate(lines) if place not in strange], plain)
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


def _fast(lines: list[bytes], columns: dict[str, pa.DataType]) -> pa.Table:
    schema = pa.schema({**_ENVELOPE, "data": pa.struct(columns)})
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    table = arrow_json.read_json(
        io.BytesIO(b"\n".join(lines)), read_options=arrow_json.ReadOptions(block_size=_BLOCK), parse_options=options
    )
    data = table.column("data").combine_chunks()
    data = data.combine_chunks() if isinstance(data, pa.ChunkedArray) else data
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
