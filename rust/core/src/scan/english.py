"""Write `english.bin` beside this file: how often three characters follow each other in English prose.

Run by hand: `python rust/core/src/scan/english.py`. The text is the documentation in Python's own standard library,
which may be passed on; what is kept are counts of letters. One byte for each triple of the 27 symbols (0 is what is no
letter, runs of it squeezed to one): minus eight times the binary logarithm of its share, 255 for what never occurs.
"""

from __future__ import annotations

import ast
import math
import re
import sysconfig
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics


def prose() -> str:
    """Return the docstrings of the standard library, and its help pages."""
    parts = list(topics.values())
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        documented = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
        parts.extend(ast.get_docstring(node) or "" for node in documented)
    return "\n".join(part for part in parts if len(part) > 80)


def main() -> None:
    """Count and write."""
    text = re.sub("[^a-z]+", "\0", prose().lower())
    symbols = [0 if char == "\0" else ord(char) - 96 for char in text]
    counts = Counter(zip(symbols, symbols[1:], symbols[2:], strict=False))
    total = sum(counts.values())
    table = bytearray(
        min(255, round(-8 * math.log2(counts[a, b, c] / total))) if counts[a, b, c] else 255
        for a in range(27) for b in range(27) for c in range(27)
    )  # fmt: skip
    Path(__file__).with_suffix(".bin").write_bytes(table)


if __name__ == "__main__":
    main()
