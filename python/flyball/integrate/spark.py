"""A scan as a step of Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.integrate.arrow import ADDED, ScanTable, refuse_taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from flyball.scan import Scanner


def scan_frame(frame: Any, scanner: Scanner, column: str) -> Any:
    """Return the frame with `flagged`, `severity` and `rules` beside its columns; nothing runs until it is read.

    Args:
        frame: A `pyspark.sql.DataFrame`. Executors need flyball and pyarrow.
        scanner: What scans; each task gets a copy.
        column: The column of text.

    Raises:
        InputError: The frame already has one of the three columns.
    """
    from pyspark.sql import types

    refuse_taken(frame.columns)
    added = (types.BooleanType(), types.StringType(), types.ArrayType(types.StringType()))
    fields = [types.StructField(name, kind) for name, kind in zip(ADDED, added, strict=True)]
    schema = types.StructType([*frame.schema.fields, *fields])
    return frame.mapInArrow(_Batches(ScanTable(scanner, column)), schema)


class _Batches:
    """Scans record batches one by one, as Spark hands them out."""

    def __init__(self, scan: ScanTable) -> None:
        self.scan = scan

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            yield from self.scan(pa.Table.from_batches([batch])).to_batches()
