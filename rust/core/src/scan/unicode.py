"""Write `unicode.rs` beside this file: what CPython's `re` makes of every code point.

Run by hand when the pinned version moves: `python rust/core/src/scan/unicode.py`. Everything is asked of the running
interpreter's own `re`, `_sre` and `unicodedata`, and nothing is downloaded. Tests compare the table with the `re` of
whatever Python runs them, and leave out the code points that its version of Unicode sees differently.
"""

from __future__ import annotations

import _sre
import re
import unicodedata
from pathlib import Path
from re import _casefix

EVERY = range(0x110000)
Runs = list[tuple[int, int]]


def runs(holds: list[bool]) -> Runs:
    """Return the ranges of code points for which it holds."""
    found: Runs = []
    for point in EVERY:
        if not holds[point]:
            continue
        if found and found[-1][1] == point - 1:
            found[-1] = (found[-1][0], point)
        else:
            found.append((point, point))
    return found


def matching(pattern: str) -> Runs:
    """Return the ranges of code points that a pattern matches."""
    compiled = re.compile(pattern)
    return runs([compiled.match(chr(point)) is not None for point in EVERY])


def folds() -> list[tuple[int, int, int, int]]:
    """Return rows (first, last, step, representative of the first) for the points that fold to another one.

    Two points are equal under IGNORECASE if their lower cases are equal or belong to one group of `re._casefix`.
    """
    groups: dict[int, set[int]] = {}
    for point in EVERY:
        lower = _sre.unicode_tolower(point)
        key = min({lower, *_casefix._EXTRA_CASES.get(lower, ())})  # noqa: SLF001 -- it is what `re` itself reads
        groups.setdefault(key, set()).add(point)
    to: dict[int, int] = {}
    for members in groups.values():
        letters = [point for point in members if ord("a") <= point <= ord("z")]
        representative = letters[0] if letters else min(members)
        to.update({point: representative for point in members if point != representative})
    rows: list[tuple[int, int, int, int]] = []
    for point in sorted(to):
        if rows:
            first, last, step, start = rows[-1]
            gap = point - last
            if to[point] - start == point - first and (gap == step or (first == last and gap in (1, 2))):
                rows[-1] = (first, point, gap, start)
                continue
        rows.append((point, point, 1, to[point]))
    return rows


def altered() -> Runs:
    """Return the points that a writer can hide a word with: compatibility forms, invisible and combining ones."""
    holds = []
    for point in EVERY:
        char = chr(point)
        category = unicodedata.category(char)
        holds.append(
            point > 0x7F and category != "Cs" and char not in "\u00a0\u2026" # spaces and dots of ordinary prose
            and (category in ("Cf", "Mn", "Me") or unicodedata.normalize("NFKC", char) != char)
        )  # fmt: skip
    return runs(holds)


def invisible() -> Runs:
    """Return the points that normalisation removes: format controls and combining marks."""
    return runs([unicodedata.category(chr(point)) in ("Cf", "Mn", "Me") for point in EVERY])


def table(name: str, kind: str, about: str, rows: list[tuple[int, ...]]) -> str:
    """Write one static."""
    width = 4 if len(rows[0]) == 2 else 3
    lines = [f"/// {about}", "#[rustfmt::skip]", f"pub(super) static {name}: &[{kind}] = &["]
    cells = [f"({', '.join(f'{value:#x}' for value in row)})," for row in rows]
    lines += ["    " + " ".join(cells[at : at + width]) for at in range(0, len(cells), width)]
    return "\n".join([*lines, "];", ""])


def main() -> None:
    """Write the file."""
    pair, four = "(u32, u32)", "(u32, u32, u32, u32)"
    parts = [
        "//! What the `re` of Python makes of every code point; written by `unicode.py`, never by hand.\n",
        "/// The version of Unicode that the tables hold.",
        f'pub const UNICODE_VERSION: &str = "{unicodedata.unidata_version}";\n',
        table("WORD", pair, "What `\\w` matches.", matching(r"\w")),
        table("DIGIT", pair, "What `\\d` matches.", matching(r"\d")),
        table("SPACE", pair, "What `\\s` matches.", matching(r"\s")),
        table("FOLD", four, "First, last, step, and what the first is equal to under IGNORECASE.", folds()),
        table("ALTERED", pair, "What may hide a word: compatibility forms, invisible and combining points.", altered()),
        table("INVISIBLE", pair, "Format controls and combining marks.", invisible()),
    ]
    Path(__file__).with_suffix(".rs").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
