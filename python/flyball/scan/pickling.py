"""What the pickles of packs and reports name, so that they are read and checked again where they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball._native import Pack

if TYPE_CHECKING:
    from flyball._native import Report, Scanner


def rebuild_pack(rules: list[dict[str, Any]], name: str, version: str) -> Pack:
    """Build a pack again from what its pickle holds."""
    return Pack.from_rules(rules, name=name, version=version)


def reread_pack(sources: list[tuple[str, str]], _name: str, _version: str) -> Pack:
    """Read a pack again from the text of its files."""
    return Pack.from_sources(sources)


def rebuild_report(scanner: Scanner, text: str | None, words: int | None) -> Report:
    """Make a report again by scanning its text; of one that was not kept, None says that it is blank."""
    if text is None:
        return scanner.nothing(blank=words is None, words=words or 0)
    return scanner.scan(text)
