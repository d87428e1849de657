"""The scanner is Python's `re` with IGNORECASE: on generated pairs, and on every code point.

`FLYBALL_PAIRS=10000000 python -m pytest tests/scan/test_oracle.py` runs as many (pattern, text) pairs; `FLYBALL_SEED`
makes them others. The round that a failure names is run again alone with `-k "python[17]"`.
"""

from __future__ import annotations

import os
import random
import re
import signal
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pytest

from flyball import _native
from flyball.errors import PackError
from flyball.scan import Pack, Scanner
from scan.generated import compiled, pattern, text, words_of

PAIRS = int(os.environ.get("FLYBALL_PAIRS", "40000"))
SEED = int(os.environ.get("FLYBALL_SEED", "1"))
RULES, TEXTS = 40, 100


def scanner_of(sources: list[str]) -> Scanner:
    pack = Pack.from_rules([{"id": one, "category": "c", "pattern": one} for one in sources])
    return Scanner(pack, normalise="none")


def refused(source: str) -> str:
    try:
        Pack.from_rules([{"id": "one", "category": "c", "pattern": source}])
    except PackError as error:
        return str(error)
    return ""


def rules_of(chance: random.Random) -> dict[str, re.Pattern[str]]:
    """As many rules as a round has, each accepted by both sides."""
    found: dict[str, re.Pattern[str]] = {}
    while len(found) < RULES:
        source = pattern(chance)
        python = compiled(source)
        if refusal := refused(source):
            # What Python accepts and we refuse is one of the documented refusals.
            reasons = ("can match nothing", "a repeat of a repeat", "cannot be read", "parts when its repeats")
            assert python is None or any(reason in refusal for reason in reasons), (source, refusal)
            continue
        assert python is not None, f"`{source}` is accepted, but Python refuses it"
        found[source] = python
    return found


class TakesForEverError(Exception):
    """Python has spent its time on one text."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End what takes more of the processor, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(*_: object) -> None:
        raise TakesForEverError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def of_python(rules: dict[str, re.Pattern[str]], text: str) -> set[tuple[str, int, int]]:
    """What Python finds; a rule on which it backtracks for ever is dropped from the rules."""
    while True:
        wanted = set()
        source = ""
        try:
            with at_most(1.0):
                for source, python in rules.items():
                    # In a long text a rule may match more often than is listed.
                    for match in islice(python.finditer(text), _native.FINDINGS):
                        wanted.add((source, *match.span()))
        except TakesForEverError:
            del rules[source]
        else:
            return wanted


@pytest.mark.parametrize("turn", range(max(1, PAIRS // (RULES * TEXTS))))
def test_rules_and_spans_are_those_of_python(turn: int) -> None:
    chance = random.Random(SEED * 1_000_003 + turn)
    rules = rules_of(chance)
    scanner = scanner_of(list(rules))
    words = [word for source in rules for word in words_of(source)]
    texts = [text(chance, words) for _ in range(TEXTS)]
    batch = scanner.scan_batch(texts, threads=1)
    names = list(rules)
    for place, one in enumerate(texts):
        wanted = of_python(rules, one)
        found = {(finding.rule_id, finding.start, finding.end) for finding in batch[place].findings}
        found = {finding for finding in found if finding[0] in rules}
        assert found == wanted, (ascii(one), found ^ wanted)
        ids = {names[rule] for rule in batch.rules[batch.offsets[place] : batch.offsets[place + 1]]}
        assert ids & rules.keys() == {source for source, *_ in wanted}, (ascii(one), ids)
        assert scanner.flagged(one) == bool(ids)
    assert len(rules) > RULES // 2


CLASSES = (
    r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[a-z]", "[^a-z]", "[^i]", "k", "s", "i", "[^k-s]", "é", "[à-þ]",
    "[^é]", "µ", "ß", "\u043a", "[\u0430-\u044f]", r"[^\w]", r"[\s\d]", "\u017f", "\u212a", "\u0131", "\u0130",
    "[\u0300-\u036f]", "ǅ", "ς", "\ufb06", "[\u13a0-\u13f4]",
)  # fmt: skip


def test_every_code_point_is_in_the_classes_in_which_python_has_it() -> None:
    same_unicode = unicodedata.unidata_version == _native.UNICODE_VERSION
    # One text for each code point, so that no neighbour helps. What a newer Unicode has assigned is left out.
    points = [chr(point) for point in range(0x110000) if same_unicode or _as_pinned(chr(point))]
    batch = scanner_of(list(CLASSES)).scan_batch(points, threads=1)
    counts = np.diff(batch.offsets)
    places = np.repeat(np.arange(len(points)), counts)
    whole = "".join(points)
    for rule, source in enumerate(CLASSES):
        wanted = [match.start() for match in re.compile(source, re.IGNORECASE).finditer(whole)]
        assert places[batch.rules == rule].tolist() == wanted, source


def _as_pinned(point: str) -> bool:
    return unicodedata.ucd_3_2_0.category(point) == unicodedata.category(point) != "Cn"
