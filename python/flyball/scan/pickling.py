"""What the pickle of a pack names, so that it is read and checked again where it arrives."""

from __future__ import annotations

from typing import Any

from flyball._native import Pack


def rebuild_pack(rules: list[dict[str, Any]], name: str, version: str) -> Pack:
    """Build a pack again from what its pickle holds."""
    return Pack.from_rules(rules, name=name, version=version)
