"""What a feed can read from, and how each kind is opened, opened again and passed over.

| source | back, and on in another process | what skipping costs |
| --- | --- | --- |
| a list, any `Sequence` | exact | nothing |
| a `DataLoader` over a map-style dataset | exact; the sampler is driven again | drawing the skipped indices |
| a loader with `state_dict` and `load_state_dict` | from the nearest state that was taken | reading from there |
| an `IterableDataset`, any other iterable | as far as it repeats itself | reading from the epoch's start |
| an iterator, a generator | not at all | reading |
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch.utils.data import DataLoader, IterableDataset

from flyball.errors import InputError
from flyball.govern.feed.draws import GlobalState, Owned
from flyball.govern.feed.position import SeekError
from flyball.govern.feed.tape import Opening, Run, Tape, undisturbed
from flyball.govern.feed.workers import Sent, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

B = TypeVar("B")

_STATES_KEPT = 8  # states of one epoch that a stateful loader is remembered by, beside its first


class Reading(Iterator[B]):
    """One epoch being read, from its start or from the middle.

    Attributes:
        opening: How the epoch began.
        batch: The batch that comes next.
        first: The batch that came first, 0 unless the reading began in the middle.
    """

    def __init__(
        self, batches: Iterator[B], opening: Opening, first: int = 0, leave: Callable[[], None] | None = None
    ) -> None:
        self.opening = opening
        self.batch = self.first = first
        self._batches = batches
        self._leave = leave

    def __next__(self) -> B:
        batch = next(self._batches)
        self.batch += 1
        return batch

    def skip_to(self, batch: int) -> None:
        """Pass over batches; what cannot be skipped is read and dropped."""
        while self.batch < batch and next(self, self) is not self:
            pass
        self.batch = batch

    def finish(self) -> None:
        """Draw what the rest of the epoch would have drawn, because a later one is wanted."""

    def close(self) -> None:
        """Leave the epoch, and let the workers go that read ahead in it."""
        if self._leave is not None:
            self._leave()
        batches = self._batches.items if isinstance(self._batches, Run) else self._batches
        # Without this they go when the last reference does. The traceback of an error holds one, and workers that
        # are forked while the old ones are being fed may inherit a lock that nobody will open.
        shut_down = getattr(batches, "_shutdown_workers", None)
        if shut_down is not None and not getattr(batches, "_persistent_workers", False):
            shut_down()


class Source(ABC, Generic[B]):
    """Where batches come from.

    Attributes:
        limits: What cannot be done, in sentences for a person.
        rewinds: Whether an epoch can be opened again at an earlier batch, and another one after it.
        stateful: Whether the loader says by itself where it stands.
        shares: Whether its batches may lie in memory that other processes have made.
    """

    limits: tuple[str, ...] = ()
    rewinds = True
    shares = True
    stateful = False

    def __init__(self, owned: Owned) -> None:
        self._owned = owned

    @abstractmethod
    def begin(self) -> Reading[B]:
        """Open the next epoch, as a `for` loop over the loader would."""

    @abstractmethod
    def resume(self, opening: Opening, batch: int) -> Reading[B]:
        """Open an epoch again at a batch; the global generators stay as they are.

        At batch 0 they may stand as they did when the epoch was first opened. Then it is opened as it was then, and
        draws what it drew then, so that all that follows repeats too.

        Raises:
            SeekError: The batch cannot be found again.
        """

    def settings(self) -> Mapping[str, Any]:
        """Return what must be the same in another process for the middle of an epoch to be found."""
        return self._owned.settings()

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings under which the middle of an epoch cannot be found.

        Raises:
            InputError: A setting differs.
        """
        self._owned.check_settings(settings)

    def between(self) -> dict[str, Any]:
        """Return what the source carries from one epoch to the next: its generators, and what has counted."""
        settings = self._owned.settings()
        counters = {path: value for path, value in self._owned.scalars().items() if path not in settings}
        return {"generators": self._owned.generators(), "scalars": counters}

    def begin_after(self, between: Mapping[str, Any]) -> None:
        """Give the source what it carried, in another process."""
        self._owned.restore_generators(between["generators"])
        self._owned.restore_scalars(between["scalars"])

    def state(self, reading: Reading[B] | None) -> Any:
        """Return the state that the loader keeps by itself, None if it keeps none."""

    def load(self, state: Any) -> None:
        """Give the loader the state that it kept between two epochs."""

    def close(self) -> None:
        """Let go of what outlives an epoch."""


