"""The same scanner under Spark, on the local machine; needs pyspark and Java, which `make test` does not install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: run `pip install pyspark`")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Java, on which Spark runs, is not installed", allow_module_level=True)

TESTS = str(Path(__file__).parent.parent)
# A program of its own, as for Ray.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from pyspark.sql import SparkSession
from flyball.errors import InputError
from flyball.integrate.spark import scan_frame
from flyball.scan import Scanner
from integrate.test_scan_table import PACK, TABLE, WANTED

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false") \\
    .config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
rows = [(row["n"], row["text"]) for row in TABLE.to_pylist()]
frame = spark.createDataFrame(rows, "n long, text string").repartition(2)
scanned = scan_frame(frame, Scanner(PACK), "text")
assert scanned.columns == ["n", "text", "flagged", "severity", "rules"]
assert sorted((row.asDict() for row in scanned.collect()), key=lambda row: row["n"]) == WANTED
assert scanned.filter("not flagged").count() == 1
try:
    scan_frame(scanned, Scanner(PACK), "text")
except InputError as error:
    assert "already has a column `flagged`" in str(error)
else:
    raise SystemExit("a column was written over")
print("equal")
"""


def test_a_frame_of_spark_is_the_column_scanned_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tests=TESTS)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": TESTS},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("equal\n")
