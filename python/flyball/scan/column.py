"""A column of Arrow in, a table of Arrow out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from flyball.errors import MalformedTextWarning, MissingExtraError
from flyball.scan.report import SEVERITIES

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from flyball import _native


def require_pyarrow(purpose: str) -> Any:
    """Import pyarrow, or say how to install it."""
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", extra="data", purpose=purpose) from error
    return pa


def scan_column(
    scanner: _native.Scanner, rules: list[dict[str, Any]], data: object, column: str | None, threads: int
) -> pa.Table:
    """Scan a column, and put flags, severities and rules beside each other."""
    require_pyarrow("the result of a column")
    offsets, found, flagged, nulls, malformed = scanner.column(data, column=column, threads=threads)
    if malformed:
        warnings.warn(
            f"{len(malformed)} of {len(nulls)} rows are not UTF-8, the first is row {malformed[0]}: such bytes were "
            "scanned around; decode the column with what it was written in",
            MalformedTextWarning,
            stacklevel=3,
        )
    return _table(offsets, found, flagged, nulls, rules)


def _table(
    offsets: NDArray[np.int64],
    found: NDArray[np.uint16],
    flagged: NDArray[np.bool_],
    nulls: NDArray[np.bool_],
    rules: list[dict[str, Any]],
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    rows = len(nulls)
    counts = np.diff(offsets)
    ranks = np.array([SEVERITIES.index(rule["severity"]) for rule in rules], np.int8)
    worst = np.full(rows, -1, np.int8)
    np.maximum.at(worst, np.repeat(np.arange(rows), counts), ranks[found])
    severity = pa.DictionaryArray.from_arrays(
        pa.array(worst, mask=worst < 0), pa.array(SEVERITIES, pa.string()), safe=False
    )
    names = pa.DictionaryArray.from_arrays(
        pa.array(found.astype(np.int32)), pa.array([rule["id"] for rule in rules], pa.string())
    )
    # A null row has no list, which a list array says by its mask.
    mask = pa.array(nulls) if nulls.any() else None
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), names, mask=mask)
    return pa.table({"flagged": pa.array(flagged, mask=nulls), "severity": severity, "rules": lists})
