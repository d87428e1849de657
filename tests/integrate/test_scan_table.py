"""A scanner is a pure function of a column, whatever engine hands the column out."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from flyball.errors import InputError, InputTypeError
from flyball.integrate.arrow import ScanTable
from flyball.scan import Pack, Scanner

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

PACK = Pack.from_rules([
    {"id": "kill", "category": "violence", "severity": "high", "pattern": r"\bkill\b"},
    {"id": "word", "category": "theft", "severity": "low", "words": ["rob"]},
])  # fmt: skip
TABLE = pa.table({"n": [1, 2, 3, 4], "text": ["rob and kill", None, "clean", "rob"]})
ADDED: list[dict[str, Any]] = [
    {"flagged": True, "severity": "high", "rules": ["kill", "word"]},
    {"flagged": None, "severity": None, "rules": None},
    {"flagged": False, "severity": None, "rules": []},
    {"flagged": True, "severity": "low", "rules": ["word"]},
]
WANTED: list[dict[str, Any]] = [{**row, **more} for row, more in zip(TABLE.to_pylist(), ADDED, strict=True)]


def test_three_columns_of_plain_types_are_put_beside_those_that_are_there() -> None:
    found = ScanTable(Scanner(PACK), "text")(TABLE)
    assert found.to_pylist() == WANTED
    assert found.schema.names == ["n", "text", "flagged", "severity", "rules"]
    assert found.schema.types[2:] == [pa.bool_(), pa.string(), pa.list_(pa.string())]


def test_a_table_in_pieces_is_the_table_whole() -> None:
    scan = ScanTable(Scanner(PACK), "text")
    for pieces in ([TABLE.slice(0, 1), TABLE.slice(1)], [TABLE.slice(place, 1) for place in range(4)]):
        assert [row for piece in pieces for row in scan(piece).to_pylist()] == WANTED
        assert scan(pa.concat_tables(pieces)).to_pylist() == WANTED
    assert scan(TABLE.slice(0, 0)).schema == scan(TABLE).schema


def test_what_is_sent_to_a_worker_scans_there_alike() -> None:
    twin = pickle.loads(pickle.dumps(ScanTable(Scanner(PACK, max_chars=99), "text")))  # noqa: S301 -- our own
    assert twin(TABLE).to_pylist() == WANTED
    with pytest.raises(InputError, match="more than `max_chars` 99"):
        twin(pa.table({"text": ["x" * 100]}))


def test_what_cannot_be_scanned_is_said() -> None:
    scan = ScanTable(Scanner(PACK), "text")
    with pytest.raises(InputError, match="already has a column `flagged`: rename or drop it"):
        scan(TABLE.append_column("flagged", TABLE["n"]))
    with pytest.raises(InputError, match="`column` is `text`: the table has n"):
        scan(TABLE.select(["n"]))
    with pytest.raises(InputTypeError, match="values of Arrow's format `l`"):
        ScanTable(Scanner(PACK), "n")(TABLE)
