"""The batches of a loader, with a place in the data that can be kept, returned to and moved on from."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from typing import Any, Generic, TypeVar
from uuid import uuid4

from flyball.errors import InputError
from flyball.govern.feed.held import Held
from flyball.govern.feed.position import Position, SeekError
from flyball.govern.feed.shelf import Kept, Shelf
from flyball.govern.feed.sources import Reading, source_of
from flyball.govern.feed.tape import Opening, undisturbed

B = TypeVar("B")

_LOG = logging.getLogger("flyball.govern")
_OPENINGS = 16  # epochs whose beginning is remembered, so that they can be returned to


class Feed(Generic[B]):
    """Serve the batches of a loader, and know where in the data they stand.

    Iterate over it in the place of the loader. The batches are the loader's own objects, in its order, and nothing is
    drawn from a global generator that the loader would not have drawn: a loop that never seeks is bit-identical to
    the loop over the loader. In between, `seek` moves the data and `serve_again` has a kept batch served once more;
    both act from the next batch on, and the loop that is running goes on undisturbed.

    **Epochs.** A ``for`` over the feed serves to the end of the epoch that stood when it began. After a seek back
    into an earlier epoch the same ``for`` serves the rest of that one and goes on into the next without stopping, so
    that ``for epoch in range(epochs)`` makes no fewer passes and each of them still ends where its epoch ends; what
    the loop does between two epochs is not done twice. After a seek forward into a later epoch the ``for`` ends. A
    ``for`` that was left by ``break`` has given its epoch up, as with the loader: the next one begins the next epoch,
    unless `seek` or `load_state_dict` has said where to go on. `position` says which epoch it is.

    **Randomness.** After a seek the indices are the sampler's, exactly, and the skipped samples are not fetched. What
    a dataset draws from the global generators in the main process repeats when those are put back, which is the
    governor's part; the generators of the loader and its sampler are the feed's, and nobody else should set them.
    A source whose batches themselves are drawn from a global generator while they are read, such as synthetic data,
    repeats itself when that generator is put back and the data go on: put it back only with the position.

    Args:
        loader: A `DataLoader`, a list, or anything else that can be iterated. A `DataLoader` is copied, shallowly:
            its sampler and dataset are shared, an attribute that is set on the loader later is not seen.
        keep: How many of the last healthy batches are held for `serve_again`; 0 holds none.
        reach: The age up to which every fourth of the older ones is held too.
        accumulate: How many batches make one step, and are kept and served again together.

    Attributes:
        loader: The loader, as it was given.
        limits: What cannot be done with this loader, in sentences; they are logged once, at construction.
        out_position: Where the batch that is out stood; None before the first.
        shelf: The kept batches. It is a value: hold it in a snapshot, assign it to bring it back.

    Raises:
        InputError: The loader cannot be iterated, or has no batch.
    """

    def __init__(self, loader: Iterable[B], *, keep: int = 8, reach: int = 32, accumulate: int = 1) -> None:
        for name, value, least in (("keep", keep, 0), ("reach", reach, 0), ("accumulate", accumulate, 1)):
            if value < least:
                raise InputError(f"`{name}` is {value}: give {least} or more")
        self.loader = loader
        self.shelf: Shelf[B] = Shelf(near=keep, far=reach)
        self._name = f"`{type(loader).__name__}`"
        self._source = source_of(loader)
        self.limits = self._source.limits
        self._run = uuid4().hex
        self._position = Position(0, 0)
        self._served = 0
        self._reading: Reading[B] | None = None
        self._openings: dict[int, Opening] = {}
        self._between: tuple[Position, Any] | None = None
        self._pass: weakref.ref[_Pass[B]] | None = None
        self._finished = -1
        self._told = True
        self._between_epochs = True  # whether the source stands after the newest epoch, where the next begins
        self._out: deque[tuple[Position, Held[B]]] = deque(maxlen=accumulate)
        self._waiting: deque[Held[B]] = deque()
        self._coming: Kept[B] | None = None
        self._probe: Kept[B] | None = None
        self.out_position: Position | None = None
        self._keeps = keep > 0
        if self.limits:
            _LOG.warning("the feed reads a %s. %s.", self._name, "; ".join(self.limits))

    def __iter__(self) -> Iterator[B]:
        running = None if self._pass is None else self._pass()
        if running is not None and not running.over:
            raise InputError(
                "a loop over this feed is still running, and the data can only stand in one place: end it first, "
                "close the feed with `close()`, or make a second feed"
            )
        if not self._told and self._source.rewinds and self._position.batch:
            self._leave()
            self._between_epochs = self._position.epoch >= max(self._openings)
            self._position = Position(self._position.epoch + 1, 0)
        self._told = False
        target = max(self._position.epoch, self._finished + 1)
        begun = _Pass(self, target)
        self._pass = weakref.ref(begun)
        if not self._waiting:
            # A loader draws when its iterator is made, which a plain loop does here.
            self._opened()
        return begun

    def __len__(self) -> int:
        """Return the number of batches in an epoch, where the loader knows it."""
        if not isinstance(self.loader, Sized):
            raise TypeError(f"a {self._name} has no length")
        return len(self.loader)

    @property
    def position(self) -> Position:
        """The place of the next batch; a batch served again does not move it."""
        return self._position

    @property
    def served(self) -> int:
        """How many batches were handed out in all; those after a rewind count again, those served again do not."""
        return self._served

    @property
    def probing(self) -> bool:
        """Whether the batch that is out is a kept one, which must not be trained on or counted."""
        return self._probe is not None

    @property
    def probe(self) -> Kept[B] | None:
        """The kept step whose batches are out, None for an ordinary batch."""
        return self._probe

    def seek(self, position: Position) -> None:
        """Go on from a position; it may lie before or after the present one.

        A position past the end of its epoch is the start of the next. Only the epochs that were begun, up to
        sixteen of them, and the one after the last can be sought.

        Args:
            position: What the `position` of this feed was when the wanted batch was the next.

        Raises:
            SeekError: It cannot be reached. Then nothing has changed. Whether a sampler repeats its order shows only
                when it is driven again, so the next batch may raise this too.
        """
        self._reachable(position)
        self._position = position
        self._told = True

    def state_dict(self) -> dict[str, Any]:
        """Return where the data stand, for `load_state_dict` here or in another process.

        It is plain data that JSON can hold, and whatever a loader with a state of its own adds. The kept batches are
        not in it; within a process hold `shelf` beside it.
        """
        epoch, batch = self._position.epoch, self._position.batch
        if self._source.stateful and batch:
            self._opened()  # only a loader that stands there can say what its state there is
        opening = self._openings.get(epoch)
        reading = self._reading if self._at_hand() else None
        return {
            "version": 1,
            "run": self._run,
            "epoch": epoch,
            "batch": batch,
            "served": self._served,
            "finished": self._finished,
            "opening": None if opening is None else opening.plain(batch, self._source.settings()),
            "between": self._source.between() if opening is None else None,
            "loader": self._source.state(reading) if reading is not None or batch == 0 else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where the data stood.

        In the process that the state is from this is a seek. In another one the loader must be built as it was;
        the global generators are left alone, for who loads the state to put back before the next batch.

        Raises:
            InputError: The state is not one of a feed, or was taken under settings that the loader does not have.
            SeekError: The position cannot be reached; nothing has changed.
        """
        if state.get("version") != 1:
            raise InputError(f"`version` of the feed's state is {state.get('version')!r}: this flyball reads version 1")
        position = Position(state["epoch"], state["batch"])
        if state["run"] == self._run:
            self._reachable(position)
        else:
            self._adopt(state, position)
        if state["loader"] is not None:
            if state["opening"] is not None:
                self._openings[position.epoch].states[position.batch] = state["loader"]
            else:
                self._between = (position, state["loader"])
        self._position = position
        self._served = state["served"]
        self._told = True

    @property
    def keepable(self) -> bool:
        """Whether the batches that are out can be kept: they are new, and nobody has changed them in place."""
        return self._keeps and self._probe is None and bool(self._out) and all(held.whole for _, held in self._out)

    def keep(self, info: object = None, *, batches: int = 1, updates: int | None = None) -> bool:
        """Hold the batch that is out as a healthy one, to be served again.

        Args:
            info: What to remember with it: its loss, the random state at its forward.
            batches: How many of the last batches made the step, at most `accumulate`; they are served again together.
            updates: How many updates were applied so far; every 32 of them the oldest kept step becomes an anchor.
                By default the keeps are counted.

        Returns:
            Whether it is held: not if it was changed in place since it was handed out, or cannot be watched.

        Raises:
            InputError: So many batches are not out, or it is one that is served again.
        """
        if not self._keeps:
            return False
        out = self._out
        if batches == 1 == len(out) and self._probe is None:
            position, held = out.pop()
            if held.whole:
                self.shelf = self.shelf.put((held,), position, info, updates)
                return True
            return False
        if self._probe is not None or not 0 < batches <= len(out):
            raise InputError(
                f"`keep` was asked for {batches} batches, and {0 if self._probe else len(out)} are out that were "
                "not kept yet: keep a step once, after its batches were handed out and before the next one"
            )
        step = list(out)[-batches:]
        out.clear()
        if not all(held.whole for _, held in step):
            return False
        self.shelf = self.shelf.put(tuple(held for _, held in step), step[0][0], info, updates)
        return True

    def serve_again(self, age: int, *, anchor: bool = False) -> Kept[B] | None:
        """Let the next batch be a kept one; of a step with several batches, the next ones.

        Args:
            age: How many kept steps ago, 1 for the last one.
            anchor: Look among the anchors instead, 1 for the newest.

        Returns:
            The kept step, None if there is none of that age that is unchanged; then nothing is served again.
        """
        kept = self.shelf.at(age, anchor=anchor)
        self._waiting = deque(kept.batches if kept is not None else ())
        self._coming = kept
        return kept

    def withdraw(self) -> None:
        """Serve nothing again after all."""
        self._waiting.clear()
        self._coming = None

    def can_reach(self, position: Position) -> bool:
        """Say whether a position can be sought now."""
        try:
            self._reachable(position)
        except SeekError:
            return False
        return True

    @property
    def rewinds(self) -> bool:
        """Whether an earlier position can be sought."""
        return self._source.rewinds

    def close(self) -> None:
        """End the loop that is running and let the workers of the loader go; the position stays."""
        running = None if self._pass is None else self._pass()
        if running is not None:
            running.over = True
        self._leave()
        self._source.close()

    def _next(self, target: int) -> B:
        if self._waiting:
            self._probe = self._coming
            self.out_position = None if self._probe is None else self._probe.position
            return self._waiting.popleft().fresh()
        self._probe = None
        while self._position.epoch <= target:
            reading = self._opened()
            try:
                for batch in reading:
                    return self._handed_out(batch)
            except BaseException:
                self._broken()
                raise
            if reading.batch == 0:
                raise InputError(self._empty())
            reading.close()
            self._reading = None
            self._between_epochs = reading.opening is self._openings[max(self._openings)]
            self._position = Position(self._position.epoch + 1, 0)
        self._finished = target
        self._told = True
        raise StopIteration

    def _handed_out(self, batch: B) -> B:
        if self._keeps:
            self._hold(batch)
        here = self.out_position = self._position
        self._position = here.next
        self._served += 1
        return batch

    def _hold(self, batch: B) -> None:
        try:
            self._out.append((self._position, Held(batch, shared=self._source.shares)))
        except InputError as reason:
            self._keeps = False
            self.shelf = self.shelf.cleared()
            limit = f"batches cannot be kept, because {reason}, so no batch is served again"
            self.limits += (limit,)
            _LOG.warning("the feed reads a %s. %s.", self._name, limit)

    def _at_hand(self) -> bool:
        """Whether the reading stands at the position."""
        reading, position = self._reading, self._position
        return (
            reading is not None
            and reading.opening is self._openings.get(position.epoch)
            and reading.batch == position.batch
        )

    def _opened(self) -> Reading[B]:
        """Return a reading that stands at the position, the present one if it can be moved there."""
        position, reading = self._position, self._reading
        opening = self._openings.get(position[0])
        if reading is not None and reading.opening is opening and reading.batch <= position.batch:
            if reading.batch < position.batch:
                try:
                    reading.skip_to(position.batch)
                except BaseException:
                    self._broken()
                    raise
            return reading
        if opening is None and not self._between_epochs:
            self._finish_newest()
        self._leave()
        self._between_epochs = False
        if opening is not None:
            self._reading = self._source.resume(opening, position.batch)
        else:
            if self._between is not None and self._between[0] == position:
                self._source.load(self._between[1])
            self._reading = self._source.begin()
            # An epoch that is begun further on draws its order all the same; an iterator is brought to where it was
            # in another process, whose draws are done.
            with nullcontext() if self._source.rewinds else undisturbed():
                self._reading.skip_to(position.batch)
        self._between = None
        self._openings[position.epoch] = self._reading.opening
        for epoch in sorted(self._openings)[:-_OPENINGS]:
            del self._openings[epoch]
        return self._reading

    def _finish_newest(self) -> None:
        """Draw what the rest of the newest epoch would have drawn, before the one after it is begun out of turn."""
        newest = self._openings[max(self._openings)]
        if self._reading is None or self._reading.opening is not newest:
            self._leave()
            self._reading = self._source.resume(newest, 0)
        self._reading.finish()

    def _broken(self) -> None:
        """Let go of a reading that raised, so that the next one begins at the batch that was not handed out."""
        if self._source.rewinds:
            self._leave()

    def _leave(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _reachable(self, position: Position) -> None:
        newest = max((*self._openings, self._position.epoch - (self._position.epoch not in self._openings)))
        known = position.epoch in self._openings or position.epoch == newest + 1
        reading = self._reading
        stands = reading.batch if reading is not None else self._position.batch
        if not known:
            raise SeekError(
                f"{position} was not begun and does not follow an epoch that was, or is too long ago: seek to an "
                f"epoch from {min(self._openings, default=newest + 1)} to {newest + 1}"
            )
        if not self._source.rewinds and position < Position(self._position.epoch, stands):
            raise SeekError(
                f"{position} has passed and cannot come again, because {self._name} cannot be rewound: {self.limits[0]}"
            )

    def _adopt(self, state: Mapping[str, Any], position: Position) -> None:
        """Take over the timeline of another process."""
        opening = None
        if state["opening"] is not None:
            opening = Opening.of(state["opening"], position.batch)
            if opening.settings:
                self._source.check_settings(opening.settings)
        if not self._source.rewinds and (self._reading is not None or self._position > Position(0, 0)):
            raise SeekError(f"{self._name} has been read and cannot be rewound: load the state before the first batch")
        self._leave()
        self._between_epochs = True
        if state["between"] is not None:
            self._source.begin_after(state["between"])
        self.shelf = self.shelf.cleared()
        self._openings = {} if opening is None or not self._source.rewinds else {position.epoch: opening}
        self._finished = min(state["finished"], position.epoch - 1)

    def _empty(self) -> str:
        if self._source.rewinds or self._position.epoch == 0:
            return f"the loader, a {self._name}, has no batch: training on it would do nothing"
        return f"the loader, a {self._name}, is used up after one epoch: {self.limits[0]}"


class _Pass(Iterator[B]):
    """One ``for`` over a feed, to the end of the epoch that stood when it began."""

    def __init__(self, feed: Feed[B], target: int) -> None:
        self.over = False
        self._feed = feed
        self._target = target

    def __next__(self) -> B:
        if self.over:
            raise StopIteration
        try:
            return self._feed._next(self._target)  # noqa: SLF001 -- the other half of the same idea
        except StopIteration:
            self.over = True
            raise
