"""What a scanner says about one text and about many, and what it does with bad input."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import InputError, InputTypeError
from flyball.scan import Pack, Scanner
from scan.interrupts import interrupted_after

PACK = Pack.from_rules([
    {"id": "kill", "category": "violence", "severity": "high", "pattern": r"\bkill(?:s|ing)?\b"},
    {"id": "gap", "category": "theft", "severity": "low", "pattern": r"steal.{0,9}car"},
    {"id": "word", "category": "theft", "words": ["rob", "break into"]},
])  # fmt: skip
SCANNER = Scanner(PACK)
TEXTS = [
    "they kill",
    "a clean text",
    "",
    "steal the car and kill",
    " \n",
    "problem",
    "ROB",
    "break  into",
    "\ud800 rob",
]


def test_a_report_says_what_where_and_how_bad() -> None:
    text = "é They KILL and steal the car."
    report = SCANNER.scan(text)
    assert report.flagged
    assert report.severity == "high"
    assert report.categories == ("theft", "violence")
    assert [(one.rule_id, one.text, text[one.start : one.end]) for one in report.findings] == [
        ("kill", "KILL", "KILL"),
        ("gap", "steal the car", "steal the car"),
    ]
    assert report.reasoning == "high: theft (`gap`); violence (`kill`)"
    assert report.to_dict()["findings"][0]["start"] == 7
    assert SCANNER.scan(text) == report


def test_empty_and_blank_texts_are_not_flagged_and_say_so() -> None:
    for text in ("", " ", "\n\t\u00a0\u2003", "\x1c"):
        report = SCANNER.scan(text)
        assert (report.flagged, report.method, report.reasoning) == (False, "validation", "the text is empty")
    assert SCANNER.scan("\u00a0x").method == "rules"


@pytest.mark.parametrize("value", [None, 3, b"kill", float("nan"), ["kill"]])
def test_what_is_not_text_is_refused_by_its_type(value: object) -> None:
    for method in (SCANNER.scan, SCANNER.flagged):
        with pytest.raises(InputTypeError, match=f"`text` is of type `{type(value).__name__}`"):
            method(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=rf"`texts\[9000\]` is of type `{type(value).__name__}`"):
        SCANNER.scan_batch(iter([*(["x"] * 9000), value]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`texts\[1\]`"):
        SCANNER.scan_batch(["x", value])  # type: ignore[list-item]


def test_a_batch_that_is_one_text_is_a_mistake() -> None:
    with pytest.raises(InputTypeError, match="`texts` is one `str`"):
        SCANNER.scan_batch("kill")
    with pytest.raises(InputTypeError, match="2 dimensions"):
        SCANNER.scan_batch(np.array([["a"]]))
    with pytest.raises(InputError, match="`threads` is 0"):
        SCANNER.scan_batch(["a"], threads=0)


def test_lone_surrogates_and_nul_are_characters_like_others() -> None:
    text = "\ud800\0 kill \udfff"
    (finding,) = SCANNER.scan(text).findings
    assert text[finding.start : finding.end] == "kill"


def test_a_long_text_is_refused_or_scanned_in_windows() -> None:
    text = "é" * 30 + " kill " + "x " * 40
    small = Scanner(PACK, max_chars=32)
    with pytest.raises(InputError, match="`text` has 116 characters, more than `max_chars` 32"):
        small.scan(text)
    with pytest.raises(InputError, match=r"`texts\[1\]` has 116 characters"):
        small.scan_batch(["x", text])
    windowed = Scanner(PACK, max_chars=32, on_long="window")
    assert windowed.scan(text) == SCANNER.scan(text)
    assert windowed.flagged(text)
    assert list(windowed.scan_batch(["x", text, "kill"]).flagged_indices) == [1, 2]
    assert windowed.scan_batch(["x", text, "kill"])[1] == SCANNER.scan(text)
    with pytest.raises(InputError, match="`on_long` is `cut`"):
        Scanner(PACK, on_long="cut")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`max_chars` is 3"):
        Scanner(PACK, max_chars=3)


@given(st.lists(st.sampled_from(["kill", "steal", "car", "rob", "x", "é", "break", "into", "problem"]), max_size=200))
def test_windows_find_what_the_whole_text_has(words: list[str]) -> None:
    text = " ".join(words)
    windowed = Scanner(PACK, max_chars=64, on_long="window")
    assert windowed.scan(text) == SCANNER.scan(text)


@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_a_batch_is_the_loop_in_order_whatever_the_threads(threads: int | None) -> None:
    """Property 6.1: batch equals loop, any thread count, order kept."""
    texts = TEXTS * 3000 + ["x" * 40_000, "kill " * 8000] * 30
    batch = SCANNER.scan_batch(texts, threads)
    assert len(batch) == len(texts)
    wanted = [SCANNER.scan(text) for text in TEXTS]
    assert list(batch[: len(TEXTS) * 2]) == wanted * 2
    assert batch.flagged_indices.tolist() == [place for place, text in enumerate(texts) if SCANNER.flagged(text)]
    assert batch.offsets[0] == 0
    assert batch.offsets[-1] == len(batch.rules)
    assert batch[-1] == SCANNER.scan(texts[-1])


@pytest.mark.parametrize(
    "kind", [list, tuple, iter, lambda texts: (text for text in texts), lambda t: np.array(t, object)]
)
def test_a_batch_takes_whatever_yields_texts(kind: object) -> None:
    texts = TEXTS * 2000
    batch = SCANNER.scan_batch(kind(texts))  # type: ignore[operator]
    reference = SCANNER.scan_batch(texts)
    assert np.array_equal(batch.offsets, reference.offsets)
    assert np.array_equal(batch.rules, reference.rules)
    assert [batch[place] for place in range(-20, 0)] == [reference[place] for place in range(-20, 0)]


def test_an_array_of_numpys_own_strings_is_a_batch() -> None:
    batch = SCANNER.scan_batch(np.array(["kill", "x", "rob"]))
    assert batch.flagged_indices.tolist() == [0, 2]
    assert batch[0] == SCANNER.scan("kill")


def test_a_batch_of_nothing_is_empty() -> None:
    none: list[Iterable[str]] = [[], iter(()), np.array([], object)]
    for nothing in none:
        batch = SCANNER.scan_batch(nothing)
        assert len(batch) == 0
        assert batch.offsets.tolist() == [0]
        with pytest.raises(IndexError, match="the batch has 0 texts"):
            batch[0]


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="this NumPy has no StringDType: it came with 2.0")
def test_an_array_of_numpys_strings_of_any_length_is_a_batch() -> None:
    texts = [text for text in TEXTS if text.isprintable()] * 2000
    array = np.array(texts, np.dtypes.StringDType())
    batch, wanted = SCANNER.scan_batch(array), SCANNER.scan_batch(texts)
    assert np.array_equal(batch.offsets, wanted.offsets)
    assert np.array_equal(batch.rules, wanted.rules)
    assert SCANNER.scan_batch(array[::-2]).flagged_indices.tolist() == (
        SCANNER.scan_batch(texts[::-2]).flagged_indices.tolist()
    )
    missing = np.array(["kill", None], np.dtypes.StringDType(na_object=None))
    with pytest.raises(InputTypeError, match=r"`texts\[1\]` is of type `NoneType`"):
        SCANNER.scan_batch(missing)


def test_a_generator_that_fails_fails_as_it_does() -> None:
    def texts() -> Iterator[str]:
        yield "kill"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        SCANNER.scan_batch(texts())


@pytest.mark.parametrize("pack", [3, None, b"x", ["default"], {"id": "a"}])
def test_what_is_no_pack_is_refused_by_its_type(pack: object) -> None:
    with pytest.raises(InputTypeError, match=f"`pack` is of type `{type(pack).__name__}`: pass a `Pack`, a path, or"):
        Scanner(pack)  # type: ignore[arg-type]


def test_a_scanner_works_in_a_process_that_was_started_afresh() -> None:
    """As `multiprocessing` has it with `spawn`: nothing comes along but the pickle."""
    texts = TEXTS * 10
    wanted = [report.flagged for report in SCANNER.scan_batch(texts)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(SCANNER.flagged, texts) == wanted


def test_a_scanner_survives_a_pickle_with_its_options() -> None:
    twin = pickle.loads(pickle.dumps(Scanner(PACK, max_chars=99, on_long="window")))  # noqa: S301 -- our own
    assert twin.pack == PACK
    assert twin.scan("kill " * 99) == SCANNER.scan("kill " * 99)
    assert "3 rules" in repr(twin)


def test_one_scanner_serves_eight_threads() -> None:
    wanted = [SCANNER.scan(text) for text in TEXTS]
    together = threading.Barrier(8)

    def work(_: int) -> bool:
        together.wait()
        return all([SCANNER.scan(text) for text in TEXTS] == wanted for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_scans_with_threads_too() -> None:
    texts = ["kill " * 1000] * 500
    wanted = SCANNER.scan_batch(texts, threads=2).rules
    child = os.fork()
    if child == 0:
        same = np.array_equal(SCANNER.scan_batch(texts, threads=2).rules, wanted)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send a signal")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_signal_ends_a_scan_that_takes_long(threads: int) -> None:
    slow = Scanner(
        Pack.from_rules([{"id": str(n), "category": "c", "pattern": f"[a-z]{{{n},}}[0-9]"} for n in range(9, 60)])
    )
    texts = ["letters and words " * 2000] * 2000  # would take minutes
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.1):
        slow.scan_batch(texts, threads)
    assert slow.flagged("abcdefghijk1")


def test_the_rules_that_a_scan_waits_for_are_named() -> None:
    rules = [("long", "[a-z]{20,}"), ("mail", r"\w+@\w+"), ("word", r"\bkill\b")]
    scanner = Scanner(Pack.from_rules([{"id": name, "category": "c", "pattern": one} for name, one in rules]))
    assert scanner.slow_rules == [("long", None), ("mail", "@")]


def test_disabling_a_rule_removes_only_its_findings() -> None:
    rules = PACK.rules
    for gone in range(len(rules)):
        less = Scanner(Pack.from_rules([rule for place, rule in enumerate(rules) if place != gone]))
        for text in TEXTS:
            wanted = [one for one in SCANNER.scan(text).findings if one.rule_id != rules[gone]["id"]]
            assert list(less.scan(text).findings) == wanted


def test_case_and_white_space_change_nothing() -> None:
    for text in ("they kill and break into", "STEAL THE CAR"):
        for variant in (text.upper(), text.title(), text.swapcase()):
            assert [one.rule_id for one in SCANNER.scan(variant).findings] == [
                one.rule_id for one in SCANNER.scan(text).findings
            ]
    assert SCANNER.flagged("break\n\t into")


@given(st.text())
def test_any_text_is_scanned_and_spans_lie_in_it(text: str) -> None:
    """Property 6.1: no panic on arbitrary text, and spans round-trip."""
    for finding in SCANNER.scan(text).findings:
        assert text[finding.start : finding.end] == finding.text


def test_a_batch_may_have_limits_of_its_own_which_the_scanner_does_not_keep() -> None:
    scanner, long = Scanner(PACK), "a " * 40
    with pytest.raises(InputError, match=r"`texts\[1\]` has 80 characters, more than `max_chars` 32"):
        scanner.scan_batch(["a", long], max_chars=32)
    windowed = scanner.scan_batch(["a", long], max_chars=32, on_long="window")
    assert [report.flagged for report in windowed] == [scanner.scan(text).flagged for text in ("a", long)]
