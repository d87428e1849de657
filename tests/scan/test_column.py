"""Columns of Arrow, from the packages that people have."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from flyball.errors import InputError, InputTypeError, MalformedTextWarning, MissingExtraError
from flyball.scan import Pack, Scanner
from scan.interrupts import interrupted_after

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

PACK = Pack.from_rules([
    {"id": "kill", "category": "violence", "severity": "high", "pattern": r"\bkill\b"},
    {"id": "word", "category": "theft", "severity": "low", "words": ["rob"]},
])  # fmt: skip
SCANNER = Scanner(PACK)
TEXTS = ["they kill", None, "", "rob and kill", "a text of some length that says rob", "é rob", "problem"] * 50
WANTED = [None if text is None else [name for name, word in (("kill", "kill"), ("word", " rob")) if word in f" {text}"]
          for text in TEXTS]  # fmt: skip


def check(data: object, wanted: list[list[str] | None] = WANTED, column: str | None = None) -> None:
    table = SCANNER.scan_column(data, column=column)
    assert table.column("rules").to_pylist() == wanted
    assert table.column("flagged").to_pylist() == [None if row is None else bool(row) for row in wanted]
    severities = [None if not row else "high" if "kill" in row else "low" for row in wanted]
    assert table.column("severity").to_pylist() == severities


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_every_layout_of_text_is_read_whole_sliced_and_chunked(kind: Any) -> None:
    array = pa.array(TEXTS, kind)
    check(array)
    check(array.slice(3, 20), WANTED[3:23])
    check(pa.chunked_array([array.slice(0, 10), array.slice(10, 0), array.slice(10)]))
    check(pa.array([], kind), [])
    check(pa.chunked_array([], kind), [])


@pytest.mark.parametrize("index", [pa.int8(), pa.uint16(), pa.int32(), pa.int64()])
def test_a_dictionary_is_scanned_once_and_its_indices_mapped(index: Any) -> None:
    array = pa.array(TEXTS).dictionary_encode().cast(pa.dictionary(index, pa.string()))
    check(array)
    check(array.slice(2, 9), WANTED[2:11])
    with_null = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], index), pa.array([None, "rob"]))
    check(with_null, [None, ["word"], None])


def test_a_table_names_its_column() -> None:
    table = pa.table({"text": TEXTS, "number": range(len(TEXTS))})
    check(table, column="text")
    check(table.slice(5, 11), WANTED[5:16], column="text")
    check(table.select(["text"]))
    check(table.to_reader(max_chunksize=13), column="text")
    check(table.to_batches()[0].slice(4, 4), WANTED[4:8], column="text")
    with pytest.raises(InputError, match=r"name one of its columns \(text, number\)"):
        SCANNER.scan_column(table)
    with pytest.raises(InputError, match="`column` is `no`: the table has text, number"):
        SCANNER.scan_column(table, column="no")
    with pytest.raises(InputTypeError, match="values of Arrow's format `l`"):
        SCANNER.scan_column(table, column="number")


def test_what_is_no_column_is_refused() -> None:
    for data in (["kill"], None, np.array(["kill"])):
        with pytest.raises(InputTypeError, match="pass a column or table of Arrow"):
            SCANNER.scan_column(data)


def test_a_long_text_in_a_column_is_named() -> None:
    small = Scanner(PACK, max_chars=16)
    with pytest.raises(InputError, match=r"`texts\[2\]` has 20 characters"):
        small.scan_column(pa.chunked_array([["a", "b"], ["x" * 20]]))
    windowed = Scanner(PACK, max_chars=16, on_long="window")
    assert windowed.scan_column(pa.array(["x " * 20 + "kill", "rob"])).column("rules").to_pylist() == [
        ["kill"],
        ["word"],
    ]


def malformed(kind: Any) -> Any:
    """Texts of which Arrow does not know that they are no UTF-8."""
    return pa.array([b"clean", None, b"\xff\xfe kill", b"ki\xe9ll", b"rob \xc3"], pa.binary()).cast(
        pa.large_binary() if kind == pa.large_string() else pa.binary()
    ).view(kind)  # fmt: skip


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_bytes_that_are_no_text_are_scanned_around_and_told(kind: Any) -> None:
    wanted = [[], None, ["kill"], [], ["word"]]
    with pytest.warns(MalformedTextWarning, match="3 of 5 rows are not UTF-8, the first is row 2: such bytes were"):
        check(malformed(kind), wanted)
    twice = pa.chunked_array([malformed(kind).slice(0, 2), malformed(kind)])
    with pytest.warns(MalformedTextWarning, match="3 of 7 rows are not UTF-8, the first is row 4"):
        check(twice, wanted[:2] + wanted)
    behind = pa.DictionaryArray.from_arrays(pa.array([0, 2, 2, None, 4], pa.int8()), malformed(kind))
    with pytest.warns(MalformedTextWarning, match="3 of 5 rows are not UTF-8, the first is row 1"):
        check(behind, [[], ["kill"], ["kill"], None, ["word"]])
    check(malformed(kind).slice(0, 2), wanted[:2])


@pytest.mark.parametrize("offsets", [[0, 5, 2], [4, 3, 8]])
def test_offsets_that_make_no_sense_are_an_error(offsets: list[int]) -> None:
    array = pa.StringArray.from_buffers(2, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(b"abcdefgh"))
    with pytest.raises(InputError, match="does not follow Arrow's C data interface"):
        SCANNER.scan_column(array)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send a signal")
@pytest.mark.parametrize("chunks", [1, 50])
def test_a_signal_ends_a_column_that_takes_long(chunks: int) -> None:
    slow = Scanner(
        Pack.from_rules([{"id": str(n), "category": "c", "pattern": f"[a-z]{{{n},}}[0-9]"} for n in range(9, 60)])
    )
    whole = pa.array(["letters and words " * 2000] * 2000)  # would take minutes
    size = len(whole) // chunks
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.1):
        slow.scan_column(pa.chunked_array([whole.slice(place * size, size) for place in range(chunks)]), threads=1)
    assert slow.scan_column(pa.array(["abcdefghijk1"])).column("flagged").to_pylist() == [True]


def test_a_column_that_is_not_there_or_is_null_is_an_error_and_not_a_crash() -> None:
    class Lies:
        """Gives out capsules that hold something else."""

        def __arrow_c_array__(self) -> object:
            return pa.array(["x"]).__arrow_c_array__()[::-1]

        def __arrow_c_stream__(self) -> object:
            return 3

    with pytest.raises((ValueError, TypeError)):
        SCANNER.scan_column(Lies())


def test_a_producer_that_fails_is_reported() -> None:
    def batches() -> object:
        yield pa.record_batch({"text": ["kill"]})
        raise ValueError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"text": pa.string()}), batches())
    with pytest.raises(InputError, match=r"`data` cannot be read: .*the disk is gone"):
        SCANNER.scan_column(reader)


def test_polars_series_and_frames_are_columns() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    series = polars.Series("text", TEXTS)
    check(series)
    check(series[3:20], WANTED[3:20])
    check(polars.DataFrame({"text": TEXTS, "n": range(len(TEXTS))}), column="text")
    check(series.cast(polars.Categorical))
    assert polars.from_arrow(SCANNER.scan_column(series))["flagged"].to_list() == [
        None if row is None else bool(row) for row in WANTED
    ]


def test_polars_in_pieces_categories_and_views_are_columns() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    series = polars.Series("text", TEXTS)
    pieces = polars.concat([series[:40], series[40:41], series[41:]], rechunk=False)
    assert pieces.n_chunks() == 3
    check(pieces)
    check(pieces[30:60], WANTED[30:60])
    check(series.cast(polars.Enum(sorted({text for text in TEXTS if text is not None}))))
    check(polars.DataFrame({"text": series}).lazy().filter(polars.col("text").is_not_null()).collect(),
          [row for row in WANTED if row is not None])  # fmt: skip
    check(polars.Series("text", [None, None], dtype=polars.String), [None, None])


def test_a_relation_of_duckdb_is_a_column() -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    relation = duckdb.sql("select unnest(['kill', null, 'problem', 'a rob']) as text")
    check(relation, [["kill"], None, [], ["word"]])
    # Several chunks, short and long texts, and an enumeration, which comes as a dictionary.
    many = duckdb.sql(
        "select case when n % 1000 = 7 then 'they kill' when n % 1000 = 8 then null else 'text ' || n end as text, n "
        "from range(10000) as numbers(n) order by n"
    )
    wanted: list[list[str] | None] = [[] for _ in range(10_000)]
    wanted[7::1000], wanted[8::1000] = [["kill"]] * 10, [None] * 10
    check(many, wanted, column="text")
    check(many.select("text"), wanted)
    kinds = duckdb.sql("select unnest(['rob', null, 'kill', 'rob'])::enum('kill', 'rob') as text")
    check(kinds, [["word"], None, ["kill"], ["word"]])


def test_a_dataset_of_hugging_face_is_a_column() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "n": list(range(len(TEXTS)))}).with_format("arrow")
    check(dataset[:], column="text")
    check(dataset[3:20], WANTED[3:20], column="text")
    some = list(range(len(TEXTS) - 1, 0, -3))
    check(dataset.select(some)[:], [WANTED[place] for place in some], column="text")
    large = dataset.cast(datasets.Features({"text": datasets.Value("large_string"), "n": datasets.Value("int64")}))
    check(large[:], column="text")
    rows = [row for table in dataset.iter(batch_size=64) for row in SCANNER.scan_column(table, column="text")["rules"]]
    assert [row.as_py() for row in rows] == WANTED
    both = datasets.concatenate_datasets([dataset, dataset.select(range(5))]).with_format("arrow")
    check(both[:], WANTED + WANTED[:5], column="text")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_scans_a_column() -> None:
    array = pa.array(TEXTS * 500)
    wanted = SCANNER.scan_column(array)
    child = os.fork()
    if child == 0:
        offsets, *_ = SCANNER.column(array, column=None, threads=2)
        os._exit(0 if len(offsets) == len(wanted) + 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_one_scanner_serves_the_columns_and_lists_of_eight_threads() -> None:
    array = pa.array(TEXTS * 20)
    wanted = SCANNER.scan_column(array)
    texts = [text or "" for text in TEXTS]
    rules = SCANNER.scan_batch(texts).rules

    def work(turn: int) -> bool:
        if turn % 2:
            return bool(np.array_equal(SCANNER.scan_batch(texts, threads=2).rules, rules))
        return bool(SCANNER.scan_column(array, threads=2).equals(wanted))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_a_missing_pyarrow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    array = pa.array(["kill"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"flyball\[data\]"):
        SCANNER.scan_column(array)