class SequenceSource(Source[B]):
    """Batches that lie in a list."""

    def __init__(self, batches: Sequence[B]) -> None:
        super().__init__(Owned({}))
        self.shares = not isinstance(batches, list | tuple)  # which hold their batches anyway
        self._batches = batches

    def begin(self) -> Reading[B]:
        """Open the next epoch."""
        return self.resume(Opening(), 0)

    def resume(self, opening: Opening, batch: int) -> Reading[B]:
        """Open an epoch again at a batch."""
        return _Listed(self._batches, opening, batch)


class _Listed(Reading[B]):
    def __init__(self, batches: Sequence[B], opening: Opening, first: int) -> None:
        super().__init__(iter(()), opening, first)
        self._list = batches

    def __next__(self) -> B:
        if self.batch >= len(self._list):
            raise StopIteration
        self.batch += 1
        return self._list[self.batch - 1]

    def skip_to(self, batch: int) -> None:
        self.batch = batch


class MapSource(Source[B]):
    """A `DataLoader` over a map-style dataset.

    What is iterated is a shallow copy of the loader with a `Tape` in the place of its sampler: workers, collation,
    pinning and what a subclass adds are the loader's own, and the loader itself is not touched.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        place = "sampler" if loader.batch_sampler is None else "batch_sampler"
        sampler = getattr(loader, place)
        self.rewinds = not isinstance(sampler, Iterator)
        super().__init__(Owned({place: sampler, "loader": loader}))
        self._tape: Tape[Any] = Tape(sampler, self._owned, checked=True)
        self._loader = copy.copy(loader)
        # Set past `DataLoader.__setattr__`, which guards loaders in use; a persistent iterator belongs to the original.
        vars(self._loader).update({place: self._tape, "_iterator": None})
        self._workers = Workers(self._loader, blanks=place == "batch_sampler")
        self.shares = self._loader.num_workers > 0
        self.limits = tuple(self._find_limits())

    def _find_limits(self) -> Iterator[str]:
        if not self.rewinds:
            yield "its sampler is an iterator, which gives its indices once: there is no second epoch and no way back"
        if self._loader.num_workers and self.rewinds:
            yield (
                "after a seek to the middle of an epoch its workers start new random streams: the samples are the "
                "same, a random augmentation made in a worker is not, unless the state of the feed was taken there. "
                "draw it from the sample's index to repeat it"
            )
        if not getattr(self._loader, "in_order", True) and self._loader.num_workers:
            yield "`in_order=False` hands batches out as they come: after a seek some may come twice, and some never"

    def begin(self) -> Reading[B]:
        """Open the next epoch."""
        opening = Opening()
        opening.entry = self._owned.now()
        self._workers.begin()
        self._tape.record(opening)
        return _Indexed(iter(self._loader), self._tape, opening, workers=self._workers)

    def resume(self, opening: Opening, batch: int) -> Reading[B]:
        """Open an epoch again at a batch."""
        entry = opening.entry
        if not self.rewinds or entry is None:
            raise SeekError(
                "the sampler is an iterator, which cannot be rewound: give the loader one that can be iterated twice"
            )
        if batch == 0 and (opening.asked is None or GlobalState.now() == entry.everyone):
            self._owned.restore_generators(entry.generators)
            self._owned.restore_scalars(entry.scalars)
            return self.begin()
        streams = opening.states.get(batch)
        counters = self._tape.replay(opening, batch, blanks=self._workers.blanks(batch) if streams is not None else 0)
        self._workers.begin()
        self._workers.give(streams)
        with undisturbed():
            entry.everyone.restore()
            self._owned.restore_generators(entry.generators)
            batches: Iterator[Any] = iter(self._loader)
            if self._tape.run is None:
                # A subclass whose `__iter__` is a generator function asks its sampler with the first batch.
                batches = _begun(batches)
        self._tape.release()
        self._workers.give(None)
        leave = _leave(self._owned, opening, counters)
        return _Indexed(batches, self._tape, opening, batch, workers=self._workers, leave=leave)

    def state(self, reading: Reading[B] | None) -> Any:
        """Return the random streams of the workers, if there are any at this moment."""
        if not self.rewinds or (reading is None and not self._workers.persistent):
            return None
        return self._workers.state()

    def close(self) -> None:
        """Let the workers go that outlive an epoch."""
        iterator = vars(self._loader)["_iterator"]
        if iterator is not None:
            vars(self._loader)["_iterator"] = None
            iterator._shutdown_workers()  # noqa: SLF001 -- else they go with the last reference, whenever that is

    def load(self, state: Any) -> None:
        """Start the workers that outlive an epoch, with the streams that they had; they are given nothing to do yet."""
        self._workers.give(state)
        own = self._owned.generators()
        with undisturbed():
            self._tape.offer_nothing()
            iter(self._loader)
        self._owned.restore_generators(own)
        self._workers.give(None)


class _Indexed(Reading[B]):
    """An epoch whose indices are drawn before its batches are fetched, by prefetching workers long before."""

    def __init__(
        self,
        batches: Iterator[B],
        tape: Tape[Any],
        opening: Opening,
        first: int = 0,
        *,
        workers: Workers,
        leave: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(batches, opening, first, leave)
        self._tape = tape
        self._workers = workers

    def __next__(self) -> B:
        batch: Any = next(self._batches)
        while isinstance(batch, Sent):
            batch = next(self._batches) if batch.blank else self._workers.received(batch)
        self.batch += 1
        found: B = batch
        return found

    def skip_to(self, batch: int) -> None:
        drawn = self.batch if self._tape.run is None else self._tape.run.drawn
        if self._tape.run is not None and batch > drawn:
            self._tape.run.advance(batch - drawn)
        # What workers were already sent for comes first, and is dropped; the rest is never fetched.
        super().skip_to(min(batch, max(drawn, self.batch)))
        self.batch = batch

    def finish(self) -> None:
        if self._tape.run is not None:
            with undisturbed():
                for _ in self._tape.run:
                    pass


class StatefulSource(Source[B]):
    """A loader that says where it stands, and goes there: torchdata's `StatefulDataLoader`, for one."""

    stateful = True

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        super().__init__(Owned(_roots(loader)))
        self._begun = False
        limit = (
            "it keeps its own state, so it goes back to a position whose state was taken, or to the nearest one "
            "before that, and reads on from there"
        )
        self.limits = (limit,)

    def begin(self) -> Reading[B]:
        """Open the next epoch."""
        opening = Opening()
        opening.entry = self._owned.now()
        reading: Reading[B] = Reading(iter(self._loader), opening)
        self._begun = True
        self._note(reading)
        return reading

    def resume(self, opening: Opening, batch: int) -> Reading[B]:
        """Open an epoch again at a batch."""
        entry = opening.entry
        before = [taken for taken in opening.states if taken <= batch]
        if entry is None or not before:
            raise SeekError(f"no state of the loader was taken at batch {batch} or before it: seek to a later one")
        counters = self._owned.scalars()
        if batch == 0 and GlobalState.now() == entry.everyone:
            self._owned.restore_generators(entry.generators)
            self._owned.restore_scalars(entry.scalars)
            self._loader.load_state_dict(copy.deepcopy(opening.states[0]))
            return self.begin()
        with undisturbed():
            self._owned.restore(entry)
            self._loader.load_state_dict(copy.deepcopy(opening.states[max(before)]))
            reading: Reading[B] = Reading(
                iter(self._loader), opening, max(before), _leave(self._owned, opening, counters)
            )
            self._begun = True
            reading.skip_to(batch)
        return reading

    def state(self, reading: Reading[B] | None) -> Any:
        """Return what the loader says of itself."""
        if reading is not None:
            return self._note(reading)
        # A loader that was never iterated would start its iterator, and draw, to answer.
        return copy.deepcopy(self._loader.state_dict()) if self._begun else None

    def load(self, state: Any) -> None:
        """Give the loader its state back."""
        self._loader.load_state_dict(copy.deepcopy(state))

    def _note(self, reading: Reading[B]) -> Any:
        states = reading.opening.states
        states[reading.batch] = copy.deepcopy(self._loader.state_dict())
        for taken in sorted(states)[1:-_STATES_KEPT]:
            del states[taken]
        return states[reading.batch]


