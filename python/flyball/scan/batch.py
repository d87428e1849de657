"""Many texts: scanned slice by slice, reported when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, overload

from flyball.errors import InputTypeError
from flyball.scan.report import BLANK, CLEAN, Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from flyball import _native

# An iterator is read in slices of this many texts; a slice is one call into Rust.
SLICE = 8192


class Batch(Sequence[Report]):
    """The reports of many texts, in order; one is made when it is asked for.

    Attributes:
        offsets: Text `i` has the rules `rules[offsets[i]:offsets[i + 1]]`.
        rules: The rules that matched, by their place in the pack, ascending within a text.
    """

    def __init__(
        self,
        scanner: _native.Scanner,
        offsets: NDArray[np.int64],
        rules: NDArray[np.uint16],
        texts: dict[int, str] | Sequence[str],
        blank: frozenset[int],
    ) -> None:
        self._scanner = scanner
        self.offsets = offsets
        self.rules = rules
        self._texts = texts
        self._blank = blank

    @property
    def flagged_indices(self) -> NDArray[np.intp]:
        """The places of the texts in which something was found."""
        import numpy as np

        return np.flatnonzero(np.diff(self.offsets))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> Report: ...
    @overload
    def __getitem__(self, place: slice) -> list[Report]: ...
    def __getitem__(self, place: int | slice) -> Report | list[Report]:
        """Make the report of one text, or those of a slice."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        count = len(self)
        if not -count <= place < count:
            raise IndexError(f"`place` is {place}: the batch has {count} texts")
        place %= count
        if self.offsets[place] == self.offsets[place + 1]:
            return BLANK if place in self._blank else CLEAN
        report: Report = self._scanner.scan(self._texts[place])
        return report

    def __repr__(self) -> str:
        """Show how many texts there are, and in how many something was found."""
        return f"<Batch of {len(self)} texts, {len(self.flagged_indices)} flagged>"


def scan_all(scanner: _native.Scanner, texts: Iterable[str], threads: int) -> Batch:
    """Scan texts from anything that yields them."""
    if isinstance(texts, str | bytes):
        raise InputTypeError(f"`texts` is one `{type(texts).__name__}`: pass a list, or call `scan` for one text")
    if isinstance(texts, list | tuple):
        kept = tuple(texts)
        offsets, rules, blank = scanner.rows(kept, first=0, threads=threads)
        return Batch(scanner, offsets, rules, kept, frozenset(blank))
    import numpy as np

    if isinstance(texts, np.ndarray) and texts.ndim != 1:
        raise InputTypeError(f"`texts` is an array with {texts.ndim} dimensions: pass one with 1")
    all_offsets: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    all_rules: list[NDArray[np.uint16]] = []
    flagged: dict[int, str] = {}
    blanks: set[int] = set()
    first = 0
    total = 0
    for part in _slices(texts):
        offsets, rules, blank = scanner.rows(part, first=first, threads=threads)
        flagged.update({first + int(place): part[place] for place in np.flatnonzero(np.diff(offsets))})
        blanks.update(first + place for place in blank)
        all_offsets.append(offsets[1:] + total)
        all_rules.append(rules)
        total += len(rules)
        first += len(part)
    rules = np.concatenate(all_rules) if all_rules else np.zeros(0, np.uint16)
    return Batch(scanner, np.concatenate(all_offsets), rules, flagged, frozenset(blanks))


def _slices(texts: Iterable[Any]) -> Iterator[list[Any]]:
    import numpy as np

    if isinstance(texts, np.ndarray):
        # A whole slice becomes Python's own strings in one call.
        yield from (texts[at : at + SLICE].tolist() for at in range(0, len(texts), SLICE))
        return
    iterator = iter(texts)
    for one in iterator:
        yield list(chain([one], islice(iterator, SLICE - 1)))
