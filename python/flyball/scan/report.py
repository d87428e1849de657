"""What a scan says about one text: `Report` comes from Rust, its findings are plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from flyball._native import Report

Severity: TypeAlias = Literal["info", "low", "medium", "high", "critical"]
Kind: TypeAlias = Literal["harm", "concern", "help"]

SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")


class PackName(NamedTuple):
    """Which pack a report was made with.

    Attributes:
        name: Its name.
        version: Its version.
        hash: A fingerprint of everything that it holds.
    """

    name: str
    version: str
    hash: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a rule matches; `text[start:end]` of the scanned text is `text`.

    Attributes:
        rule_id: The rule.
        category: What kind of thing it finds.
        family: A finer kind, or nothing.
        severity: How bad it is, lowered by its frames.
        start: The first character, counted in code points of the text as it was given.
        end: The character behind the last.
        text: The characters that matched, as they were written.
        obfuscated: Whether only the normalised text matches: look-alike letters, invisible characters, and the like.
        frames: What stands around it and changes its weight: the ids of the pack's frames.
        kind: `harm` may flag a text; `concern` and `help` never do.
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
    kind: Kind = "harm"


def to_dict(report: Report, *, legacy: bool) -> dict[str, Any]:
    """Write a report as plain data."""
    if legacy:
        return {
            "flagged": report.flagged,
            "explicit_harm_detected": report.explicit,
            "subtle_harm_score": report.subtle_score,
            "reasoning": report.reasoning,
            "method": report.method,
        }
    return {
        "flagged": report.flagged,
        "explicit": report.explicit,
        "subtle_score": report.subtle_score,
        "score": report.score,
        "severity": report.severity,
        "categories": list(report.categories),
        "findings": [{**asdict(finding), "frames": list(finding.frames)} for finding in report.findings],
        "reasoning": report.reasoning,
        "method": report.method,
        "pack": report.pack._asdict(),
        "n_words": report.n_words,
        "elapsed_ns": report.elapsed_ns,
    }
