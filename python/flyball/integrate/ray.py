"""A scan as a step of Ray Data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.integrate.arrow import ScanTable

if TYPE_CHECKING:
    from flyball.scan import Scanner


def scan_dataset(dataset: Any, scanner: Scanner, column: str, **options: Any) -> Any:
    """Return the dataset with `flagged`, `severity` and `rules` beside its columns; nothing runs until it is read.

    Args:
        dataset: A `ray.data.Dataset`.
        scanner: What scans; each worker gets a copy.
        column: The column of text.
        options: What `Dataset.map_batches` takes besides, such as `concurrency` or `num_cpus`. A block is
            scanned whole, by one thread, if they do not say otherwise.
    """
    return dataset.map_batches(
        ScanTable(scanner, column),
        **{"batch_format": "pyarrow", "batch_size": None, "zero_copy_batch": True, **options},
    )
