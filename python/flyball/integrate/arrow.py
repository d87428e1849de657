"""What every engine that hands out Arrow runs: a table in, the same table with three more columns out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.errors import InputError
from flyball.scan.column import require_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

    from flyball.scan import Scanner

# What is put beside the columns that are there.
ADDED = ("flagged", "severity", "rules")


class ScanTable:
    """Puts `flagged`, `severity` and `rules` beside the columns of a table; pickles, and keeps no state.

    The types are plain (bool, string, list of string), as not every engine takes a dictionary.

    Args:
        scanner: What scans. A text longer than its `max_chars` ends the job, unless it is made with `on_long="window"`.
        column: The column of text.
        threads: How many threads scan. An engine gives a task one processor, so the default is 1.
    """

    def __init__(self, scanner: Scanner, column: str, *, threads: int = 1) -> None:
        self.scanner = scanner
        self.column = column
        self.threads = threads

    def __call__(self, table: pa.Table) -> pa.Table:
        """Scan one table.

        Raises:
            InputError: It has no such column, or already has one of the three.
        """
        pa = require_pyarrow("a scan of tables")
        refuse_taken(table.column_names)
        found = self.scanner.scan_column(table, column=self.column, threads=self.threads)
        plain: dict[str, Any] = {"flagged": pa.bool_(), "severity": pa.string(), "rules": pa.list_(pa.string())}
        for name in ADDED:
            table = table.append_column(name, found[name].cast(plain[name]))
        return table


def refuse_taken(names: list[str]) -> None:
    """Raise if a column of a result would have the name of one that is there."""
    for name in ADDED:
        if name in names:
            raise InputError(f"the table already has a column `{name}`: rename or drop it before the scan")
