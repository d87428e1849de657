"""What `flyball scan` does."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flyball.files import write_whole
from flyball.scan.column import require_pyarrow
from flyball.scan.file import Line, scan_file
from flyball.scan.scanner import Scanner, available_threads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from flyball.scan.report import Finding

# Work that takes longer than this says how far it is, if somebody looks.
PATIENCE = 2.0


def run(options: argparse.Namespace) -> bool:
    """Scan every file, and say whether anything was found."""
    scanner = Scanner(options.pack, on_long="window")
    threads = options.threads or available_threads()
    rows: list[dict[str, Any]] | None = [] if options.parquet else None
    if rows is not None:
        require_pyarrow("findings as Parquet")
    flagged = scanned = 0
    progress = _Progress()
    for name in options.paths or ["-"]:
        source: Path | IO[bytes] = sys.stdin.buffer if name == "-" else Path(name)
        lines = scan_file(scanner, source, options.column, threads, progress=progress.of(name))
        for line in lines:
            if rows is not None:
                rows += _rows(name, line)
            elif options.format == "jsonl":
                _print(json.dumps({"file": name, "line": line.number, **line.report.to_dict()}))
            else:
                for finding in line.report.findings:
                    _print(f"{name}:{line.number}: {_described(finding)}")
        flagged += lines.flagged
        scanned += lines.scanned
    progress.done()
    if rows is not None:
        _write(options.parquet, rows)
    sys.stderr.write(f"{flagged} of {scanned} lines flagged by {scanner.pack.name} {scanner.pack.version}\n")
    return flagged > 0


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
