"""Many texts: scanned slice by slice, reported when asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, overload

from flyball._native import Report, scan_words
from flyball.errors import InputTypeError

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
        flagged: Whether each text is flagged.
    """

    def __init__(
        self,
        scanner: _native.Scanner,
        offsets: NDArray[np.int64],
        rules: NDArray[np.uint16],
        *,
        flagged: NDArray[np.bool_],
        texts: dict[int, str] | Sequence[str],
        rest: dict[int, tuple[bool, int]],
    ) -> None:
        self._scanner = scanner
        self.offsets = offsets
        self.rules = rules
        self.flagged = flagged
        self._texts = texts
        # Of a text that was not kept: whether it is blank, and how many words it has.
        self._rest = rest

    @property
    def flagged_indices(self) -> NDArray[np.intp]:
        """The places of the texts that are flagged."""
        import numpy as np

        return np.flatnonzero(self.flagged)

    @property
    def found_indices(self) -> NDArray[np.intp]:
        """The places of the texts in which a rule matches, flagged or not."""
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
        if (rest := self._rest.get(place)) is not None:
            return self._scanner.nothing(blank=rest[0], words=rest[1])
        return self._scanner.scan(self._texts[place])

    def __repr__(self) -> str:
        """Show how many texts there are, and how many are flagged."""
        return f"<Batch of {len(self)} texts, {len(self.flagged_indices)} flagged>"


def scan_all(scanner: _native.Scanner, texts: Iterable[str], threads: int) -> Batch:
    """Scan texts from anything that yields them."""
    if isinstance(texts, str | bytes):
        raise InputTypeError(f"`texts` is one `{type(texts).__name__}`: pass a list, or call `scan` for one text")
    if isinstance(texts, list | tuple):
        kept = tuple(texts)
        offsets, rules, flags, _, _ = scanner.rows(kept, first=0, threads=threads)
        return Batch(scanner, offsets, rules, flagged=flags, texts=kept, rest={})
    import numpy as np

    if isinstance(texts, np.ndarray) and texts.ndim != 1:
        raise InputTypeError(f"`texts` is an array with {texts.ndim} dimensions: pass one with 1")
    all_offsets: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    all_rules: list[NDArray[np.uint16]] = [np.zeros(0, np.uint16)]
    all_flags: list[NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
    found: dict[int, str] = {}
    rest: dict[int, tuple[bool, int]] = {}
    first = 0
    total = 0
    for part in _slices(texts):
        offsets, rules, flags, subtle, blank = scanner.rows(part, first=first, threads=threads)
        kept_here = {*np.flatnonzero(np.diff(offsets)).tolist(), *subtle}
        found.update({first + place: part[place] for place in kept_here})
        blanks = set(blank)
        rest.update({
            first + place: (place in blanks, words)
            for place, words in enumerate(scan_words(part))
            if place not in kept_here
        })  # fmt: skip
        all_offsets.append(offsets[1:] + total)
        all_rules.append(rules)
        all_flags.append(flags)
        total += len(rules)
        first += len(part)
    return Batch(
        scanner,
        np.concatenate(all_offsets),
        np.concatenate(all_rules),
        flagged=np.concatenate(all_flags),
        texts=found,
        rest=rest,
    )


def _slices(texts: Iterable[Any]) -> Iterator[list[Any]]:
    import numpy as np

    if isinstance(texts, np.ndarray):
        # A whole slice becomes Python's own strings in one call.
        yield from (texts[at : at + SLICE].tolist() for at in range(0, len(texts), SLICE))
        return
    iterator = iter(texts)
    for one in iterator:
        yield list(chain([one], islice(iterator, SLICE - 1)))
