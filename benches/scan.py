"""The scanner beside Hyperscan, RE2, `re` and polars: one prompt, a list, a column, compiling, hostile text."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import hyperscan
import numpy as np
import polars as pl
import re2

from benches.corpus import paragraphs
from benches.harness import Contest
from benches.scan_native import Hyperscan, NotHereError
from benches.scan_rules import rules
from flyball import _native
from flyball.errors import PackError
from flyball.scan import Pack, Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = ("hyperscan", "google-re2", "polars", "numpy")

# Every (text, rule), in order.
Pairs = list[tuple[int, int]]

LIST = 100_000
PROMPT = 200
HOSTILE = 1 << 16


def pack_of(patterns: list[str]) -> Pack:
    return Pack.from_rules([{"id": str(n), "category": "c", "pattern": one} for n, one in enumerate(patterns)])


def scanner_of(patterns: list[str]) -> Scanner:
    return Scanner(pack_of(patterns), normalise="none", max_chars=1 << 24)


def forced(patterns: list[str], kernel: str) -> _native.Scanner:
    """Make a scanner that uses one instruction set, whatever else the machine has."""
    return _native.Scanner(pack_of(patterns), max_chars=1 << 24, window=False, normalise="none", kernel=kernel)


def hyperscan_of(patterns: list[str]) -> hyperscan.Database:
    database = hyperscan.Database()
    flags = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SINGLEMATCH
    database.compile([one.encode() for one in patterns], ids=list(range(len(patterns))), flags=[flags] * len(patterns))
    return database


def re2_of(patterns: list[str]) -> re2.Set:
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = 256 << 20
    found = re2.Set.SearchSet(options)
    for one in patterns:
        found.Add(one)
    found.Compile()
    return found


def ours(scanner: Scanner, texts: list[str]) -> Pairs:
    batch = scanner.scan_batch(texts, threads=1)
    places = np.repeat(np.arange(len(texts)), np.diff(batch.offsets))
    return list(zip(places.tolist(), batch.rules.tolist(), strict=True))


def with_hyperscan(database: hyperscan.Database, texts: list[bytes]) -> Pairs:
    found: Pairs = []
    place = 0

    def hit(rule: int, *_: object) -> None:
        found.append((place, rule))

    scan = database.scan
    for place, text in enumerate(texts):  # noqa: B007 -- `hit` reads it
        scan(text, match_event_handler=hit)
    return sorted(found)


def with_re2(patterns: re2.Set, texts: list[str]) -> Pairs:
    match = patterns.Match
    return [(place, rule) for place, text in enumerate(texts) for rule in sorted(match(text) or ())]


def with_re(patterns: list[re.Pattern[str]], texts: list[str]) -> Pairs:
    return [(place, rule) for place, text in enumerate(texts) for rule, one in enumerate(patterns) if one.search(text)]


def with_polars(patterns: list[str], series: pl.Series) -> Pairs:
    found = [(int(place), rule) for rule, one in enumerate(patterns)
             for place in series.str.contains(f"(?i){one}").arg_true()]  # fmt: skip
    return sorted(found)


def same(ours: object, theirs: object) -> None:
    assert ours == theirs


def contests() -> Iterator[Contest[Pairs]]:
    """Yield the rows of the table."""
    sixty, three_hundred = rules(60), rules(300)
    prose = paragraphs(LIST)
    prose = (prose * (1 + LIST // len(prose)))[:LIST]
    yield from _lists(sixty, three_hundred, prose)
    yield from _prompts(sixty, prose)
    yield from _columns(sixty, prose[:20_000])
    yield from _cores(sixty, three_hundred, prose)
    yield from _threads(sixty, prose)
    yield from _compiling(sixty)
    yield from _growing(sixty)


def _lists(sixty: list[str], three_hundred: list[str], prose: list[str]) -> Iterator[Contest[Pairs]]:
    for patterns, texts in ((sixty, prose), (three_hundred, prose[:20_000])):
        raw = [text.encode() for text in texts]
        answers: dict[str, Callable[[], Pairs]] = {
            "flyball": partial(ours, scanner_of(patterns), texts),
            "hyperscan wheel": partial(with_hyperscan, hyperscan_of(patterns), raw),
            "re2.Set": partial(with_re2, re2_of(patterns), texts),
        }
        yield Contest(
            work=f"{len(patterns)} rules, a list of {len(texts):,} paragraphs",
            answers=answers,
            same=same,
            timed={"flyball": partial(scanner_of(patterns).scan_batch, texts, threads=1)},
        )
    hits = _hits(prose[:5000])
    yield Contest(
        work="60 rules, 5,000 texts that all hit",
        answers={
            "flyball": partial(ours, scanner_of(sixty), hits),
            "hyperscan wheel": partial(with_hyperscan, hyperscan_of(sixty), [text.encode() for text in hits]),
        },
        same=same,
    )


def _prompts(sixty: list[str], prose: list[str]) -> Iterator[Contest[Pairs]]:
    text = next(one for one in prose if PROMPT <= len(one) <= PROMPT + 20)
    scanner, database, patterns = scanner_of(sixty), hyperscan_of(sixty), re2_of(sixty)
    compiled = [re.compile(one, re.IGNORECASE) for one in sixty]
    raw = text.encode()

    def ignore(*_: object) -> None:
        return None

    yield Contest(
        work=f"60 rules, one clean prompt of {len(text)} bytes",
        answers={
            "flyball": partial(ours, scanner, [text]),
            "hyperscan wheel": partial(with_hyperscan, database, [raw]),
            "re2.Set": partial(with_re2, patterns, [text]),
            "re loop": partial(with_re, compiled, [text]),
        },
        same=same,
        timed={
            "flyball": partial(scanner.scan, text),
            "hyperscan wheel": partial(database.scan, raw, match_event_handler=ignore),
            "re2.Set": partial(patterns.Match, text),
        },
    )


def _columns(sixty: list[str], prose: list[str]) -> Iterator[Contest[Pairs]]:
    series = pl.Series("text", prose)
    scanner = scanner_of(sixty)

    def column() -> Pairs:
        offsets, found, *_ = scanner.column(series, column=None, threads=1)
        return list(zip(np.repeat(np.arange(len(prose)), np.diff(offsets)).tolist(), found.tolist(), strict=True))

    yield Contest(
        work=f"60 rules, an Arrow column of {len(prose):,} rows",
        answers={"flyball": column, "polars str.contains": partial(with_polars, sixty, series)},
        same=same,
        timed={"flyball": partial(scanner.scan_column, series, threads=1)},
    )


def wall_seconds(work: Callable[[], object]) -> float:
    """What two threads save shows on the wall's clock alone."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _cores(sixty: list[str], three_hundred: list[str], prose: list[str]) -> Iterator[Contest[Pairs]]:
    """One thread beside Hyperscan's C, one call each; ours also reads the strings of a tuple."""
    try:
        yield from _cores_beside(sixty, three_hundred, prose)
    except NotHereError as reason:
        sys.stdout.write(f"  no rows beside Hyperscan in C: {reason}\n")


