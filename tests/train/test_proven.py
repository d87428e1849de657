"""The table of what is proven where, in the page on the trainer, names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "trainer.md").read_text()
TABLE = PAGE.split("## What is proven where")[1]
ROWS = [line.split("|")[2] for line in TABLE.splitlines() if line.startswith("|") and "test_" in line]
PLACES = [place.strip() for row in ROWS for place in row.split(";")]


@pytest.mark.parametrize("place", PLACES)
def test_every_test_that_the_page_names_is_there(place: str) -> None:
    file, _, names = place.partition(":")
    path = ROOT / file if "/" in file else ROOT / "tests" / "train" / file
    if not path.exists():
        path = next((ROOT / "tests").rglob(file))
    tests = re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names):
        assert any(one.startswith(name) for one in tests), f"`{name}` is no test of `{file}`"
    assert tests
