"""The development set of the default pack: labelled texts, and which of them are locked away from tuning."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "scan" / "development"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and what is known of it: `kind` is the family of a harmful one and the kind of a look-alike."""

    text: str
    label: str
    kind: str
    style: str
    source: str

    @property
    def locked(self) -> bool:
        """Whether it is only counted."""
        return sha256(self.text.encode()).digest()[0] % 2 == 1


@cache
def development() -> tuple[Labelled, ...]:
    """Read every row, in the order of the files."""
    rows = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            kind = row.get("kind") or row["family"]
            rows.append(Labelled(row["text"], row["label"], kind, row.get("style", ""), row.get("source", "")))
    return tuple(rows)
