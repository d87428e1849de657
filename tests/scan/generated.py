"""Patterns in the accepted syntax and texts in which they almost match, from a seeded generator."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

WORDS = (
    "kill", "steal", "hack", "disk", "risk", "is", "a", "the", "make", "bomb", "so", "i", "task", "kisses", "x2", "ß",
)  # fmt: skip
SPECIAL = (
    "\u017f", "\u212a", "\u0130", "\u0131", "é", "e\u0301", "²", "½", "\u203f", "\u200d", "\x1c", "\x85", "\xa0",
    "\u2028", "\ufeff", "\0", "\ud800", "\U0001f600", "\u041a", "\u043a", "ß", "ẞ", "µ", "\u03bc", "\n", "\r", "\t",
    "_", "\u0663", "-", ".", "7", "\U00010428",
)  # fmt: skip
ATOMS = (
    r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", ".", "[a-k]", "[^i]", "[^.!?\\n]", "[\u043a-\u043c]", r"[\w-]",
    "[^\u017fa]", "é", "-",
)  # fmt: skip
GAPS = (
    r"\s+", r"\s*", r".{0,5}", r"\w*", r"\w+", r"[^.]{0,8}", r"\W{1,3}", r"\w{2,4}?", ".*?", ".*", r"(?:\w+\s+){0,2}",
    r"(?:\w+\s+){0,3}?", r"\s?", r"(?:\s|-)+",
)  # fmt: skip


def pattern(chance: random.Random, depth: int = 2) -> str:
    """One pattern; most have a word in them, some have none."""
    parts = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.random()
        if kind < 0.45:
            parts.append(chance.choice(WORDS))
        elif kind < 0.6:
            parts.append(chance.choice(GAPS))
        elif kind < 0.7:
            parts.append(chance.choice(ATOMS) + chance.choice(("", "", "?", "+", "{1,3}", "{2}", "*", "??", "+?")))
        elif kind < 0.78:
            parts.append(chance.choice((r"\b", r"\b", r"\B", "^", "$")))
        elif depth:
            branches = [pattern(chance, depth - 1) for _ in range(chance.randint(1, 4))]
            if chance.random() < 0.2:
                branches.append("")
            group = f"(?:{'|'.join(branches)})"
            # An unbounded repeat of an unbounded repeat takes Python for ever.
            more = ("",) if re.search(r"[*+]", group) else ("+", "{1,2}", "{0,2}?")
            parts.append(group + chance.choice(("", "", "?", "??", *more)))
    if chance.random() < 0.4:
        parts = [r"\b", *parts, r"\b"]
    return "".join(parts)


def compiled(source: str) -> re.Pattern[str] | None:
    """The pattern as Python has it; None where Python refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return re.compile(source, re.IGNORECASE)
        except re.error:
            return None


def text(chance: random.Random, words: list[str]) -> str:
    """Words of the rules cut, doubled, in other cases, glued, with what is hard between them."""
    parts = []
    for _ in range(chance.randint(0, 9)):
        kind = chance.random()
        if kind < 0.6:
            parts.append(_changed(chance, chance.choice(words)))
        elif kind < 0.75:
            parts.append(chance.choice(SPECIAL))
        else:
            parts.append(chance.choice(("the", "zebra", "and", "of", "...", "9")))
        parts.append(chance.choice((" ", " ", " ", "", "  ", "\n", "-", ", ", "\u00a0")))
    if chance.random() < 0.02:
        longer = chance.choice(("y", " ", "\u0438", "kill ")) * chance.randint(20, 70)
        parts.insert(chance.randint(0, len(parts)), longer)
    return "".join(parts)


def _changed(chance: random.Random, word: str) -> str:
    shape = chance.random()
    if shape < 0.15:
        return word.upper()
    if shape < 0.25:
        return word.replace("s", "\u017f").replace("k", "\u212a").replace("i", chance.choice("\u0130\u0131"))
    if shape < 0.35:
        return word[: chance.randint(0, len(word))]
    return word + word if shape < 0.4 else word


def words_of(source: str) -> list[str]:
    """The words that a pattern holds, so that texts come near a match."""
    return re.findall(r"(?<!\\)[a-z]{2,}", source) or ["kill"]
