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

    from flyball.scan.batch import Batch
    from flyball.scan.report import Report

    class Scanner(Protocol):
        """What a file needs of a scanner, which stands above it."""

        def scan(self, text: str, /) -> Report:
            """Report on one text."""

        def scan_batch(self, texts: list[str], threads: int) -> Batch:
            """Scan many texts."""

        def column(
            self, data: object, /, *, column: str | None, threads: int
        ) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_]]:
            """Scan a column."""


# A file is read in blocks; a line longer than `LONGEST` is cut, so that one without an end does not fill the memory.
BLOCK = 1 << 22
LONGEST = 1 << 24
ROWS = 8192


@dataclass(frozen=True, slots=True)
class Line:
    """A line or row in which something was found.

    Attributes:
        number: The line, counted from 1; in a Parquet file the row, counted from 0.
        text: What stands there, without the line's end. A byte that is no UTF-8 is a lone surrogate, as
            `errors="surrogateescape"` has it.
        report: What was found in it.
    """

    number: int
    text: str
    report: Report


class FileScan:
    """The lines of a file in which something was found; the file is read as far as one iterates.

    Attributes:
        scanned: How many lines or rows were scanned so far.
        flagged: In how many of them something was found.
    """

    def __init__(self, lines: Iterator[tuple[int, list[Line]]]) -> None:
        self.scanned = 0
        self.flagged = 0
        self._lines = lines
        self._ready: Iterator[Line] = iter(())

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Line:
        """Return the next line with findings."""
        while (line := next(self._ready, None)) is None:
            self.scanned, ready = next(self._lines)
            self.flagged += len(ready)
            self._ready = iter(ready)
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


def _told(slices: Iterator[tuple[int, list[Line]]], progress: Any) -> Iterator[tuple[int, list[Line]]]:
    for scanned, lines in slices:
        if progress is not None:
            progress(scanned)
        yield scanned, lines


def _lines(scanner: Scanner, source: Path | IO[bytes], threads: int) -> Iterator[tuple[int, list[Line]]]:
    number = 0
    for raw in _blocks(source):
        # One decoding for the whole block; its lines end in "\n" and nothing else.
        texts = raw.decode("utf-8", "surrogateescape").split("\n")
        texts = [text.removesuffix("\r") for text in texts]
        batch = scanner.scan_batch(texts, threads)
        lines = [
            Line(number + 1 + place, texts[place], scanner.scan(texts[place]))
            for place in batch.flagged_indices.tolist()
        ]
        number += len(texts)
        yield number, lines


def _blocks(source: Path | IO[bytes]) -> Iterator[bytes]:
    """Yield whole lines, joined, without the last one's end."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield from _blocks(file)
        return
    kept = b""
    while block := source.read(BLOCK):
        head, end, tail = block.rpartition(b"\n")
        if end:
            yield kept + head
            kept = tail
        else:
            kept += tail
        if len(kept) > LONGEST:
            yield kept
            kept = b""
    if kept:
        yield kept


def _parquet(scanner: Scanner, path: Path, column: str | None, threads: int) -> Iterator[tuple[int, list[Line]]]:
    pa = require_pyarrow("a Parquet file")
    import numpy as np
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            name = _column(pa, file.schema_arrow, column)
            for batch in file.iter_batches(batch_size=ROWS, columns=[name]):
                values = batch.column(0)
                offsets, _, _ = scanner.column(values, column=None, threads=threads)
                lines = []
                for place in np.flatnonzero(np.diff(offsets)).tolist():
                    text = values[place].as_py()
                    lines.append(Line(number + place, text, scanner.scan(text)))
                number += len(values)
                yield number, lines
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"`{path}` cannot be read as Parquet after {number} rows ({error}): check the file") from error


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