def _cores_beside(sixty: list[str], three_hundred: list[str], prose: list[str]) -> Iterator[Contest[Pairs]]:
    kernels = [kernel for kernel in ("avx512", "avx2", "scalar") if _is_here(kernel)]
    jobs = [(f"60 rules, {kernel}", sixty, prose[:50_000], False, kernel) for kernel in kernels]
    best = kernels[0]
    jobs += [
        ("300 rules", three_hundred, prose[:20_000], False, best),
        ("120 words", [rf"\b{word}\b" for word in _words(prose, 120)], prose[:50_000], False, best),
        ("60 rules, every text hits", sixty, _hits(prose[:5000]), False, best),
        ("60 rules, 5 % of texts not ASCII", sixty, _accented(prose[:50_000]), True, best),
    ]
    for work, patterns, texts, utf8, kernel in jobs:
        rival = Hyperscan(patterns, texts, utf8=utf8)
        sys.stdout.write(f"  {rival.info}\n")
        scanner = forced(patterns, kernel)
        scan = partial(scanner.rows, tuple(texts), first=0, threads=1)
        yield Contest(
            work=f"{work}: {len(texts):,} texts in one call",
            answers={"flyball": partial(_pairs_of, scan), "hyperscan (C)": rival.pairs},
            same=same,
            timed={"flyball": scan, "hyperscan (C)": rival.scan},
        )


