"""The batches that are kept because they were healthy, to be asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from flyball.govern.feed.held import Held
    from flyball.govern.feed.position import Position

B = TypeVar("B")

_ANCHORS = 4
_UPDATES_PER_ANCHOR = 32


class Kept(NamedTuple, Generic[B]):
    """One step's batches, and what was known when they were applied. A named tuple, because one is made every step.

    Args:
        number: The how-manieth keep this was, from 1.
        position: Where the first of the batches stood.
        batches: The batches of the step: one, or as many as were accumulated.
        info: What the keeper wanted to remember, such as the loss then.
    """

    number: int
    position: Position
    batches: tuple[Held[B], ...]
    info: object

    @property
    def whole(self) -> bool:
        """Whether no tensor of it was changed in place since."""
        return all(batch.whole for batch in self.batches)


class Shelf(NamedTuple, Generic[B]):
    """The kept steps, newest first: a value, so a snapshot holds its own and a rollback brings it back.

    Held are the last `near`, then every fourth up to the age `far`, and four anchors: every 32 updates the oldest
    entry moves there.

    Args:
        near: How many of the last steps are held, without a gap; 0 holds none.
        far: The age up to which every fourth is held.
        entries: The held steps, newest first.
        anchors: The anchors, newest first.
        total: How many steps were ever kept.
        era: How many times 32 updates had passed when the last one was.
    """

    near: int = 8
    far: int = 32
    entries: tuple[Kept[B], ...] = ()
    anchors: tuple[Kept[B], ...] = ()
    total: int = 0
    era: int = 0

    def put(self, batches: tuple[Held[B], ...], position: Position, info: object, updates: int | None) -> Shelf[B]:
        """Return the shelf with one more step on it."""
        near, far, kept, anchors, total, last_era = self
        number = total + 1
        # One entry at most leaves the near ones, and one at most gets too old: the last of each.
        young, old = kept[: near - 1], kept[near - 1 :] if near else ()
        if old and old[0].number % 4:
            old = old[1:]
        if old and number - old[-1].number >= far:
            old = old[:-1]
        entries = (Kept(number, position, batches, info), *young, *old) if near else ()
        era = (number if updates is None else updates) // _UPDATES_PER_ANCHOR
        if era > last_era:
            last_era = era
            if kept:
                oldest = kept[-1]
                anchors = (oldest, *anchors)[:_ANCHORS]
                if entries[-1] is oldest:
                    entries = entries[:-1]
        return Shelf(near, far, entries, anchors, number, last_era)

    def cleared(self) -> Shelf[B]:
        """Return the empty shelf, for when the loss has a new meaning."""
        return self._replace(entries=(), anchors=(), total=0, era=0)

    def at(self, age: int, *, anchor: bool = False) -> Kept[B] | None:
        """Return the step of an age, 1 for the newest; None if it is not held or was changed in place.

        Args:
            age: Counts kept steps; among the anchors, anchors.
            anchor: Look among the anchors.
        """
        if anchor:
            found = self.anchors[age - 1 : age] if age > 0 else ()
        else:
            found = tuple(entry for entry in self.entries if self.total - entry.number + 1 == age)
        return found[0] if found and found[0].whole else None

    def masks(self) -> tuple[int, int]:
        """Return the steps that can be served, as bits: the entries by their age, the anchors by their place."""
        anchors = sum(1 << place for place, anchor in enumerate(self.anchors) if anchor.whole)
        return sum(1 << age for age in self.ages), anchors

    def only(self, ages: int, anchors: int) -> Shelf[B]:
        """Return the shelf with nothing but the steps whose bits are set, itself if that is all it has."""
        if self.masks() == (ages, anchors) and len(self.ages) == len(self.entries):
            return self
        return self._replace(
            entries=tuple(entry for entry in self.entries if ages >> (self.total - entry.number + 1) & 1),
            anchors=tuple(anchor for place, anchor in enumerate(self.anchors) if anchors >> place & 1),
        )

    @property
    def ages(self) -> tuple[int, ...]:
        """The ages that can be served, the newest first."""
        return tuple(self.total - entry.number + 1 for entry in self.entries if entry.whole)
