"""Packs of slots, lists, frames and suspicious words: what they find, what lowers it, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball
from flyball.cli import main
from flyball.errors import InputTypeError, PackError
from flyball.scan import Finding, Pack, Scanner, legacy_density

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
EXAMPLE = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]

TEXT = (
    EXAMPLE
    + """
[[frame]]
id = "fiction"
words = ["novel"]
scope = "text"

[[frame]]
id = "negation"
words = ["never"]
side = "before"
window = 3
lowers = 3

[[rule]]
id = "weapon.imperative"
category = "weapons"
severity = "critical"
slots = ["^", "please?", "make:base", "bomb"]
match = ["Make a bomb.", "Please build a big bomb", "Hello. Build bombs"]
no_match = ["They make bombs", "a bomb", "make a bath"]

[[rule]]
id = "pii.card"
category = "pii"
validate = "luhn"
frames = []
pattern = '\\b[0-9](?:[ -]?[0-9]){12,18}\\b'
match = ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005 is mine"]
no_match = ["4111 1111 1111 1112", "1234567890123", "0000 0000 0000 0000"]

[[rule]]
id = "claim.always"
category = "claims"
kind = "concern"
severity = "low"
words = ["everyone knows"]
match = ["Everyone knows it", "as everyone  knows", "EVERYONE KNOWS"]
no_match = ["everyone", "he knows", "someone knows"]

[[rule]]
id = "help.self"
category = "self-harm"
kind = "help"
severity = "high"
words = ["i want to die"]
match = ["I want to die", "i want to  die", "Help, I WANT TO DIE"]
no_match = ["dice", "I want to dine", "die"]

[lists.please]
words = ["please", "kindly"]
[lists.make]
verbs = ["make", "build"]
[lists.bomb]
nouns = ["bomb"]

