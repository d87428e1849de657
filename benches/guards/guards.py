"""The guards of the table: each a callable from a text to a score between 0 and 1, and where it flags."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.errors import InputError
from flyball.scan import Scanner, legacy_density

if TYPE_CHECKING:
    from collections.abc import Callable

# Entries of the older word score, by theme: written for this bench, as the studied list is not ours. It is matched as
# that one was, as a part of any word.
VOCABULARY = (
    "kill", "murder", "attack", "stab", "poison", "bomb", "weapon", "shoot", "torture", "harm", "hurt", "wound",
    "assault", "ruin", "destroy", "break", "violent", "steal", "rob", "theft", "forge", "fraud", "smuggle", "illegal",
    "launder", "con", "fake", "hack", "exploit", "malware", "virus", "phish", "breach", "ddos", "crack", "bypass",
    "manipulate", "deceive", "trick", "scam", "coerce", "blackmail", "control", "threaten", "abuse",
)  # fmt: skip


@dataclass(frozen=True)
class Guard:
    """A guard.

    Attributes:
        name: What the table calls it.
        score: How harmful it takes a text to be; a `bool` counts as 0 or 1.
        threshold: It flags a text whose score is above this.
    """

    name: str
    score: Callable[[str], float]
    threshold: float


def ours(pack: str = "default") -> Guard:
    scanner = Scanner(pack, normalise="full", on_long="window")
    flag_at = {"info": 0.1, "low": 0.25, "medium": 0.5, "high": 0.75, "critical": 1.0}[scanner.pack.flag_at]
    return Guard("flyball", lambda text: scanner.scan(text).score, flag_at - 1e-9)


def older() -> Guard:
    return Guard("older word score", lambda text: legacy_density(text, VOCABULARY), 0.7)


def word_list() -> Guard:
    pattern = re.compile(rf"\b(?:{'|'.join(VOCABULARY)})\b", re.IGNORECASE)
    return Guard("word list, whole words", lambda text: float(pattern.search(text) is not None), 0.5)


def named(name: str) -> Guard:
    """Find a guard of one's own, as `module:callable`, or `module:callable@0.3` with the score above which it flags."""
    path, _, threshold = name.partition("@")
    module, _, attribute = path.partition(":")
    if not attribute:
        raise InputError(f"`{name}` is no guard: write `module:callable`")
    function = getattr(importlib.import_module(module), attribute)
    return Guard(name, lambda text: float(function(text)), float(threshold or 0.5))
