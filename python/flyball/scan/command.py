"""What `flyball scan` does."""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flyball.errors import ConfigError, InputError
from flyball.files import write_whole
from flyball.scan.column import require_pyarrow
from flyball.scan.file import FileScan, Line, scan_file
from flyball.scan.scanner import Scanner, available_threads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from flyball.scan.report import Finding

# Work that takes longer than this says how far it is, if somebody looks.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scan of files ended.

    Attributes:
        found: Whether anything was found.
        failed: How many of the files could not be read to their end.
    """

    found: bool
    failed: int


def run(options: argparse.Namespace) -> Outcome:
    """Scan every file; one that cannot be read is told, and does not keep the others from being scanned."""
    scanner = Scanner(options.pack, on_long="window")
    threads, names = _checked(options)
    rows: list[dict[str, Any]] | None = [] if options.parquet else None
    flagged = scanned = malformed = failed = 0
    progress = _Progress()
    try:
        for name in names:
            source: Path | IO[bytes] = sys.stdin.buffer if name == "-" else Path(name)
            column = options.column if name.endswith(".parquet") else None
            lines = scan_file(scanner, source, column, threads, progress=progress.of(name))
            try:
                for line in _read(lines):
                    if rows is not None:
                        rows += _rows(name, line)
                    else:
                        _tell(name, line, options.format)
            except _UnreadableError as unreadable:
                failed += 1
                progress.done()
                sys.stdout.flush()
                sys.stderr.write(_refusal(name, unreadable.reason, traced=options.traceback))
            flagged += lines.flagged
            scanned += lines.scanned
            malformed += lines.malformed
    finally:
        # What was found is not lost, even if the user ends it.
        progress.done()
        if rows is not None:
            _write(options.parquet, rows)
    said = f"{flagged} of {scanned} lines flagged by {scanner.pack.name} {scanner.pack.version}"
    if malformed:
        said += f"; {malformed} hold bytes that are no UTF-8, which were scanned around"
    if failed:
        said += f"; {failed} of {len(names)} files could not be read to their end"
    sys.stderr.write(said + "\n")
    return Outcome(flagged > 0, failed)


def _checked(options: argparse.Namespace) -> tuple[int, list[str]]:
    threads = available_threads() if options.threads is None else options.threads
    if threads < 1:
        raise ConfigError(f"`--threads` is {threads}: it must be 1 or more")
    names = options.paths or ["-"]
    if options.column is not None and not any(name.endswith(".parquet") for name in names):
        raise ConfigError(f"`--column` is `{options.column}`, but only a Parquet file has columns: leave it out")
    if options.parquet:
        require_pyarrow("findings as Parquet")
    return threads, names


class _UnreadableError(Exception):
    """A file cannot be read on; unlike an error of standard output, it does not end the scan."""

    def __init__(self, reason: InputError | OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _read(lines: FileScan) -> Iterator[Line]:
    try:
        yield from lines
    except (InputError, OSError) as error:
        raise _UnreadableError(error) from error


def _refusal(name: str, reason: Exception, *, traced: bool) -> str:
    if traced:
        return "".join(traceback.format_exception(reason))
    # What the system says of a file that cannot be opened has its name already.
    named = "" if name in str(reason) else f"{name}: "
    return f"error: {named}{reason}\n"


def _tell(name: str, line: Line, form: str) -> None:
    if form == "jsonl":
        _print(json.dumps({"file": name, "line": line.number, **line.report.to_dict()}))
        return
    for finding in line.report.findings:
        _print(f"{name}:{line.number}: {_described(finding)}")


def _described(finding: Finding) -> str:
    return f"{finding.severity} {finding.category} {finding.rule_id}: {finding.text!r}"


def _print(text: str) -> None:
    # A byte that was no UTF-8 goes out as it came in.
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")


def _rows(name: str, line: Line) -> list[dict[str, Any]]:
    return [
        {
            "file": name, "line": line.number, "rule": finding.rule_id, "category": finding.category,
            "severity": finding.severity, "start": finding.start, "end": finding.end,
            "text": finding.text.encode("utf-8", "replace").decode("utf-8"), "obfuscated": finding.obfuscated,
        }
        for finding in line.report.findings
    ]  # fmt: skip


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.int64()
    schema = pa.schema({
        "file": text, "line": number, "rule": text, "category": text, "severity": text, "start": number,
        "end": number, "text": text, "obfuscated": pa.bool_(),
    })  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    write_whole(path, sink.getvalue().to_pybytes())


class _Progress:
    """One line on a terminal, rewritten twice a second; nothing elsewhere."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()
        self._shown = False

    def of(self, name: str) -> Callable[[int], None]:
        """Return what is called with the number of lines of a file."""
        return lambda count: self._say(name, count)

    def _say(self, name: str, count: int) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._started < PATIENCE or now - self._said < 0.5:
            return
        self._said, self._shown = now, True
        sys.stderr.write(f"\r{name}: {count:,} lines")
        sys.stderr.flush()

    def done(self) -> None:
        """Clear the line."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            self._shown = False
