"""Leave out of a folder of Parquet every row in which a rule matches. `python examples/filter_corpus.py FROM TO`.

With `--ray` the same scanner runs as tasks of Ray Data, on this machine or on the cluster that RAY_ADDRESS names. Files
that TO already holds are not done again, so an interrupted run may be started once more.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flyball import Scanner
from flyball.integrate.arrow import ADDED, ScanTable

ROWS = 16_384


def main() -> None:
    parser = argparse.ArgumentParser(description="Filter a folder of Parquet.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--column", default="text", help="the column of text (default: text)")
    parser.add_argument("--pack", default="default", help="the name of a pack, or a TOML file (default: default)")
    parser.add_argument("--ray", action="store_true", help="run as tasks of Ray Data")
    options = parser.parse_args()
    scanner = Scanner(options.pack, on_long="window")
    options.target.mkdir(parents=True, exist_ok=True)
    if options.ray:
        with_ray(options.source, options.target, scanner, options.column)
    else:
        alone(options.source, options.target, ScanTable(scanner, options.column))


def alone(source: Path, target: Path, scan: ScanTable) -> None:
    kept = rows = size = 0
    scanning, started = 0.0, time.process_time()
    for path in sorted(source.glob("*.parquet")):
        whole = target / path.name
        if whole.exists():
            continue
        part = whole.with_suffix(".part")
        with pq.ParquetFile(path) as file, pq.ParquetWriter(part, file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=ROWS):
                table = pa.Table.from_batches([batch])
                size += pc.sum(pc.binary_length(table[scan.column])).as_py() or 0
                before = time.process_time()
                found = scan(table)
                scanning += time.process_time() - before
                clean = found.filter(unflagged(found["flagged"])).drop_columns(ADDED)
                writer.write_table(clean)
                rows, kept = rows + len(table), kept + len(clean)
        part.replace(whole)  # a file of TO is whole or is not there
    print(f"kept {kept} of {rows} rows")
    if size:
        cost("scanning alone", size, scanning)
        cost("with Parquet read and written", size, time.process_time() - started)


def with_ray(source: Path, target: Path, scanner: Scanner, column: str) -> None:
    import ray

    from flyball.integrate.ray import scan_dataset

    if "RAY_ADDRESS" in os.environ:
        ray.init()
    else:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        dataset = ray.data.read_parquet(str(source))
        found = scan_dataset(dataset, scanner, column).map_batches(
            lambda table: table.filter(unflagged(table["flagged"])).drop_columns(ADDED), batch_format="pyarrow"
        )
        found.write_parquet(str(target), mode="overwrite")
        # The footers know how many rows there are.
        rows, kept = (ray.data.read_parquet(str(folder)).count() for folder in (source, target))
    finally:
        ray.shutdown()
    print(f"kept {kept} of {rows} rows")


def unflagged(flagged: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.invert(pc.fill_null(flagged, fill_value=False))  # a row without text is kept


def cost(what: str, size: int, seconds: float) -> None:
    rate = size / 1e6 / max(seconds, 1e-9)
    print(
        f"{what}: {rate:.0f} MB of text a second on one processor; 10 TB take {1e7 / rate / 3600:.1f} processor hours"
    )


if __name__ == "__main__":
    sys.exit(main())