[subtle]
threshold = 0.7
[subtle.verbs]
poison = 1.0
stab = 1.0
stalk = 1.0
rob = 1.0
[subtle.nouns]
corpse = 0.5
"""
)
PACK = Pack.from_toml(TEXT, "example")
SCANNER = Scanner(PACK, normalise="full")


def found(text: str, rule: str) -> list[Finding]:
    return [finding for finding in SCANNER.scan(text).findings if finding.rule_id == rule]


def test_the_rules_of_the_example_have_no_problem() -> None:
    """Property 6.1: every rule matches its positives and none of its negatives."""
    assert [problem for problem in PACK.check() if problem.level == "error"] == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("How do I kill my old neighbour?", "How do I kill my old neighbour"),
        ("how to, quietly, slowly, MURDER\n someone", "how to, quietly, slowly, MURDER\n someone"),
        ("teach me to beat  up my coworkers", "teach me to beat  up my coworkers"),
        ("how to kill time. Someone", None),
        ("how to kill one two three four someone", None),
        ("how to skill someone", None),
        ("how to killing someone", None),
    ],
)
def test_slots_follow_each_other_in_one_sentence_with_bounded_gaps(text: str, wanted: str | None) -> None:
    assert [finding.text for finding in found(text, "violence.kill")] == ([wanted] if wanted else [])


def test_a_slot_at_the_beginning_of_a_sentence_leaves_the_sentence_before_alone() -> None:
    text = 'All good. "Please make a bomb"'
    (finding,) = found(text, "weapon.imperative")
    assert text[finding.start : finding.end] == finding.text == "Please make a bomb"
    assert found("You can make a bomb", "weapon.imperative") == []


def test_an_excluded_word_near_a_finding_takes_it_back() -> None:
    assert found("how to kill someone", "violence.kill")
    assert not found("how to kill someone else's server process", "violence.kill")
    assert found("how to kill someone. The server is down", "violence.kill")
    assert found("the server room, a long way from here, is how to kill someone", "violence.kill")


def test_frames_lower_and_are_recorded() -> None:
    report = SCANNER.scan("Report anyone who asks how to kill someone")
    assert not report.flagged
    assert [(one.severity, one.frames) for one in report.findings] == [("low", ("defence",))]
    assert "lowered by defence" in report.reasoning
    # Another sentence is too far, unless the frame is one of the whole text.
    assert SCANNER.scan("Report it. How to kill someone").flagged
    (finding,) = SCANNER.scan("A novel. It is long. How to kill someone").findings
    # This rule names its frames, and fiction is none of them.
    assert (finding.frames, finding.severity) == ((), "high")


def test_frames_never_lower_a_critical_rule() -> None:
    """Property 6.1: frames never suppress critical rules; they are recorded all the same."""
    report = SCANNER.scan("For my novel, never make: Build a bomb")
    assert report.flagged
    (finding,) = report.findings
    assert finding.severity == "critical"
    assert "fiction" in finding.frames


def test_a_number_that_fails_its_check_is_no_finding() -> None:
    """Property 6.1: checksum validators accept valid numbers and reject those off by one."""
    assert found("card 4111 1111 1111 1111", "pii.card")
    for last in (0, *range(2, 10)):
        assert not found(f"card 4111 1111 1111 111{last}", "pii.card")


def test_concerns_and_help_never_flag() -> None:
    concern = SCANNER.scan("Everyone knows it")
    assert (concern.flagged, concern.severity, concern.findings[0].kind) == (False, "low", "concern")
    help_ = SCANNER.scan("I want to die")
    assert (help_.flagged, help_.findings[0].kind) == (False, "help")
    assert "point to people who can give it" in help_.reasoning


WORDS = st.lists(st.sampled_from(["poison", "stabbed", "stalks", "robbing", "corpses", "and", "the"]), max_size=90)


@given(WORDS, st.integers(0, 200))
def test_the_subtle_score_is_in_bounds_and_not_raised_by_neutral_words(words: list[str], more: int) -> None:
    """Property 6.1: subtle score in [0, 1], monotone in hits, never raised by appended neutral words."""
    text = " ".join(words)
    score = SCANNER.scan(text).subtle_score
    assert 0 <= score <= 1
    assert SCANNER.scan(text + " plain" * more).subtle_score <= score
    if words:
        assert SCANNER.scan(" ".join(["the", *words[1:]])).subtle_score <= score


def test_one_word_never_flags_a_short_text_and_a_long_one_does_not_dilute() -> None:
    """Property 6.1: a single hit in 14 words or fewer never flags; a full window is unaffected by text outside it."""
    for count in range(14):
        assert not SCANNER.flagged("poison" + " word" * count)
    harmful = "they poison and stab and stalk and rob"
    report = SCANNER.scan(harmful)
    assert report.flagged
    assert not report.explicit
    assert report.categories == ()
    assert "suspicious together" in report.reasoning
    around = " plain" * 64 * 3
    assert SCANNER.scan(around + " " + harmful + " word" * 56 + around).flagged == SCANNER.flagged(
        harmful + " word" * 56
    )


def test_ordinary_words_that_hold_a_suspicious_one_do_not_count() -> None:
    """Property 6.1: no ordinary-word substring hits."""
    assert (
        SCANNER.scan("problem robot probe stable establish poisonous corpseless stalking-horsey").subtle_score <= 1 / 3
    )
    assert SCANNER.scan("problem robot probe stable establish").subtle_score == 0


@given(st.sampled_from(["How to kill someone", "I want to die", "make a bomb", "plain", ""]), st.text(max_size=9))
@settings(max_examples=60)
def test_the_reasoning_mentions_exactly_the_categories_found(text: str, more: str) -> None:
    """Property 6.1: reasoning mentions exactly the finding categories."""
    report = SCANNER.scan(f"{more} {text}")
    named = re.findall(r"([a-z-]+) \(`", report.reasoning)
    assert tuple(named) == report.categories == tuple(sorted({one.category for one in report.findings}))


HIDDEN: dict[str, Callable[[str], str]] = {
    "zero-width": "\u200b".join,
    "full-width": lambda text: "".join(chr(ord(char) + 0xFEE0) if "!" < char < "~" else char for char in text),
    "homoglyph": lambda text: text.translate({ord("o"): "\u043e", ord("e"): "\u0435", ord("i"): "\u0456"}),
    "leet": lambda text: text.translate({ord("o"): "0", ord("e"): "3", ord("i"): "1"}),
}


@pytest.mark.parametrize("way", HIDDEN)
@pytest.mark.parametrize("text", ["how to kill someone", "teach me to murder my neighbour", "ways to kill somebody"])
def test_what_is_hidden_is_found_and_marked(text: str, way: str) -> None:
    """Property 6.1: inserting zero-width, full-width or homoglyph characters keeps the verdict and sets obfuscated."""
    hidden = HIDDEN[way](text)
    report = SCANNER.scan(hidden)
    assert report.flagged
    assert all(finding.obfuscated for finding in report.findings)
    assert all(hidden[finding.start : finding.end] == finding.text for finding in report.findings)


def test_what_is_taken_back_where_it_is_plain_is_found_where_it_is_hidden() -> None:
    report = SCANNER.scan("how to kill someone's server process. And now: how to k1ll someone")
    assert report.flagged
    assert [finding.obfuscated for finding in report.findings] == [True]


def test_a_batch_counts_as_the_loop_does() -> None:
    """Property 6.1: batch equals loop, for what is lowered, taken back and only suspicious."""
    texts = [
        "how to kill someone", "report how to kill someone", "how to kill someone, a server", "Everyone knows it",
        "they poison and stab and stalk and rob", "poison", "plain", "", "4111 1111 1111 1112",
    ] * 40  # fmt: skip
    wanted = [SCANNER.scan(text) for text in texts]
    for batch in (SCANNER.scan_batch(texts, 2), SCANNER.scan_batch(iter(texts))):
        assert list(batch) == wanted
        assert [report.n_words for report in batch] == [report.n_words for report in wanted]
        assert batch.flagged.tolist() == [report.flagged for report in wanted]
        assert batch.flagged_indices.tolist() == [place for place, one in enumerate(wanted) if one.flagged]


def test_a_report_says_who_made_it_and_what_it_counted() -> None:
    report = SCANNER.scan("how to  kill someone")
    assert report.pack == (PACK.name, PACK.version, PACK.hash)
    assert report.n_words == 4
    assert report.elapsed_ns > 0
    assert 0 <= report.score <= 1
    legacy = report.to_dict(legacy=True)
    assert list(legacy) == ["flagged", "explicit_harm_detected", "subtle_harm_score", "reasoning", "method"]
    assert report.to_dict()["findings"][0]["kind"] == "harm"
    with pytest.raises(AttributeError):
        report.flagged = False  # type: ignore[misc]


def test_what_a_view_shows_is_escaped_and_marked() -> None:
    from rich.console import Console

    text = "<b>how to kill someone</b> & \x1b[31m"
    shown = SCANNER.scan(text).to_html()
    assert "&lt;b&gt;<mark" in shown
    assert "<b>" not in shown
    assert "\x1b" not in shown
    console = Console(record=True, width=100, force_terminal=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    console.print(SCANNER.scan(text))
    drawn = console.export_text(styles=True)
    assert "\x1b[4;31mhow to kill someone" in drawn
    console.file.close()


def test_the_older_density_is_what_it_was() -> None:
    """Property 6.1: the legacy formula reproduces the studied score on fixed cases."""
    assert legacy_density("they rob", ["rob", "con"]) == 1.0
    assert legacy_density("a problem of " + "many words " * 6, ["rob"]) == pytest.approx(10 / 15)
    assert legacy_density("", ["rob"]) == 0.0
    assert legacy_density("word " * 643, ["word"]) < 0.7
    with pytest.raises(InputTypeError, match="`NoneType`"):
        legacy_density(None, [])  # type: ignore[arg-type]


HEAD = '[pack]\nname = "p"\nversion = "1"\n'
RULE = '[[rule]]\nid = "a"\ncategory = "c"\npattern = "kill"\n'


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        (HEAD + '[[rule]]\nid = "a"\ncategory = "c"\nslots = ["ask"]\n', 7, "`ask` is no list"),
        (HEAD + '[lists.aks]\nwords = ["x"]\n[[rule]]\nid = "a"\ncategory = "c"\nslots = ["ask"]\n', 9, "`aks` is"),
        (HEAD + '[lists.l]\nverbs = ["kill"]\n[[rule]]\nid = "a"\ncategory = "c"\nslots = ["l:gerund"]\n', 9,
         "use base"),
        (HEAD + '[lists.l]\nwords = ["x"]\n[[rule]]\nid = "a"\ncategory = "c"\nslots = ["l"]\ngaps = [1, 2]\n', 9,
         "gaps"),
        (HEAD + '[lists.l]\nwords = ["x"]\n[[rule]]\nid = "a"\ncategory = "c"\nslots = ["l", "l"]\ngaps = 99\n', 9,
         "99"),
        (HEAD + '[lists.l]\nwords = ["x"]\n[[rule]]\nid = "a"\ncategory = "c"\nslots = ["l?"]\n', 9, "must be there"),
        (HEAD + '[lists.l]\nwords = ["!"]\n' + RULE, 4, "does not begin and end"),
        (HEAD + '[lists.l]\ninclude = ["m"]\n[lists.m]\ninclude = ["l"]\n' + RULE, 6, "break the circle"),
        (HEAD + '[lists.l]\nadd = true\nwords = ["x"]\n' + RULE, 4, "none to add to"),
        (HEAD + RULE + "gaps = 2\n", 8, "without `slots`"),
        (HEAD + RULE + 'validate = "crc"\n', 8, "luhn, iban, ssn or entropy"),
        (HEAD + RULE + "weight = 2.0\n", 8, "from 0 to 1"),
        (HEAD + RULE + 'kind = "bad"\n', 8, "unknown variant `bad`"),
        (HEAD + RULE + 'frames = ["f"]\n', 5, "which is no frame"),
        (HEAD + RULE + 'exclude = ["l"]\n', 5, "`l` is no list"),
        (HEAD + RULE + '[[frame]]\nid = "f"\n', 9, "has no words"),
        (HEAD + RULE + '[[frame]]\nid = "f"\nwords = ["x"]\nside = "left"\n', 11, "before, after or around"),
        (HEAD + RULE + '[[frame]]\nid = "f"\nwords = ["x"]\n[[frame]]\nid = "f"\nwords = ["y"]\n', 12,
         "each frame its own"),
        (HEAD + RULE + "[subtle.verbs]\nrob = 3.0\n", 9, "from 0 to 1"),
        (HEAD + RULE + '[disable]\nrules = ["b"]\n', 9, "`disable` names the rule `b`"),
        (HEAD + RULE + '[override.b]\nseverity = "low"\n', 8, "`override` names the rule `b`"),
        (HEAD + 'extends = "nonesuch"\n' + RULE, 4, "which is not there"),
        (HEAD + 'extends = "../x.toml"\n' + RULE, 4, "in the same folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_pack_of_slots_is_said_with_its_line(
    body: str, line: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(body, encoding="utf-8")
    with pytest.raises(PackError) as caught:
        Pack.load(path)
    assert str(caught.value).startswith(f"`{path}`, line {line}: ")
    assert message in str(caught.value)


def test_a_circle_of_packs_is_refused(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.toml").write_text(HEAD + f'extends = "{other}.toml"\n' + RULE, encoding="utf-8")
    with pytest.raises(PackError, match=r"line 4: `extends` goes in a circle, `a.toml` extends `b.toml` extends"):
        Pack.load(tmp_path / "a.toml")


def test_a_pack_adds_disables_and_changes_what_it_extends(tmp_path: Path) -> None:
    """Property 6.1: disabling a rule removes only its findings; the hash changes."""
    (tmp_path / "base.toml").write_text(TEXT, encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(
        '[pack]\nname = "m"\nversion = "2"\nextends = "base.toml"\n'
        '[disable]\nrules = ["pii.*"]\nframes = ["defence"]\n'
        '[override."violence.kill"]\nseverity = "low"\n[lists.person]\nadd = true\nnouns = ["landlord"]\n',
        encoding="utf-8",
    )
    mine = Pack.load(path)
    scanner = Scanner(mine)
    assert [rule["id"] for rule in mine.rules] == [
        rule["id"] for rule in PACK.rules if not rule["id"].startswith("pii.")
    ]
    assert mine.flag_at == PACK.flag_at
    (finding,) = scanner.scan("report how to kill my landlord").findings if not scanner.flagged("x") else ()
    assert (finding.severity, finding.frames) == ("low", ())
    assert not scanner.scan("4111 1111 1111 1111").findings
    assert mine.hash != PACK.hash
    assert scanner.scan("Please make a bomb").findings == SCANNER.scan("Please make a bomb").findings


def test_a_pack_of_ours_can_be_extended_by_its_name() -> None:
    ours = flyball.Scanner().pack
    mine = Pack.from_toml('[pack]\nname = "m"\nversion = "1"\nextends = "default"\n')
    assert [rule["id"] for rule in mine.rules] == [rule["id"] for rule in ours.rules]


def test_concerns_are_found_beside_their_look_alikes_and_never_flag() -> None:
    concerns = Scanner("concerns")
    assert concerns.pack.check() == []
    assert {rule["kind"] for rule in concerns.pack.rules} == {"concern"}
    for rule in concerns.pack.rules:
        assert not any(concerns.flagged(text) for text in rule["match"])


def test_lint_says_where_an_example_is_missing_or_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        HEAD + RULE + 'match = ["kill", "no", "KILL"]\nno_match = ["skill", "x"]\n'
        '[[rule]]\nid = "b"\ncategory = "d"\npattern = "[a-z]{20,}"\n',
        encoding="utf-8",
    )
    assert main(["rules", "lint", str(path)]) == 3
    shown = capfd.readouterr().out
    for message in (
        "line 5: error: rule `a` has 2 examples in `no_match`: it needs 3",
        "line 5: error: rule `a` does not find its `match` 'no'",
        "line 5: error: rule `a` finds 'kill' in its `no_match` 'skill'",
        "line 11: warning: rule `b` is slow",
    ):
        assert f"`{path}`, {message}" in shown
    assert main(["rules", "test", str(path)]) == 3


def test_explain_says_slot_by_slot_what_was_found_and_what_lowers_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(TEXT, encoding="utf-8")
    text = "Report anyone who asks how to quietly kill my boss"
    assert main(["rules", "explain", "--pack", str(path), text]) == 0
    shown = capfd.readouterr().out
    for part in ("kill:base 'kill'", "person    'my boss'", "high lowered to low by `defence`"):
        assert part in shown
    assert main(["rules", "show", "--pack", str(path), "violence.kill"]) == 0
    assert "line " in capfd.readouterr().out


def test_bench_counts_a_labelled_set_with_intervals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(TEXT, encoding="utf-8")
    rows = [("how to kill someone", "harmful"), ("how to bake", "harmful"), ("a cake", "harmless")]
    lines = [f'{{"text": "{text}", "label": "{label}", "kind": "k"}}' for text, label in rows]
    (tmp_path / "set.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = ["rules", "bench", "--pack", str(tmp_path / "rules.toml")]
    assert main([*arguments, str(tmp_path / "set.jsonl")]) == 0
    shown = capfd.readouterr().out
    assert "1/2 = 50.0 % [9.5, 90.5]" in shown
    assert "Youden J                 0.500" in shown
    (tmp_path / "set.jsonl").write_text('{"text": 3}', encoding="utf-8")
    assert main([*arguments, str(tmp_path / "set.jsonl")]) == 1
    assert "line 1: has no `text`" in capfd.readouterr().err
