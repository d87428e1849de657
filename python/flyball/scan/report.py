"""What a scan says about one text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["info", "low", "medium", "high", "critical"]

SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule matches; `text[start:end]` of the scanned text is `text`.

    Attributes:
        rule_id: The rule.
        category: What kind of thing it finds.
        family: A finer kind, or nothing.
        severity: How bad it is.
        start: The first character, counted in code points of the text as it was given.
        end: The character behind the last.
        text: The characters that matched, as they were written.
        obfuscated: Whether only the normalised text matches: look-alike letters, invisible characters, and the like.
        frames: What stands around it and changes its weight. Packs do not describe frames yet, so this is empty.
    """

    rule_id: str
    category: str
    family: str
    severity: Severity
    start: int
    end: int
    text: str
    obfuscated: bool = False
    frames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in one text; reports of two equal texts are equal.

    Attributes:
        flagged: Whether anything was found.
        severity: The worst severity found, None if nothing was.
        categories: The categories found, in alphabetical order.
        findings: Every place, in the order of their starts.
        reasoning: The findings in a sentence.
        method: `rules`, or `validation` where the text is empty or white space and no rule was asked.
    """

    flagged: bool
    severity: Severity | None
    categories: tuple[str, ...]
    findings: tuple[Finding, ...]
    reasoning: str
    method: Literal["rules", "validation"] = "rules"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, as JSON holds it."""
        plain = asdict(self)
        plain["categories"] = list(self.categories)
        for finding in plain["findings"]:
            finding["frames"] = list(finding["frames"])
        plain["findings"] = list(plain["findings"])
        return plain


CLEAN = Report(flagged=False, severity=None, categories=(), findings=(), reasoning="no rule matches")
BLANK = Report(
    flagged=False, severity=None, categories=(), findings=(), reasoning="the text is empty", method="validation"
)


def of_findings(findings: tuple[Finding, ...]) -> Report:
    """Make the report of a text in which something was found."""
    worst = max((finding.severity for finding in findings), key=SEVERITIES.index)
    by_category: dict[str, list[str]] = {}
    for finding in findings:
        by_category.setdefault(finding.category, []).append(finding.rule_id)
    parts = []
    for category in sorted(by_category):
        rules = list(dict.fromkeys(by_category[category]))
        shown = ", ".join(f"`{rule}`" for rule in rules[:3])
        more = f" and {len(rules) - 3} more" if len(rules) > 3 else ""
        parts.append(f"{category} ({shown}{more})")
    hidden = "; written so as to hide it" if all(finding.obfuscated for finding in findings) else ""
    return Report(
        flagged=True,
        severity=worst,
        categories=tuple(sorted(by_category)),
        findings=findings,
        reasoning=f"{worst}: {'; '.join(parts)}{hidden}",
    )
