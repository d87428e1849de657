"""Labelled texts, and what a guard makes of them: counts with intervals, never a bare rate."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from math import sqrt
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Label: TypeAlias = Literal["harmful", "harmless", "help", "ordinary"]
LABELS: tuple[Label, ...] = ("harmful", "harmless", "help", "ordinary")
Half: TypeAlias = Literal["open", "locked", "both"]

# The standard normal quantile of a two-sided interval of 95 %.
Z = 1.959963984540054


class Example(NamedTuple):
    """A text and what it is.

    Attributes:
        text: The text.
        label: `harmful` is to be flagged; `harmless`, `help` and `ordinary` are not.
        group: Its family if it is harmful, the kind of look-alike if it is not.
    """

    text: str
    label: Label
    group: str


class Share(NamedTuple):
    """A count among others, with the interval of Wilson (1927) at 95 %.

    Attributes:
        part: How many.
        total: Of how many.
    """

    part: int
    total: int

    @property
    def value(self) -> float:
        """The share; not a number if there is nothing to count."""
        return self.part / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval."""
        if self.total == 0:
            return 0.0, 1.0
        share, n = self.value, self.total
        middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        """Write it as `12/50 = 24.0 % [14.3, 37.4]`."""
        low, high = self.interval
        value = f"{100 * self.value:.1f} %" if self.total else "none"
        return f"{self.part}/{self.total} = {value} [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass
class Figures:
    """What a guard flagged, by label and by group."""

    flagged: dict[tuple[Label, str], int] = field(default_factory=dict)
    totals: dict[tuple[Label, str], int] = field(default_factory=dict)

    def add(self, example: Example, *, flagged: bool) -> None:
        """Count one text."""
        key = (example.label, example.group)
        self.totals[key] = self.totals.get(key, 0) + 1
        self.flagged[key] = self.flagged.get(key, 0) + flagged

    def share(self, label: Label, group: str | None = None) -> Share:
        """Return how many of a label, or of a group of it, were flagged."""
        keys = [key for key in self.totals if key[0] == label and group in (None, key[1])]
        return Share(sum(self.flagged[key] for key in keys), sum(self.totals[key] for key in keys))

    def groups(self, label: Label) -> list[str]:
        """Return the groups of a label, in order."""
        return sorted(group for one, group in self.totals if one == label)

    @property
    def precision(self) -> Share:
        """How many of the flagged texts are harmful. It depends on how many of each the set has."""
        right = self.share("harmful").part
        return Share(right, right + sum(self.share(label).part for label in LABELS[1:]))

    @property
    def youden(self) -> float:
        """The share of harmful texts flagged less that of look-alikes: 0 is chance, 1 is perfect."""
        return self.share("harmful").value - self.share("harmless").value


def is_locked(text: str) -> bool:
    """Say whether a text is in the half that rules are not tuned on: the first byte of its SHA-256 is odd."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 1


def read_sets(paths: Sequence[Path], half: Half = "both") -> list[Example]:
    """Read labelled texts from JSON Lines.

    Args:
        paths: Files, or folders of `.jsonl` files. A row has `text`, `label`, and `family` or `kind`.
        half: `open` for the half that rules may be tuned on, `locked` for the other.

    Raises:
        InputError: A row is no such thing; the message has file and line.
    """
    examples = []
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"`{path}` has no `.jsonl` file: name a file, or a folder of them")
        for file in files:
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        examples.append(_read(line, f"`{file}`, line {number}"))
    wanted = {"open": (False,), "locked": (True,), "both": (False, True)}[half]
    return [example for example in examples if is_locked(example.text) in wanted]


def _read(line: str, place: str) -> Example:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: is no JSON ({error.msg}): write one object in a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f"{place}: has no `text`: write an object with `text` and `label`")
    if row.get("label") not in LABELS:
        raise InputError(f"{place}: `label` is `{row.get('label')}`: use {', '.join(LABELS)}")
    return Example(row["text"], row["label"], str(row.get("family") or row.get("kind") or "all"))


def count(examples: Iterable[Example], flags: Iterable[bool]) -> Figures:
    """Count what was flagged."""
    figures = Figures()
    for example, flagged in zip(examples, flags, strict=True):
        figures.add(example, flagged=bool(flagged))
    return figures
