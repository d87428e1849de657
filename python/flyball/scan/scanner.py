"""The scanner: one object for prompts, lists, columns and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from flyball import _native
from flyball._native import Pack
from flyball.errors import InputError, InputTypeError, PackError
from flyball.scan.batch import Batch, scan_all
from flyball.scan.column import scan_column
from flyball.scan.file import FileScan, scan_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

PACKS = Path(__file__).parent / "packs"

OnLong: TypeAlias = Literal["raise", "window"]
Normalise: TypeAlias = Literal["none", "unicode", "full"]


class Scanner(_native.Scanner):
    """Says which rules of a pack match in a text, and where.

    One scanner serves any number of threads and forked processes, and can be pickled.

    Args:
        pack: A `Pack`, the path of a TOML file, or the name of a pack that comes with flyball.
        max_chars: The most characters of one text.
        on_long: What is done with a longer text: `raise` an `InputError`, or scan it in `window`s of `max_chars`
            characters. Windows overlap by a quarter, so a match that is shorter than that is found as if the text
            were whole; `^` and `$` hold at the ends of every window.
        normalise: How a text is read a second time if something in it is suspicious: `unicode` undoes full-width and
            other compatibility forms, look-alike letters, invisible and combining characters; `full` also leetspeak and
            letters with blanks between them; `none` nothing. What is only found so is `obfuscated`.

    Raises:
        PackError: The pack cannot be read.
        InputError: An option has a value that means nothing.
        InputTypeError: `pack` is none of these.
    """

    __slots__ = ("_options",)
    _options: dict[str, Any]

    def __new__(
        cls,
        pack: Pack | str | os.PathLike[str] = "default",
        *,
        max_chars: int = 50_000,
        on_long: OnLong = "raise",
        normalise: Normalise = "unicode",
    ) -> Self:
        """Read and plan the pack."""
        if on_long not in ("raise", "window"):
            raise InputError(f"`on_long` is `{on_long}`: use `raise` or `window`")
        if max_chars < 16:
            raise InputError(f"`max_chars` is {max_chars}: it must be 16 or more")
        if not isinstance(pack, Pack):
            if not isinstance(pack, str | os.PathLike):
                raise InputTypeError(f"`pack` is of type `{type(pack).__name__}`: pass a `Pack`, a path, or a name")
            pack = Pack.load(_path_of(pack))
        self = super().__new__(cls, pack, max_chars, on_long == "window", normalise)
        self._options = {"max_chars": max_chars, "on_long": on_long, "normalise": normalise}
        return self

    def scan_batch(
        self,
        texts: Iterable[str],
        threads: int | None = None,
        *,
        max_chars: int | None = None,
        on_long: OnLong | None = None,
    ) -> Batch:
        """Scan many texts: a list, an array of NumPy, an iterator; return their reports in order, made when asked for.

        Args:
            texts: The texts. An iterator is read in slices, and of it only the texts with findings are kept.
            threads: How many threads scan; by default as many as this process may use. The result is the same.
            max_chars: The longest text of this batch; the scanner's if None.
            on_long: What is done with longer ones; the scanner's if None.

        Raises:
            InputTypeError: An item is not a `str`; the message has its index.
            InputError: A text is longer than `max_chars`, or `threads` is below 1.
        """
        asked = {"max_chars": max_chars, "on_long": on_long}
        changed = {name: value for name, value in asked.items() if value is not None}
        if changed:
            limited = type(self)(self.pack, **{**self._options, **changed})
            return limited.scan_batch(texts, threads)
        return scan_all(self, texts, _threads(threads))

    def scan_column(self, data: object, *, column: str | None = None, threads: int | None = None) -> pa.Table:
        """Scan a column of text where it lies, and return a row for each of its rows.

        Args:
            data: Anything that gives itself out through Arrow's PyCapsule interface: an array, chunked array, table or
                record batch reader of pyarrow, a series or frame of polars, a relation of duckdb as `.arrow()`, a
                dataset in the format `arrow`. A reader is read chunk by chunk.
            column: Which column of a table; needed if it has several.
            threads: As for `scan_batch`.

        Returns:
            A table with `flagged`, `severity` (the worst) and `rules` (their ids); all of them null where the text is.

        Warns:
            MalformedTextWarning: Some rows are not UTF-8, which Arrow does not check; those bytes are scanned around.

        Raises:
            InputTypeError: It is no column of text.
            InputError: A text is longer than `max_chars`; or the producer fails, or does not keep to Arrow's interface.
            MissingExtraError: pyarrow is not installed.
        """
        return scan_column(self, self.pack.rules, data, column, _threads(threads))

    def scan_file(
        self, path: str | os.PathLike[str], *, column: str | None = None, threads: int | None = None
    ) -> FileScan:
        """Scan the lines of a text file or a column of a Parquet file, and iterate over those with findings.

        The file is read piece by piece, as far as one iterates, so it may be larger than memory.

        Args:
            path: A file whose name ends in `.parquet`, or a text file in UTF-8. Other bytes are scanned around, and
                `FileScan.malformed` counts the lines that have some.
            column: The column of a Parquet file; needed if it has several of text.
            threads: As for `scan_batch`.

        Raises:
            InputError: The file is no Parquet, or ends too early; what was found before has been yielded.
        """
        return scan_file(self, Path(path), column, _threads(threads))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by pack and options, so that a scanner survives the way to a worker process."""
        return _rebuild, (type(self), self.pack, self._options)

    def __repr__(self) -> str:
        """Show the pack."""
        return f"Scanner({self.pack!r})"


def _rebuild(cls: type[Scanner], pack: Pack, options: dict[str, Any]) -> Scanner:
    return cls(pack, **options)


def _threads(threads: int | None) -> int:
    if threads is None:
        return available_threads()
    if threads < 1:
        raise InputError(f"`threads` is {threads}: it must be 1 or more")
    return threads


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
