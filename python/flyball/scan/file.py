"""Files in constant memory: the lines of a text file, or a column of a Parquet file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from flyball.errors import InputError
from flyball.scan.column import require_pyarrow

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from flyball._native import Report

    class Scanner(Protocol):
        """What a file needs of a scanner, which stands above it."""

        def scan(self, text: str, /) -> Report:
            """Report on one text."""

        def rows(
            self, texts: list[str], /, *, first: int, threads: int
        ) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_], list[int], list[int]]:
            """Scan many texts."""

        def column(
            self, data: object, /, *, column: str | None, threads: int, first: int = 0
        ) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_], NDArray[np.bool_], list[int]]:
            """Scan a column."""


# A file is read in blocks; a line longer than `LONGEST` is cut, so that one without an end does not fill the memory.
BLOCK = 1 << 22
LONGEST = 1 << 24
# A cut is made behind a blank, if there is one so near the end.
NEAR = 1 << 12
ROWS = 8192


@dataclass(frozen=True, slots=True)
class Line:
    """A line or row in which something was found.

    Attributes:
        number: The line, counted from 1; in a Parquet file the row, counted from 0. A line of more than 16 MB is
            scanned in pieces, each of which has the number of the line.
        text: What stands there, without the line's end. A byte that is no UTF-8 is a lone surrogate, as
            `errors="surrogateescape"` has it.
        report: What was found in it.
    """

    number: int
    text: str
    report: Report


@dataclass(frozen=True, slots=True)
class _Slice:
    """How many lines there were with this slice; how many of its own are no UTF-8, and those with findings."""

    scanned: int
    malformed: int
    lines: list[Line]


class FileScan:
    """The lines of a file in which something was found; the file is read as far as one iterates.

    Attributes:
        scanned: How many lines or rows were scanned so far.
        flagged: How many of them are flagged.
        malformed: How many of them hold bytes that are no UTF-8, which were scanned around.
    """

    def __init__(self, slices: Iterator[_Slice]) -> None:
        self.scanned = 0
        self.flagged = 0
        self.malformed = 0
        self._slices = slices
        self._last = -1
        self._ready: Iterator[Line] = iter(())

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Line:
        """Return the next line with findings."""
        while (line := next(self._ready, None)) is None:
            here = next(self._slices)
            self.scanned = here.scanned
            self.malformed += here.malformed
            # A line in pieces is one line.
            flagged = [one.number for one in here.lines if one.report.flagged]
            self.flagged += len({*flagged} - {self._last})
            self._last = flagged[-1] if flagged else self._last
            self._ready = iter(here.lines)
        return line


def scan_file(
    scanner: Scanner, source: Path | IO[bytes], column: str | None, threads: int, *, progress: Any = None
) -> FileScan:
    """Scan a file; `progress` is called with the number of lines after each slice."""
    if isinstance(source, Path) and source.suffix == ".parquet":
        slices = _parquet(scanner, source, column, threads)
    else:
        if column is not None:
            raise InputError(f"`column` is `{column}`, but only a Parquet file has columns: leave it out")
        slices = _lines(scanner, source, threads)
    return FileScan(_told(slices, progress))


def _told(slices: Iterator[_Slice], progress: Any) -> Iterator[_Slice]:
    for one in slices:
        if progress is not None:
            progress(one.scanned)
        yield one


def _lines(scanner: Scanner, source: Path | IO[bytes], threads: int) -> Iterator[_Slice]:
    import numpy as np

    number = 0  # lines that have ended
    for raw, ended in _blocks(source):
        texts, malformed = _decoded(raw)
        try:
            offsets, _, _, _, _ = scanner.rows(texts, first=number + 1, threads=threads)
        except InputError as error:
            raise InputError(f"`{getattr(source, 'name', source)}`, where `texts` are its lines: {error}") from error
        lines = [
            Line(number + 1 + place, texts[place], scanner.scan(texts[place]))
            for place in np.flatnonzero(np.diff(offsets)).tolist()
        ]
        scanned = number + len(texts)
        number = scanned if ended else scanned - 1
        yield _Slice(scanned, malformed, lines)


def _decoded(raw: bytes) -> tuple[list[str], int]:
    """Decode a whole block at once, whose lines end in a line feed and nothing else; count those that are no UTF-8."""
    try:
        whole, sound = raw.decode("utf-8"), True
    except UnicodeDecodeError:
        whole, sound = raw.decode("utf-8", "surrogateescape"), False
    texts = [text.removesuffix("\r") for text in whole.split("\n")]
    return texts, 0 if sound else sum(not _encodes(text) for text in texts)


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _blocks(source: Path | IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield whole lines, joined, without the last one's end; or a piece of a long line, and that it goes on."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield from _blocks(file)
        return
    kept: list[bytes] = []
    size = 0
    while block := source.read(BLOCK):
        head, end, tail = block.rpartition(b"\n")
        if end:
            yield b"".join((*kept, head)), True
            kept, size = [], 0
        kept.append(tail)
        size += len(tail)
        if size > LONGEST:
            piece, rest = _cut(b"".join(kept))
            yield piece, False
            kept, size = [rest], len(rest)
    if size:
        yield b"".join(kept), True


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """Cut a line near its end: behind a blank, or at least not within a character."""
    place = line.rfind(b" ", len(line) - NEAR) + 1
    if place == 0:
        place = len(line)
        while place > len(line) - 4 and line[place - 1] & 0xC0 == 0x80:
            place -= 1
        if line[place - 1] >= 0xC0:
            place -= 1
    return line[:place], line[place:]


def _parquet(scanner: Scanner, path: Path, column: str | None, threads: int) -> Iterator[_Slice]:
    pa = require_pyarrow("a Parquet file")
    import numpy as np
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            name = _column(pa, file.schema_arrow, column)
            for batch in file.iter_batches(batch_size=ROWS, columns=[name]):
                values = batch.column(0)
                offsets, _, _, _, malformed = scanner.column(values, column=None, threads=threads, first=number)
                places = np.flatnonzero(np.diff(offsets))
                lines = [
                    Line(number + place, text, scanner.scan(text))
                    for place, text in zip(places.tolist(), _texts(pa, values, places), strict=True)
                ]
                number += len(values)
                yield _Slice(number, len(malformed), lines)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InputError(f"`{path}` cannot be read as Parquet after {number} rows ({error}): check the file") from error


def _texts(pa: Any, values: Any, places: NDArray[np.intp]) -> list[str]:
    """Return the texts at some rows, decoded as those of a text file are: Parquet does not check what it calls text."""
    found = values.take(pa.array(places))
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    return [text.decode("utf-8", "surrogateescape") for text in found.cast(pa.large_binary()).to_pylist()]


def _column(pa: Any, schema: Any, column: str | None) -> str:
    texts = [
        field.name
        for field in schema
        if any(
            check(field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
            for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        )
    ]
    if column is None:
        if len(texts) == 1:
            return str(texts[0])
        raise InputError(f"the file has {len(texts)} columns of text ({', '.join(texts)}): name one as `column`")
    if column not in texts:
        raise InputError(f"`column` is `{column}`: the file's columns of text are {', '.join(texts)}")
    return column