def _pairs_of(scan: Callable[[], tuple[Any, ...]]) -> Pairs:
    offsets, found, *_ = scan()
    return list(zip(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)).tolist(), found.tolist(), strict=True))


def _is_here(kernel: str) -> bool:
    try:
        forced(["one"], kernel)
    except PackError:
        return False
    return True


def _words(prose: list[str], count: int) -> list[str]:
    """Words that stand in a few of the texts, spread over the alphabet."""
    seen = Counter(word for text in prose for word in set(re.findall(r"\b[a-z]{5,12}\b", text)))
    few = sorted(word for word, texts in seen.items() if 2 <= texts <= 6)
    return few[:: max(1, len(few) // count)][:count]


def _hits(prose: list[str]) -> list[str]:
    return [f"how to quietly kill someone and {text[:150]} help me hack my passwords" for text in prose]


def _accented(prose: list[str]) -> list[str]:
    """The same texts; every twentieth ends with characters of two and three bytes."""
    return [f"{text} \u2014 \u201cna\u00efve\u201d" if place % 20 == 0 else text for place, text in enumerate(prose)]


def _threads(sixty: list[str], prose: list[str]) -> Iterator[Contest[Pairs]]:
    scanner, texts = scanner_of(sixty), tuple(prose)
    two, one = (partial(scanner.rows, texts, first=0, threads=threads) for threads in (2, 1))
    yield Contest(
        work="60 rules, a list of 100,000 paragraphs, time on the wall",
        answers={"flyball, two threads": partial(_pairs_of, two), "flyball, one thread": partial(_pairs_of, one)},
        same=same,
        timed={"flyball, two threads": two, "flyball, one thread": one},
        timer=wall_seconds,
    )


def _compiling(sixty: list[str]) -> Iterator[Contest[Pairs]]:
    text = "how to kill someone"
    yield Contest(
        work="compile 60 rules",
        answers={
            "flyball": lambda: ours(scanner_of(sixty), [text]),
            "hyperscan wheel": lambda: with_hyperscan(hyperscan_of(sixty), [text.encode()]),
        },
        same=same,
    )
    names = [f"{one}{two}{three}" for one in "bcdfg" for two in "aeiou" for three in range(1000)]
    few, many = ([f"{name} (?:is|was) here" for name in names[:count]] for count in (1000, 10_000))
    assert ours(scanner_of(many), [text]) == ours(scanner_of(few), [text])
    yield Contest(
        work="compile 1,000 rules",
        answers={
            "flyball": lambda: ours(scanner_of(few), [text]),
            "flyball, 10,000 rules": lambda: ours(scanner_of(many), [text]),
        },
        same=same,
    )


def _growing(sixty: list[str]) -> Iterator[Contest[Pairs]]:
    """A text made to be slow, and one sixteen times as long: the ratio is what growth costs."""
    scanner = scanner_of([*sixty, r"\bkill\s+(?:\w+\s+)*\w*someone\b", r"\bhow.*kill.*steal\b"])
    for name, piece in (
        ("an action repeated", "kill "),
        ("requests repeated", "how to kill the "),
        ("one long word", "k"),
    ):
        short = piece * (HOSTILE // len(piece))
        long = short * 16
        assert ours(scanner, [short]) == ours(scanner, [long])
        yield Contest(
            work=f"hostile text of 64 KB, {name}",
            answers={
                "flyball": partial(ours, scanner, [short]),
                "flyball, 16 times the text": partial(ours, scanner, [long]),
            },
            same=same,
        )
