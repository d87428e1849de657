"""A report to look at: in a terminal with its findings underlined, or as a fragment of HTML."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from flyball.scan.report import SEVERITIES

if TYPE_CHECKING:
    from rich.console import Group

    from flyball._native import Report
    from flyball.scan.report import Finding

STYLES = {"info": "dim", "low": "cyan", "medium": "yellow", "high": "red", "critical": "bold red"}
COLOURS = {"info": "#9aa0a6", "low": "#1a73e8", "medium": "#b06000", "high": "#c5221f", "critical": "#8b0000"}


def terminal(report: Report) -> Group:
    """Draw the text with its findings underlined, and below it what was found."""
    from rich.console import Group
    from rich.text import Text

    drawn = Text(_shown(report.text or ""))
    # The worst is drawn last, so that it is seen where findings overlap.
    for finding in sorted(report.findings, key=lambda one: SEVERITIES.index(one.severity)):
        drawn.stylize(f"underline {STYLES[finding.severity]}", finding.start, finding.end)
    verdict = Text("flagged" if report.flagged else "not flagged", "bold red" if report.flagged else "green")
    verdict.append(f"  {_shown(report.reasoning)}", "default")
    lines = [Text(f"  {_described(finding)}", STYLES[finding.severity]) for finding in report.findings]
    return Group(drawn, verdict, *lines)


def html(report: Report) -> str:
    """Write the text with its findings marked; everything that comes from the text or the pack is escaped."""
    text = report.text or ""
    edges = sorted({0, len(text), *(place for one in report.findings for place in (one.start, one.end))})
    parts = []
    for start, end in pairwise(edges):
        piece = escape(_shown(text[start:end]))
        over = [one for one in report.findings if one.start <= start and end <= one.end]
        if over:
            worst = max(over, key=lambda one: SEVERITIES.index(one.severity))
            title = escape("; ".join(_described(one) for one in over), quote=True)
            piece = f'<mark style="background:none;border-bottom:2px solid {COLOURS[worst.severity]}" title="{title}">{piece}</mark>'  # noqa: E501
        parts.append(piece)
    items = "".join(f"<li>{escape(_described(finding))}</li>" for finding in report.findings)
    verdict = "flagged" if report.flagged else "not flagged"
    return (
        f'<div class="flyball-report"><p style="white-space:pre-wrap">{"".join(parts)}</p>'
        f"<p><strong>{verdict}</strong> {escape(_shown(report.reasoning))}</p>"
        f"{f'<ul>{items}</ul>' if items else ''}</div>"
    )


def _described(finding: Finding) -> str:
    frames = f", lowered by {', '.join(finding.frames)}" if finding.frames else ""
    hidden = ", hidden" if finding.obfuscated else ""
    return f"{finding.severity} {finding.category} {finding.rule_id}{frames}{hidden}: {_shown(finding.text)!r}"


def _shown(text: str) -> str:
    # A lone surrogate cannot be written, and a control character could move the cursor; one character stays one.
    return "".join(
        "\ufffd" if "\ud800" <= char <= "\udfff" or (char < " " and char not in "\n\t") or char == "\x7f" else char
        for char in text
    )
