"""Words that are hidden from a scanner and not from a reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import InputError
from flyball.scan import Pack, Scanner

PACK = Pack.from_rules([
    {"id": "kill", "category": "violence", "pattern": r"\bkill\b"},
    {"id": "steal", "category": "theft", "words": ["steal"]},
])  # fmt: skip
NONE, UNICODE, FULL = (Scanner(PACK, normalise=how) for how in ("none", "unicode", "full"))


@pytest.mark.parametrize(
    "hidden",
    ["k\u200bi\u200dll", "\uff4b\uff49\uff4c\uff4c", "\u043aill", "k\u0336i\u0336l\u0336l\u0336",
     "\U0001d4f4\U0001d4f2\U0001d4f5\U0001d4f5",
     "\u202ekill\u2060", "ki\u00adll"],
)  # fmt: skip
def test_a_hidden_word_is_found_marked_and_its_span_covers_what_is_written(hidden: str) -> None:
    """Property 6.1: zero-width, full-width and homoglyph characters keep the verdict and set `obfuscated`."""
    text = f"\u00e9\U0001f600 they {hidden}, and so on"
    (finding,) = UNICODE.scan(text).findings
    assert (finding.rule_id, finding.obfuscated) == ("kill", "kill" not in text or "kill\u2060" not in text)
    assert text[finding.start : finding.end] == finding.text
    assert finding.text.strip("\u202e\u2060") in hidden
    assert UNICODE.scan_batch([text]).flagged_indices.tolist() == [0]
    if finding.obfuscated:
        assert not NONE.flagged(text)
        assert "written so as to hide it" in UNICODE.scan(text).reasoning


@pytest.mark.parametrize(
    "hidden", ["k1ll", "K!LL", "k i l l", "k.i.l.l", "s-t-e-a-l", "st3al", "$teal", "5te@l", "k 1 l l"]
)
def test_leetspeak_and_spaced_letters_are_found_when_asked_for(hidden: str) -> None:
    text = f"they {hidden} us"
    assert not UNICODE.flagged(text)
    if hidden == "k 1 l l":
        return  # both at once is not undone
    (finding,) = FULL.scan(text).findings
    assert finding.obfuscated
    assert finding.text == hidden


@pytest.mark.parametrize(
    "text",
    ["skill", "a b c d", "version 7 of 3", "$100 and 5%", "r\u00e9sum\u00e9", "x = y[0]", "na\u00efve caf\u00e9",
     "k-i-d", "e-mail", "I'm 5'4\""],
)  # fmt: skip
def test_what_hides_nothing_is_clean(text: str) -> None:
    assert not FULL.flagged(text)


def test_what_is_written_plainly_is_not_obfuscated() -> None:
    report = FULL.scan("kill and k\u200bill and steal and 5teal")
    assert [(one.rule_id, one.obfuscated) for one in report.findings] == [("kill", False), ("steal", False)]


@given(st.text(st.sampled_from("kil \u200b\uff4b\u0301e\u00e91!."), max_size=30))
def test_normalising_never_loses_a_finding_and_spans_lie_in_the_text(text: str) -> None:
    plain = NONE.scan(text).findings
    for scanner in (UNICODE, FULL):
        report = scanner.scan(text)
        assert [one for one in report.findings if not one.obfuscated] == list(plain)
        assert all(text[one.start : one.end] == one.text for one in report.findings)
        assert scanner.flagged(text) == report.flagged


def test_what_is_found_is_reported_where_a_letter_of_the_rule_is_itself_a_look_alike() -> None:
    pack = Pack.from_rules([{"id": "k", "category": "c", "pattern": "\u043a\\w"}])
    scanner, text = Scanner(pack, normalise="full"), "@kill\u043a@kill"
    assert scanner.flagged(text)
    (finding,) = scanner.scan(text).findings
    assert (finding.text, finding.obfuscated) == ("\u043a@", True)


def test_an_unknown_way_to_normalise_is_refused() -> None:
    with pytest.raises(InputError, match="`normalise` is `some`: use `none`, `unicode` or `full`"):
        Scanner(PACK, normalise="some")  # type: ignore[arg-type]
