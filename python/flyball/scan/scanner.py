"""The scanner: one object for prompts, lists, columns and files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from flyball import _native
from flyball._native import Pack
from flyball.errors import InputError, PackError
from flyball.scan.batch import Batch, scan_all
from flyball.scan.report import BLANK, CLEAN, Finding, Report, of_findings

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKS = Path(__file__).parent / "packs"

OnLong: TypeAlias = Literal["raise", "window"]


class Scanner(_native.Scanner):
    """Says which rules of a pack match in a text, and where.

    One scanner serves any number of threads and forked processes, and can be pickled.

    Args:
        pack: A `Pack`, the path of a TOML file, or the name of a pack that comes with flyball.
        max_chars: The most characters of one text.
        on_long: What is done with a longer text: `raise` an `InputError`, or scan it in `window`s of `max_chars`
            characters. Windows overlap by a quarter, so a match that is shorter than that is found as if the text
            were whole; `^` and `$` hold at the ends of every window.

    Raises:
        PackError: The pack cannot be read.
    """

    __slots__ = ("_options",)
    _options: dict[str, Any]

    def __new__(
        cls, pack: Pack | str | os.PathLike[str] = "default", *, max_chars: int = 50_000, on_long: OnLong = "raise"
    ) -> Self:
        """Read and plan the pack."""
        if on_long not in ("raise", "window"):
            raise InputError(f"`on_long` is `{on_long}`: use `raise` or `window`")
        if max_chars < 16:
            raise InputError(f"`max_chars` is {max_chars}: it must be 16 or more")
        if not isinstance(pack, Pack):
            pack = Pack.load(_path_of(pack))
        report = partial(_report, pack.rules)
        self = super().__new__(cls, pack, max_chars, on_long == "window", CLEAN, BLANK, report)
        self._options = {"max_chars": max_chars, "on_long": on_long}
        return self

    def scan_batch(self, texts: Iterable[str], threads: int | None = None) -> Batch:
        """Scan many texts: a list, an array of NumPy, an iterator; return their reports in order, made when asked for.

        Args:
            texts: The texts. An iterator is read in slices, and of it only the texts with findings are kept.
            threads: How many threads scan; by default as many as this process may use. The result is the same.

        Raises:
            InputTypeError: An item is not a `str`; the message has its index.
            InputError: A text is longer than `max_chars`, or `threads` is below 1.
        """
        if threads is None:
            threads = available_threads()
        if threads < 1:
            raise InputError(f"`threads` is {threads}: it must be 1 or more")
        return scan_all(self, texts, threads)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by pack and options, so that a scanner survives the way to a worker process."""
        return _rebuild, (type(self), self.pack, self._options)

    def __repr__(self) -> str:
        """Show the pack."""
        return f"Scanner({self.pack!r})"


def _rebuild(cls: type[Scanner], pack: Pack, options: dict[str, Any]) -> Scanner:
    return cls(pack, **options)


def available_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _path_of(pack: str | os.PathLike[str]) -> Path:
    """Find a pack: a name without a dot or a slash is one of ours, anything else is a path."""
    text = os.fspath(pack)
    if isinstance(pack, str) and text.replace("-", "").replace("_", "").isalnum():
        known = sorted(path.stem for path in PACKS.glob("*.toml"))
        if text not in known:
            raise PackError(f"`pack` is `{text}`: the packs that come with flyball are {', '.join(known)}; "
                            f"name a file as `{text}.toml` or `./{text}`")  # fmt: skip
        return PACKS / f"{text}.toml"
    return Path(text)


def _report(rules: list[dict[str, Any]], text: str, rows: list[tuple[int, int, int, bool]]) -> Report:
    findings = []
    for number, start, end, obfuscated in rows:
        rule = rules[number]
        findings.append(
            Finding(
                rule_id=rule["id"], category=rule["category"], family=rule["family"], severity=rule["severity"],
                start=start, end=end, text=text[start:end], obfuscated=obfuscated,
            )
        )  # fmt: skip
    return of_findings(tuple(findings))