class IterableSource(Source[B]):
    """Something that can be iterated again and again, a `DataLoader` over an `IterableDataset` among it."""

    def __init__(self, loader: Iterable[B]) -> None:
        super().__init__(Owned(_roots(loader)))
        self._tape = Tape(loader, self._owned, checked=False)
        limit = (
            "it can only be skipped by reading: a seek back reads the epoch again from its start, and repeats the "
            "batches as far as the source repeats them when the random state of the epoch's start is put back"
        )
        self.limits = (limit,)
        if isinstance(loader, DataLoader) and loader.persistent_workers:
            self.limits += ("its persistent workers keep their random streams, which a seek back does not repeat",)

    def begin(self) -> Reading[B]:
        """Open the next epoch."""
        opening = Opening()
        self._tape.record(opening)
        run = iter(self._tape)
        opening.entry = opening.asked
        return Reading(run, opening)

    def resume(self, opening: Opening, batch: int) -> Reading[B]:
        """Open an epoch again at a batch."""
        entry = opening.entry
        if batch == 0 and entry is not None and GlobalState.now() == entry.everyone:
            self._owned.restore_generators(entry.generators)
            self._owned.restore_scalars(entry.scalars)
            return self.begin()
        counters = self._tape.replay(opening, batch)
        run = iter(self._tape)
        self._tape.release()
        return Reading(run, opening, batch, _leave(self._owned, opening, counters))


