"""A pass that can be made again: an iterable that remembers the random state its passes began with.

A `Tape` stands where a sampler stood. Its passes yield what the sampler's would, and draw what the sampler's would,
at the same moments. Beside that it notes the random state twice: when the iterator is asked for, where a class with
an eager `__iter__` draws its permutation, and when the first item is, where a generator function does. With both,
the pass can be made again up to any item, without the items in between being looked at.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flyball.govern.feed.draws import GlobalState, Moment
from flyball.govern.feed.position import SeekError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flyball.govern.feed.draws import Owned

T = TypeVar("T")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the global generators as they were found, whatever is drawn inside."""
    outside = GlobalState.now()
    try:
        yield
    finally:
        outside.restore()


class Opening:
    """What is known of how one epoch began.

    Attributes:
        entry: When the loader was asked for its iterator.
        asked: When the tape was.
        drawn: When the tape's first item was.
        marks: A running checksum over the items, one for each item drawn.
        states: What a loader that keeps its own state said it was, by batch.
        settings: The settings that a state from another process was taken under; None in this one.
    """

    def __init__(self) -> None:
        self.entry: Moment | None = None
        self.asked: Moment | None = None
        self.drawn: Moment | None = None
        self.marks: array[int] = array("I")
        self.expected: tuple[int, int] | None = None
        self.states: dict[int, Any] = {}
        self.settings: dict[str, Any] | None = None

    def mark(self, count: int) -> int | None:
        """Return the checksum over the first `count` items, None where it is not known."""
        if 0 < count <= len(self.marks):
            return self.marks[count - 1]
        return self.expected[1] if self.expected is not None and self.expected[0] == count else None

    def plain(self, batch: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return this as data that JSON can hold, with the checksum at `batch`."""
        moments: list[Moment] = []
        names: dict[str, int | None] = {}
        for name, moment in (("entry", self.entry), ("asked", self.asked), ("drawn", self.drawn)):
            if moment is not None and moment not in moments:
                moments.append(moment)
            names[name] = None if moment is None else moments.index(moment)
        return {
            "moments": [moment.plain() for moment in moments],
            **names,
            "mark": self.mark(batch),
            "settings": dict(self.settings if self.settings is not None else settings),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any], batch: int) -> Opening:
        """Return the opening that `plain()` described."""
        moments = [Moment.of(moment) for moment in plain["moments"]]
        opening = cls()
        opening.entry, opening.asked, opening.drawn = (
            None if plain[name] is None else moments[plain[name]] for name in ("entry", "asked", "drawn")
        )
        opening.expected = None if plain["mark"] is None else (batch, plain["mark"])
        opening.settings = dict(plain["settings"])
        return opening


class Run(Generic[T]):
    """One pass over a tape.

    Attributes:
        items: Where its items come from.
        drawn: How many of them were taken or passed over.
        blanks: How many empty items come first, which are not counted.
    """

    def __init__(self, items: Iterator[T], opening: Opening, owned: Owned, *, checked: bool) -> None:
        self.drawn = 0
        self.opening = opening
        self.items = items
        self._owned = owned
        self._checked = checked
        self.blanks = 0
        self._ahead: list[T] = []
        self._sum = 0
        self._pulled = 0
        self._own: dict[str, Any] | None = None

    def __iter__(self) -> Run[T]:
        return self

    def __next__(self) -> T:
        if self._own is not None:
            # What the loader drew for itself, between the rewind and now, is not part of the order.
            self._owned.restore_generators(self._own)
            self._own = None
        if self.blanks:
            self.blanks -= 1
            empty: Any = []
            blank: T = empty
            return blank
        item = self._ahead.pop() if self._ahead else self._pull()
        self.drawn += 1
        return item

    def advance(self, count: int) -> None:
        """Pass over items; past the end there are none."""
        for _ in range(count):
            if next(self, self) is self:
                return

    def rewind_to(self, count: int) -> None:
        """Draw again what was drawn before, up to item `count`.

        Raises:
            SeekError: The items are not the ones of the first pass.
        """
        self.advance(count)
        if not count:
            # The draw of the first item belongs to the rewind, so it is made now and held.
            for item in self:
                self._ahead = [item]
                break
            self.drawn = 0
        then = self.opening.mark(count)
        if self._checked and then is not None and then != self._sum:
            raise SeekError(
                "the sampler did not give the same order again: it draws from a generator that others draw from "
                "too, or keeps a state that is not seen. let it draw once, at the start of its `__iter__`, or give "
                "it a `state_dict` and a `load_state_dict`"
            )
        del self.opening.marks[self._pulled :]
        self._own = self._owned.generators()

    def _pull(self) -> T:
        if self.opening.drawn is None:
            self.opening.drawn = self._owned.now()
        item = next(self.items)
        self._pulled += 1
        if self._checked:
            self._sum = _checksum(item, self._sum)
            marks = self.opening.marks
            if self._pulled > len(marks):
                marks.append(self._sum)
        return item


class Tape(Generic[T]):
    """An iterable whose passes can be made again.

    Args:
        source: What to pass over.
        owned: Where the random state of the source lives, beside the global generators.
        checked: Whether a pass made again must yield the same indices; for samplers.
    """

    def __init__(self, source: Iterable[T], owned: Owned, *, checked: bool) -> None:
        self.run: Run[T] | None = None
        self._source = source
        self._owned = owned
        self._checked = checked
        self._opening = Opening()
        self._again: Run[T] | None = None

    def record(self, opening: Opening) -> None:
        """Let the next passes be ordinary ones, noted in `opening`."""
        self._opening, self._again, self.run = opening, None, None

    def offer_nothing(self) -> None:
        """Let the next pass be an empty one, and the one after it an ordinary one."""
        self.record(Opening())
        self._again = Run(iter(()), Opening(), self._owned, checked=False)

    def replay(self, opening: Opening, count: int, *, blanks: int = 0) -> Mapping[str, Any]:
        """Let the next pass be the one noted in `opening`, from item `count` on; the global generators stay.

        Args:
            opening: How the epoch began.
            count: The item that comes first.
            blanks: How many empty items come before it.

        Returns:
            The counters of the source as they were before they were set back for this.

        Raises:
            SeekError: The order cannot be repeated; what the source owns is as before.
        """
        self.record(opening)
        before = self._owned.now()
        if count == 0 and opening.drawn is not None and opening.drawn.everyone == before.everyone:
            # The generators stand where the first item was drawn: draw it, as it was drawn then.
            opening.drawn = None
        known = False
        try:
            self._owned.restore(_noted(opening.asked))
            run = Run(iter(self._source), opening, self._owned, checked=self._checked)
            if opening.drawn is not None:
                self._owned.restore(opening.drawn)
                run.rewind_to(count)
            known = True
        finally:
            before.everyone.restore()
            if not known:
                self._owned.restore(before)
        run.blanks = blanks
        self._again = run
        return before.scalars

    def release(self) -> None:
        """Let the passes after the one just begun be ordinary ones."""
        self._again = None

    def __iter__(self) -> Run[T]:
        # A loader with workers asks twice before it draws: both must be told the same.
        if self._again is not None:
            self.run = self._again
        else:
            self._opening.asked = self._owned.now()
            self._opening.drawn = None
            self._opening.marks = array("I")
            self.run = Run(iter(self._source), self._opening, self._owned, checked=self._checked)
        return self.run

    def __len__(self) -> int:
        if not isinstance(self._source, Sized):
            raise TypeError(f"a `{type(self._source).__name__}` has no length")
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)


def _noted(moment: Moment | None) -> Moment:
    if moment is None:
        raise SeekError("the start of this epoch was not seen, so its order is not known: seek within a later one")
    return moment


def _checksum(item: object, before: int) -> int:
    try:
        content = array("q", item if isinstance(item, list) else [item]).tobytes()
    except (TypeError, OverflowError):
        text = repr(item)
        # The address of an object says nothing about the order.
        content = b"" if " at 0x" in text else text.encode()
    return zlib.crc32(content, before)
