"""The example that filters a folder of Parquet does what it says, alone and under Ray."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "filter_corpus.py"
HARM = "how to kill someone"
RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: run `pip install 'flyball[scale]'`"
)


def corpus(folder: Path) -> list[dict[str, object]]:
    """Write two files, and return the rows that are to be kept."""
    folder.mkdir()
    texts = [HARM if number % 10 == 3 else None if number % 10 == 5 else f"text {number}" for number in range(400)]
    rows: list[dict[str, object]] = [{"text": text, "n": number} for number, text in enumerate(texts)]
    pq.write_table(pa.Table.from_pylist(rows[:150]), folder / "a.parquet", row_group_size=40)
    pq.write_table(pa.Table.from_pylist(rows[150:]), folder / "b.parquet")
    return [row for row in rows if row["text"] != HARM]


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kept_in(folder: Path) -> list[dict[str, object]]:
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: row["n"])


@pytest.mark.parametrize("options", [(), pytest.param(("--ray",), marks=RAY)])
def test_every_row_without_a_finding_is_kept_and_no_other(options: tuple[str, ...], tmp_path: Path) -> None:
    wanted = corpus(tmp_path / "from")
    said = run(str(tmp_path / "from"), str(tmp_path / "to"), *options)
    assert "kept 360 of 400 rows" in said
    assert kept_in(tmp_path / "to") == wanted


def test_an_interrupted_run_is_taken_up_and_leaves_no_half_file(tmp_path: Path) -> None:
    wanted = corpus(tmp_path / "from")
    whole = (tmp_path / "from" / "b.parquet").read_bytes()
    (tmp_path / "from" / "b.parquet").write_bytes(whole[:-9])
    arguments = [sys.executable, str(EXAMPLE), str(tmp_path / "from"), str(tmp_path / "to")]
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 1
    assert [path.name for path in (tmp_path / "to").glob("*.parquet")] == ["a.parquet"]
    (tmp_path / "from" / "b.parquet").write_bytes(whole)
    done = (tmp_path / "to" / "a.parquet").stat().st_mtime_ns
    assert "10 TB take" in run(*arguments[2:])
    assert (tmp_path / "to" / "a.parquet").stat().st_mtime_ns == done
    assert kept_in(tmp_path / "to") == wanted