class IteratorSource(Source[B]):
    """An iterator or a generator: each batch comes once."""

    rewinds = False

    def __init__(self, loader: Iterator[B]) -> None:
        super().__init__(Owned({}))
        self._iterator = loader
        limit = (
            "it is an iterator, which gives each batch once: it cannot be rewound, there is no second epoch, and "
            "it can only be skipped by reading. give the feed a list, a `DataLoader` or an object with `__iter__`"
        )
        self.limits = (limit,)

    def begin(self) -> Reading[B]:
        """Open the next epoch."""
        return Reading(self._iterator, Opening())

    def resume(self, opening: Opening, batch: int) -> Reading[B]:  # noqa: ARG002 -- no opening helps
        """Open an epoch again at a batch."""
        raise SeekError(
            f"batch {batch} of an iterator has been read and cannot come again: give the feed a list, a "
            f"`DataLoader` or an object with `__iter__`, or recover without going back"
        )


def source_of(loader: Iterable[B]) -> Source[B]:
    """Return the source that reads a loader of this kind.

    Raises:
        InputError: It cannot be iterated, or is no collection of batches.
    """
    if isinstance(loader, Mapping | str | bytes) or not isinstance(loader, Iterable):
        raise InputError(f"`loader` is a `{type(loader).__name__}`: give a loader, or a list of batches")
    if isinstance(loader, Iterator):
        return IteratorSource(loader)
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return MapSource(loader)
    if callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None)):
        return StatefulSource(loader)
    if isinstance(loader, Sequence):
        return SequenceSource(loader)
    return IterableSource(loader)


def _roots(loader: object) -> dict[str, object]:
    return {"loader": loader, "dataset": loader.dataset} if isinstance(loader, DataLoader) else {"loader": loader}


def _leave(owned: Owned, opening: Opening, counters: Mapping[str, Any]) -> Callable[[], None] | None:
    """Put the counters back when an old epoch is left, so that a `set_epoch` for the next one is not undone.

    In another process they have not counted yet, and stay as the old epoch leaves them.
    """
    return None if opening.settings is not None else lambda: owned.restore_scalars(counters)


def _begun(batches: Iterator[B]) -> Iterator[B]:
    for batch in batches:
        return itertools.chain((batch,), batches)
    return iter(())
