"""Reading a journal back, one line at a time, whatever ended the run that wrote it.

A newline is what makes a line complete: the writer's last byte of it. What follows the last
newline is a line that a kill or a full disk cut short; it is left out, even where it happens to
parse, and `JournalReader.torn` says how many bytes that were. Every complete line must be an
event: a damaged one is an error that names its place, and never skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flyball.errors import JournalError
from flyball.events.fields import reader_of
from flyball.events.kinds import Event, EventsDropped, known_events
from flyball.events.strict_json import JSON, decode

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_ENVELOPE = {
    name: reader_of(hint)
    for name, hint in {
        "kind": str,
        "version": int,
        "run": str,
        "rank": int,
        "seq": int,
        "step": int | None,
        "wall": float,
        "monotonic": float,
    }.items()
}


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a kind or a version that is not known here, kept as it was read."""

    kind: str
    version: int
    data: dict[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a journal: the event, and when and where it was written."""

    event: Event | UnknownEvent
    run: str
    rank: int
    seq: int
    step: int | None
    wall: float
    monotonic: float


class JournalReader:
    """The records of a journal, in order; each iteration reads the file from its start.

    Memory holds one line at a time, and a journal that is still being written can be read.

    Attributes:
        path: The file.
        torn: Bytes of a last line that was cut short and left out; 0 if there is none, and None
            until an iteration has come to the end.

    Raises:
        JournalError: On iteration, at a complete line that is not an event, with file and line.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.torn: int | None = None

    def __iter__(self) -> Iterator[Record]:
        self.torn = None
        torn = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n"):
                    yield self.record_of(line, self.path, number)
                else:
                    torn = len(line)
        self.torn = torn

    @staticmethod
    def record_of(line: bytes, path: Path, number: int) -> Record:
        """Return what a line holds; `path` and `number` say where it stands.

        Raises:
            JournalError: It is not an event.
        """
        try:
            return _parse(line)
        except (ValueError, RecursionError) as error:
            raise JournalError(f"`{path}:{number}` is not an event: {error}") from error


def read(path: str | os.PathLike[str]) -> JournalReader:
    """Return the records of the journal at `path`, to be iterated over as often as needed."""
    return JournalReader(path)


def seq_after(line: bytes) -> int:
    """Return the number of the line that comes after this one.

    Raises:
        ValueError: The line is not an event.
    """
    record = _parse(line)
    missing = record.event.count if isinstance(record.event, EventsDropped) else 0
    return record.seq + 1 + missing


def _parse(line: bytes) -> Record:
    found = decode(line.decode("utf-8"))
    if not isinstance(found, dict):
        raise ValueError("the line is not an object")  # noqa: TRY004 - it is the file that is wrong, not a caller
    data = found.get("data")
    # A key beside these is left alone, so that a later envelope can hold more.
    if missing := [name for name in _ENVELOPE if name not in found]:
        raise ValueError(f"it lacks `{missing[0]}`")
    if not isinstance(data, dict):
        raise ValueError("it lacks an object `data`")  # noqa: TRY004
    values = {name: read_field(found[name], name) for name, read_field in _ENVELOPE.items()}
    kind, version = cast("str", values["kind"]), cast("int", values["version"])
    known = known_events().get(kind)
    return Record(
        event=(
            known.from_data(data)
            if known is not None and known.version == version
            else UnknownEvent(kind, version, data)
        ),
        run=cast("str", values["run"]),
        rank=cast("int", values["rank"]),
        seq=cast("int", values["seq"]),
        step=cast("int | None", values["step"]),
        wall=cast("float", values["wall"]),
        monotonic=cast("float", values["monotonic"]),
    )
