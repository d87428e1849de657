"""The development set is what its README says: large, varied, halved by hash, without links."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from support.labelled import FOLDER, development

ROWS = development()


@pytest.mark.parametrize(("label", "least"), [("harmful", 600), ("harmless", 600), ("ordinary", 2000), ("help", 20)])
def test_each_label_has_enough_rows_and_about_half_of_them_are_locked(label: str, least: int) -> None:
    rows = [row for row in ROWS if row.label == label]
    assert len(rows) >= least
    locked = sum(row.locked for row in rows) / len(rows)
    assert 0.2 <= locked <= 0.8 if label == "help" else 0.45 <= locked <= 0.55


def test_no_text_stands_twice() -> None:
    assert [text for text, count in Counter(row.text for row in ROWS).items() if count > 1] == []


def test_the_harmful_rows_cover_families_and_styles() -> None:
    harmful = [row for row in ROWS if row.label == "harmful"]
    assert len({row.kind for row in harmful}) >= 60
    styles = Counter(row.style for row in harmful)
    assert set(styles) == {"question", "imperative", "goal", "indirect", "statement", "obfuscated"}
    assert min(styles.values()) >= 20


def test_the_look_alikes_cover_their_kinds() -> None:
    kinds = Counter(row.kind for row in ROWS if row.label == "harmless")
    assert {"homonym", "figurative", "software", "game_fiction", "prevention", "definition_history", "negation",
            "quotation", "safe_target", "safe_context", "medical", "news"} <= set(kinds)  # fmt: skip
    assert min(kinds.values()) >= 20


def test_every_row_is_short_and_none_links_anywhere() -> None:
    for row in ROWS:
        assert len(row.text) <= 200, row.text
        assert not re.search(r"https?://(?!user:gho_)", row.text), row.text


def test_ordinary_paragraphs_say_where_they_are_from() -> None:
    assert all(row.source for row in ROWS if row.label == "ordinary")


def test_the_files_stay_small() -> None:
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert max(sizes) <= 200_000
    assert sum(sizes) <= 900_000
