"""Packs are data: what they hold is checked, and what is wrong is said with file and line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import flyball
from flyball.errors import ConfigError, PackError
from flyball.scan import Pack

HEAD = '[pack]\nname = "p"\nversion = "1"\n'
RULE = '[[rule]]\nid = "a"\ncategory = "c"\npattern = "kill"\n'


def test_a_pack_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        HEAD + RULE + 'family = "f"\nseverity = "critical"\nlanguage = "en"\nflags = ["dotall"]\n'
        'match = ["kill"]\nno_match = ["skill"]\n[[rule]]\nid = "b"\ncategory = "d"\nwords = ["steal from"]\n',
        encoding="utf-8",
    )
    pack = flyball.Pack.load(path)
    assert (pack.name, pack.version, len(pack)) == ("p", "1", 2)
    assert pack.rules[0] == {
        "id": "a", "category": "c", "family": "f", "severity": "critical", "language": "en", "pattern": "kill",
        "flags": ["dotall"], "match": ["kill"], "no_match": ["skill"],
    }  # fmt: skip
    assert Pack.from_rules(pack.rules, name="p", version="1") == pack
    assert flyball.Scanner(path).flagged("they STEAL \n from us")


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        (HEAD + RULE + 'sevrity = "low"\n', 8, "unknown field `sevrity`"),
        (HEAD + 'author = "x"\n' + RULE, 4, "unknown field `author`"),
        (HEAD + RULE + RULE, 9, "`id` is `a`, as it is in rule 1"),
        (HEAD + RULE + 'severity = "worst"\n', 8, "unknown variant `worst`"),
        (HEAD + RULE + 'words = ["x"]\n', 4, "must have one of `pattern` and `words`"),
        (HEAD + '[[rule]]\nid = "a"\ncategory = "c"\n', 4, "must have one of `pattern` and `words`"),
        (HEAD + '[[rule]]\nid = "a"\npattern = "x"\n', 4, "missing field `category`"),
        (HEAD + RULE + 'flags = ["multiline"]\n', 8, "`flags` holds `multiline`: use `dotall`"),
        (HEAD + '[[rule]]\nid = "a"\ncategory = "c"\npattern = "(?=x)y"\n', 7, "look-around at `(?=x)y`"),
        (HEAD + RULE + "match = 3\n", 8, "invalid type: integer `3`"),
        (HEAD + RULE + "oops", 8, ""),
        ("[pack]\n", 1, "missing field `name`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(body: str, line: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(body, encoding="utf-8")
    with pytest.raises(PackError) as caught:
        Pack.load(path)
    assert str(caught.value).startswith(f"`{path}`, line {line}: ")
    assert message in str(caught.value)
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?=kill)", "look-around"), (r"(?<!a)b", "look-around"), (r"(a)\1", "back-reference"),
        ("a{2}{3}", "a repeat of a repeat"), ("a++", "a repeat of a repeat"), ("(?>a)", "cannot be read"),
        ("a{257}", "a repeat goes up to 256"), (r"\p{L}x", "write the characters as ranges"),
        (r"[[:alpha:]]", "ranges"),
        ("[a&&b]", "cannot be combined"), ("[a--b]", "cannot be combined"), ("[a[b]]", "escape a bracket"),
        (r"\bx\b{start}", "use `\\b`"), ("(?s:a)b", "flags hold for a whole rule"), ("(?x)a b", "case never matters"),
        ("x*", "can match nothing"), (r"\b", "can match nothing"), ("(?:a*)*b", "repeats what can match nothing"),
        (r"a\x{41}", r"write `\x41`"), ("(?<n>a)", "(?P<name>...)"), ("(" * 20 + "a" + ")" * 20, "deeper than 16"),
        ("a" * 5000, "has 5000 bytes"), ("(?:(?:ab){100}){100}", "parts when its repeats are written out"),
        (r"a\Z", "cannot be read"), ("(", "cannot be read"), ("a{,3}", ""),
        ("[\u0430\u0432\u0434\u0436\u043a]" + "\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437\u0438\u0439\u043a\u043b"
         "\u043c\u043d\u043e\u043f\u0440\u0441\u0442\u0443\u0444\u0445", "tells apart more than"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_here_is_refused_with_a_remedy(pattern: str, message: str) -> None:
    with pytest.raises(PackError) as caught:
        flyball.Scanner(Pack.from_rules([{"id": "r", "category": "c", "pattern": pattern}]))
    assert message in str(caught.value)
    assert "`r`" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"id": "a", "category": "c", "pattern": "x", "sev": "low"}, "unknown key `sev`"),
        ({"category": "c", "pattern": "x"}, "`id` is missing"),
        ({"id": "a", "category": "c", "words": "x"}, "`words` must be a list of str"),
        ({"id": "a", "category": "c", "words": []}, "holds no word"),
        ({"id": "a", "category": "c", "words": [" "]}, "holds an empty word"),
        ({"id": "a", "category": "c", "pattern": 3}, "`pattern` must be a str"),
        ({"id": "", "category": "c", "pattern": "x"}, "`id` of rule 1 is empty"),
        ({"id": "a", "category": "c", "pattern": "x", "severity": "bad"}, "info, low, medium, high, critical"),
        ("x", "is of type `str`"),
    ],
)
def test_a_rule_from_python_is_checked_alike(rule: dict[str, object], message: str) -> None:
    with pytest.raises(PackError) as caught:
        Pack.from_rules([rule])
    assert message in str(caught.value)


def test_a_hostile_pack_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(PackError, match="a pack has at most"):
        Pack.load(path)
    with pytest.raises(PackError, match="keep it to 16384"):
        Pack.from_rules({"id": str(place), "category": "c", "pattern": "x"} for place in range(16_385))
    with pytest.raises(PackError, match="cannot be read"):
        Pack.load(tmp_path / "missing.toml")
    with pytest.raises(PackError, match=r"`pack` is `nonesuch`: the packs that come with flyball are .*default"):
        flyball.Scanner("nonesuch")


def test_the_hash_changes_exactly_when_the_pack_does() -> None:
    rule = {"id": "a", "category": "c", "pattern": "x"}
    pack = Pack.from_rules([rule])
    assert Pack.from_rules([dict(rule)]).hash == pack.hash
    changed = [
        Pack.from_rules([rule | {key: value}])
        for key, value in (("id", "b"), ("category", "d"), ("pattern", "y"), ("severity", "low"), ("match", ["x"]),
                           ("no_match", ["x"]), ("flags", ["dotall"]), ("family", "f"), ("language", "en"))
    ]  # fmt: skip
    changed += [Pack.from_rules([rule], name="n"), Pack.from_rules([rule], version="2")]
    assert len({one.hash for one in [pack, *changed]}) == len(changed) + 1


def test_a_pack_survives_a_pickle() -> None:
    pack = flyball.Scanner().pack
    twin = pickle.loads(pickle.dumps(pack))  # noqa: S301 -- our own
    assert twin == pack
    assert hash(twin) == hash(pack)
    assert twin.rules == pack.rules
