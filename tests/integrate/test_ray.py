"""The same scanner under Ray Data, on the local machine: `pip install 'flyball[scale]'`, which `make test` does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="ray is not installed: run `pip install 'flyball[scale]'`")

TESTS = str(Path(__file__).parent.parent)
# A program of its own: Ray starts processes and threads, warns as it likes, and is to be gone afterwards.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import ray
from flyball.integrate.ray import scan_dataset
from flyball.scan import Scanner
from integrate.test_scan_table import PACK, TABLE, WANTED

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
dataset = ray.data.from_arrow([TABLE, TABLE.slice(1, 2), TABLE.slice(0, 0)])
found = scan_dataset(dataset, Scanner(PACK), "text").take_all()
assert sorted(found, key=lambda row: row["n"]) == sorted(WANTED + WANTED[1:3], key=lambda row: row["n"]), found
options = dict(batch_size=1, num_cpus=0.5)
assert len(scan_dataset(dataset, Scanner(PACK), "text", **options).take_all()) == 6
try:
    scan_dataset(dataset, Scanner(PACK), "no").take_all()
except Exception as error:
    assert "`column` is `no`: the table has n, text" in str(error), error
else:
    raise SystemExit("a column that is not there was scanned")
print("equal")
"""


def test_a_dataset_of_ray_is_the_column_scanned_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tests=TESTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("equal\n")
