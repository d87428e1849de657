"""What the README and the docs show is true: their Python runs, and the commands they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flyball import cli

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benches" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(language: str) -> list[tuple[str, int, str]]:
    """Every fenced block of a language: page, line and text."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        (str(page.relative_to(ROOT)), text[: match.start()].count("\n") + 1, match[1])
        for page in PAGES
        for text in [page.read_text(encoding="utf-8")]
        for match in fence.finditer(text)
    ]


@pytest.mark.parametrize("page", sorted({page for page, _, _ in blocks("python")}))
def test_python_in_the_docs_runs_from_top_to_bottom_of_its_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for shown, line, code in blocks("python"):
        if shown == page:
            padded = "\n" * line + code  # so that a traceback names the line of the page
            exec(compile(padded, page, "exec"), names)  # noqa: S102 -- our own pages


def test_there_is_python_in_the_docs() -> None:
    assert {page for page, _, _ in blocks("python")} >= {"README.md"}


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"make ([a-z-]+)\b`?", commands(page))}
    assert named >= {"demo", "test"}
    assert named <= targets


def test_every_flyball_command_that_is_shown_parses() -> None:
    shown = [
        line.split("#")[0].split()[1:]
        for page in PAGES
        for line in re.findall(r"^flyball .*", commands(page), re.MULTILINE)
    ]
    assert shown
    for arguments in shown:
        _, rest = cli.parser().parse_known_args(arguments)  # as the command does: words may stand after options
        assert not [word for word in rest if word.startswith("-")], arguments


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def commands(page: Path) -> str:
    """What a page shows to be typed: its console blocks, and the code in its sentences."""
    text = page.read_text(encoding="utf-8")
    typed = re.findall(r"^```(?:console|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*typed, *re.findall(r"`(make [^`]+|flyball [^`]+)`", text)])
