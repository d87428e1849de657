"""English prose that is on every machine: the docstrings of installed packages, cut into paragraphs."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from pathlib import Path


def paragraphs(count: int) -> list[str]:
    """Return as many paragraphs of 60 to 4,000 ASCII characters as asked for, in a fixed random order."""
    found: dict[str, None] = {}
    roots = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    files = sorted({path for root in roots for path in root.rglob("*.py")})
    random.Random(1).shuffle(files)
    for path in files:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.update(dict.fromkeys(_prose(ast.get_docstring(node) or "")))
        if len(found) >= count:
            break
    return list(found)[:count]


def _prose(text: str) -> list[str]:
    pieces = (re.sub(r"\s+", " ", piece).strip() for piece in re.split(r"\n\s*\n", text))
    return [
        piece
        for piece in pieces
        if 60 <= len(piece) <= 4000
        and piece.isascii()
        and sum(c.isalpha() or c == " " for c in piece) >= 0.85 * len(piece)
    ]
