"""What is wrong with a pack that can be read: examples, overlaps, rules that are dead, and rules that are slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flyball.scan.report import SEVERITIES
from flyball.scan.scanner import Scanner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flyball._native import Pack, Report
    from flyball.scan.report import Finding

# How many examples of each kind a rule needs.
EXAMPLES = 3


class Problem(NamedTuple):
    """Something that is wrong with a rule.

    Attributes:
        file: The file of the pack; None if it was built from dicts.
        line: The line of the rule's id.
        rule: The rule, or nothing if it is a list or a frame.
        level: `error` if the pack is not to be used so, `warning` if somebody should look.
        problem: What is wrong, and what to do.
    """

    file: str | None
    line: int | None
    rule: str
    level: Literal["error", "warning"]
    problem: str

    def __str__(self) -> str:
        """Write it in one line, as a compiler does."""
        place = f"`{self.file}`, line {self.line}: " if self.file else ""
        name = f"rule `{self.rule}` " if self.rule else ""
        return f"{place}{self.level}: {name}{self.problem}"


def check(pack: Pack) -> list[Problem]:
    """Return every problem of a pack, in the order of its rules."""
    scanner = Scanner(pack, normalise="full")
    rules, places = pack.rules, pack.places
    reports = _reports(scanner, rules)
    slow = dict(scanner.slow_rules)
    problems = []
    for rule, place in zip(rules, places, strict=True):
        found = [
            *(("error", text) for text in _examples(rule, reports, pack.flag_at)),
            *(("warning", text) for text in _overlaps(rule, rules, reports)),
            *(("warning", text) for text in _dead(rule, pack.flag_at)),
        ]
        if rule["id"] in slow:
            found.append(("warning", _slow(slow[rule["id"]])))
        file, line = place or (None, None)
        problems += [Problem(file, line, rule["id"], level, text) for level, text in found]  # type: ignore[arg-type]
    problems += [Problem(None, None, "", "warning", text) for text in _unused(pack, rules)]
    return problems


def failures(pack: Pack) -> list[Problem]:
    """Return only what its examples say: what `flyball rules test` shows."""
    reports = _reports(Scanner(pack, normalise="full"), pack.rules)
    problems = []
    for rule, place in zip(pack.rules, pack.places, strict=True):
        file, line = place or (None, None)
        problems += [
            Problem(file, line, rule["id"], "error", text)
            for text in _examples(rule, reports, pack.flag_at)
            if not text.startswith("has ")
        ]
    return problems


def _rank(severity: str) -> int:
    return [*SEVERITIES].index(severity)  # type: ignore[arg-type]


def _reports(scanner: Scanner, rules: list[dict[str, Any]]) -> dict[str, Report]:
    texts = list(dict.fromkeys(text for rule in rules for key in ("match", "no_match") for text in rule[key]))
    return dict(zip(texts, scanner.scan_batch(texts), strict=True))


def _of(rule: dict[str, Any], report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.rule_id == rule["id"]]


def _examples(rule: dict[str, Any], reports: dict[str, Report], flag_at: str) -> Iterator[str]:
    for key in ("match", "no_match"):
        if (count := len(rule[key])) < EXAMPLES:
            yield f"has {count} examples in `{key}`: it needs {EXAMPLES}"
    for text in rule["match"]:
        if text in rule["no_match"]:
            yield f"has {text!r} in `match` and in `no_match`: leave it in one"
        elif not _of(rule, reports[text]):
            yield f"does not find its `match` {text!r}: mend the rule, or the example"
    for text in rule["no_match"]:
        for finding in _of(rule, reports[text]):
            lowered = finding.frames and _rank(finding.severity) < _rank(flag_at)
            if not lowered and text not in rule["match"]:
                yield f"finds {finding.text!r} in its `no_match` {text!r}: mend the rule, or the example"
                break


def _overlaps(rule: dict[str, Any], rules: list[dict[str, Any]], reports: dict[str, Report]) -> Iterator[str]:
    """Name the rules of the same category that find all its examples, at the same places or wider ones."""
    if not rule["match"]:
        return
    others = [one for one in rules if one["category"] == rule["category"] and one["id"] != rule["id"]]
    for other in others:
        if _rank(other["severity"]) < _rank(rule["severity"]):
            continue
        if all(_covers(rule, other, reports[text]) for text in rule["match"]):
            yield f"adds nothing to `{other['id']}` in its own examples: give it one that only it finds, or drop it"


def _covers(rule: dict[str, Any], other: dict[str, Any], report: Report) -> bool:
    mine, theirs = _of(rule, report), _of(other, report)
    return bool(mine) and all(any(b.start <= a.start and a.end <= b.end for b in theirs) for a in mine)


def _dead(rule: dict[str, Any], flag_at: str) -> Iterator[str]:
    if rule.get("weight", 1.0) == 0:
        yield "has weight 0 and never flags: disable it, or give it a weight"
    elif rule.get("kind", "harm") == "harm" and _rank(rule["severity"]) < _rank(flag_at):
        yield f"is of severity {rule['severity']}, below `flag_at` {flag_at} and never flags: make it a concern"


def _slow(unless: str | None) -> str:
    why = "no rare word is in every match of it, so an automaton runs over "
    return f"is slow: {why}{f'every text with `{unless}`' if unless else 'every text'}; give it a word that it needs"


def _unused(pack: Pack, rules: list[dict[str, Any]]) -> Iterator[str]:
    used = {name for rule in rules for name in rule.get("exclude", ())}
    used |= {name for frame in pack.frames for name in frame["lists"]}
    for rule in rules:
        used |= {
            part for order in rule.get("slots", ()) for slot in order for part in slot.removesuffix("?").split("|")
        }
    used = {name.partition(":")[0] for name in used}
    # A list that another one includes is used by it; which ones do is no longer known, so its words are looked for.
    words = {name: {form for form, _ in forms} for name, forms in pack.lists.items()}
    for name in words.keys() - used:
        if not any(words[name] <= words[other] for other in words.keys() & used):
            yield f"list `{name}` is in no rule and no frame: leave it out"
    named = {frame for rule in rules for frame in rule.get("frames", ())}
    for frame in pack.frames:
        if all("frames" in rule for rule in rules) and frame["id"] not in named:
            yield f"frame `{frame['id']}` lowers no rule: leave it out"
