"""Why a text is flagged, or is not: rule by rule, slot by slot, frame by frame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flyball._native import Pack, Report
    from flyball.scan.report import Finding


def explain(pack: Pack, report: Report) -> Iterator[str]:
    """Write what was found in a text and why it counts as it does, in lines."""
    yield f"{'flagged' if report.flagged else 'not flagged'}: {report.reasoning}"
    rules = {rule["id"]: rule for rule in pack.rules}
    lists = pack.lists
    for finding in report.findings:
        rule = rules[finding.rule_id]
        where = f"{finding.start}-{finding.end}"
        yield f"  {finding.rule_id} ({finding.category}, {finding.kind}) at {where}: {finding.text!r}"
        if rule.get("intent"):
            yield f"    intent    {rule['intent']}"
        for slot, words in slots(rule, lists, finding):
            yield f"    {slot:<9} {words!r}"
        if finding.obfuscated:
            yield "    hidden    only the normalised text has it"
        yield f"    severity  {_severity(rule, finding, pack)}"
    threshold, lemmas = pack.subtle
    if report.subtle_score > 0:
        found = [lemma for lemma, _, forms in lemmas if any(_has(report.text or "", form) for form in forms)]
        by = ", ".join(sorted(found)) or "hidden words"
        yield f"  subtle score {report.subtle_score:.2f} (flags above {threshold:.2f}) by {by}"


def _severity(rule: dict[str, Any], finding: Finding, pack: Pack) -> str:
    weight = f", weight {rule['weight']}" if "weight" in rule else ""
    if not finding.frames:
        return f"{finding.severity}{weight}; the pack flags from {pack.flag_at} on"
    frames = ", ".join(f"`{frame}`" for frame in finding.frames)
    if rule["severity"] == "critical":
        return f"critical{weight}; {frames} around it lowers no critical rule"
    return (
        f"{rule['severity']} lowered to {finding.severity} by {frames}{weight}; the pack flags from {pack.flag_at} on"
    )


def slots(rule: dict[str, Any], lists: dict[str, list[tuple[str, str]]], finding: Finding) -> list[tuple[str, str]]:
    """Return which words of a finding fill which slots of its rule; empty for a rule without slots."""
    for order in rule.get("slots", ()):
        names = [slot for slot in order if slot != "^"]
        parts = []
        for place, slot in enumerate(names):
            words = f"(?P<s{place}>{_alternatives(slot.removesuffix('?'), lists)})"
            parts.append(rf"(?:\b{words}\b.*?)?" if slot.endswith("?") else rf"\b{words}\b.*?")
        found = re.search("".join(parts), finding.text, re.IGNORECASE | re.DOTALL)
        if found:
            groups = enumerate(names)
            return [(slot, found[f"s{place}"]) for place, slot in groups if found[f"s{place}"] is not None]
    return []


def _alternatives(slot: str, lists: dict[str, list[tuple[str, str]]]) -> str:
    forms = set()
    for one in slot.split("|"):
        name, _, wanted = one.partition(":")
        forms |= {form for form, kind in lists[name] if not wanted or kind in (wanted, "fixed")}
    # The longest first, as the scanner prefers it.
    return "|".join(_pattern(form) for form in sorted(forms, key=lambda form: (-len(form), form)))


def _pattern(form: str) -> str:
    return re.escape(form).replace("\\ ", r"\s{1,2}").replace("'", "['\u2019]").replace("\\-", r"[-\s]?")


def _has(text: str, form: str) -> bool:
    return re.search(rf"\b{_pattern(form)}\b", text, re.IGNORECASE) is not None
