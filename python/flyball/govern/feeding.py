"""Which batches are out, from which feed, and where the data stand: the governor's side of its feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from flyball.errors import InputError
from flyball.govern.chance import Chance
from flyball.govern.feed import Feed
from flyball.nested import is_container, rebuilt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flyball.govern.agreement import Agreement
    from flyball.govern.diagnosis import Reference
    from flyball.govern.feed import Kept, Position, Shelf
    from flyball.govern.policy import Policy
    from flyball.govern.telling import Teller

B = TypeVar("B")

_SEVERAL = 3  # steps in a row that are not made of what their feed was told
_FEEDS = 16  # a loop that makes a list of batches each epoch makes a feed each epoch


class Listener(Protocol):
    """Who is told of every batch: the governor."""

    def unanswered(self) -> None:
        """What was served again was passed over."""

    def coming(self) -> None:
        """Before a batch is read."""

    def serving(self, *, probing: bool) -> None:
        """Before the first batch of a step is handed out: remember what leaving it out must put back."""


class Out(NamedTuple):
    """The batches that a step is made of.

    Attributes:
        batches: How many.
        whole: Whether these are as many as their feed was told, so that they can be kept and asked about.
        probe: The kept step that they are, if they were served again.
        chances: The random state before the forward of each.
        first: Where the first of them stood.
        contents: The batches, if they are to be remembered.
        keep: Whether every rank can keep its own.
    """

    batches: int = 0
    whole: bool = False
    probe: Kept[Any] | None = None
    chances: tuple[Chance, ...] = ()
    first: Position | None = None
    contents: tuple[Any, ...] = ()
    keep: bool = True


_NOTHING = Out()


class Feeding:
    """The feeds of one governor.

    Args:
        policy: Whether batches are kept, and whether the data must be able to come again.
        listener: Who is told of every batch.
        teller: Where warnings go.
        agreement: The other ranks; None if there are none.

    Attributes:
        current: The feed that served last; None where there is none.
        everything: Whether the random states of Python and NumPy belong to a forward.
        remembering: Whether the batches that are out are remembered themselves.
    """

    def __init__(self, policy: Policy, listener: Listener, teller: Teller, agreement: Agreement | None = None) -> None:
        self.current: Served[Any] | None = None
        self.everything = False
        self.remembering = False
        self._policy = policy
        self._listener = listener
        self._teller = teller
        self._agreement = agreement
        self._feeds: dict[int, Served[Any]] = {}
        self._batches = 0
        self._chances: list[Chance] = []
        self._contents: list[Any] = []
        self._first: Position | None = None
        self._probe: Kept[Any] | None = None
        self._uneven = 0
        self._settled: Served[Any] | None = None  # the feed that the listener was told of, and has nothing to put right

    def feed(self, loader: Iterable[B], accumulate: int) -> Served[B]:
        """Return the feed of a loader.

        Raises:
            InputError: It cannot be fed, cannot come again though it must, or has a feed of other steps.
        """
        feed = self._feeds.get(id(loader))
        if feed is None:
            feed = Served(loader, keep=8 if self._policy.diagnosis else 0, accumulate=accumulate)
            if self._policy.recovery == "replay" and not feed.rewinds:
                raise InputError(
                    f"`loader` is a `{type(loader).__name__}` that cannot be rewound, and `recovery` is 'replay', "
                    "which must: use 'skip', or a loader that can begin again"
                )
            feed.accumulate = accumulate
            feed.listener = self
            self._feeds[id(loader)] = feed
            for old in [key for key, one in self._feeds.items() if one not in {feed, self.current}][:-_FEEDS]:
                del self._feeds[old]
        elif feed.accumulate != accumulate:
            raise InputError(
                f"`accumulate` is {accumulate}, and this loader has a feed with {feed.accumulate}: give the same each "
                "time, or another loader"
            )
        return feed

    @property
    def due(self) -> bool:
        """Whether the batch that is out is the last of a step."""
        feed = self.current
        if feed is None:
            return True
        if self._probe is not None:
            return not feed.more
        return feed.ended or self._batches >= feed.accumulate

    @property
    def position(self) -> Position | None:
        """Where the next batch comes from."""
        return None if self.current is None else self.current.position

    @property
    def shelves(self) -> tuple[tuple[Served[Any], Shelf[Any]], ...]:
        """The kept batches of every feed."""
        return tuple((feed, feed.shelf) for feed in self._feeds.values())

    def put_back(self, shelves: tuple[tuple[Feed[Any], Shelf[Any]], ...], *, cleared: bool) -> None:
        """Give every feed the batches that it kept at another time; a younger feed kept none.

        Args:
            shelves: What `shelves` was then.
            cleared: Whether the loss has a new meaning since, so that what was kept then cannot be compared.
        """
        self.abandon()
        then = dict(shelves)
        for feed in self._feeds.values():
            feed.withdraw()
            feed.shelf = feed.shelf.cleared() if cleared or feed not in then else then[feed]

    def clear(self) -> None:
        """Drop every kept batch: their losses cannot be compared any more."""
        self.put_back((), cleared=True)

    def abandon(self) -> None:
        """Forget what is out: no step will be made of it."""
        self._batches, self._chances, self._contents = 0, [], []
        self._first = self._probe = None

    def take(self) -> Out:
        """Return what the present step is made of, and begin the next."""
        feed, probe = self.current, self._probe
        if feed is None or not self._batches:
            return _NOTHING
        if self._batches == 1 == feed.accumulate and probe is None:  # nearly always
            first, contents = self._first, self._contents
            self._batches, self._first, self._uneven = 0, None, 0
            if contents:
                self._contents = []
            return Out(1, whole=True, first=first, contents=tuple(contents))
        wanted = feed.accumulate if probe is None else len(probe.batches)
        whole = self._batches == wanted
        out = Out(self._batches, whole, probe, tuple(self._chances), self._first, tuple(self._contents))
        if probe is not None and not out.whole:
            feed.withdraw()
        self.abandon()
        if probe is None:
            self._compare(out, feed)
        return out

    @property
    def idle(self) -> bool:
        """Whether all batches of a step are out; if nothing was made of them, they were only looked at."""
        feed = self.current
        return feed is not None and self._probe is None and self._batches >= feed.accumulate

    def keep(self, out: Out, reference: Reference, chance: Chance | None, updates: int) -> None:
        """Hold the step as a healthy one, if it is whole.

        Args:
            out: Its batches.
            reference: What its loss is compared with later.
            chance: The random state before its forward, where it is one batch.
            updates: How many updates were applied so far.
        """
        chances = out.chances or (chance,)
        if self.current is not None and out.whole and out.keep and chances[0] is not None:
            self.current.keep((reference, chances), batches=out.batches, updates=updates)

    def keepable(self, out: Out) -> bool:
        """Say whether this rank can keep a step."""
        return self.current is not None and out.whole and self.current.keepable

    def begins(self, feed: Served[Any]) -> None:
        """When a loop over a feed begins."""
        if self._agreement is not None:
            self._agreement.epoch(feed.position.epoch, feed.position.batch, feed.length)

    def ends(self, feed: Served[Any]) -> None:
        """When a feed has come to the end of an epoch."""
        if self._agreement is not None:
            self._agreement.end(feed.served)

    def coming(self, feed: Served[Any], *, anew: bool) -> None:
        """Before a feed reads on, or a loop over it begins."""
        if self._settled is feed and not self._batches and self._probe is None and not anew:
            return
        self._settled, self.current = None, feed
        # What is served again is served whole; a loop that asks for the next one, or begins anew, gave no answer.
        if self._probe is not None and (anew or not feed.more):
            feed.withdraw()
            self.abandon()
            self._listener.unanswered()
        if not anew:
            self._listener.coming()
            self._settled = feed

    def serving(self, feed: Served[Any], batch: Any) -> None:
        """Before a batch is handed out."""
        probe = feed.probe
        if probe is not self._probe:
            self.abandon()  # a step that was begun is given up for an answer, which is wanted first
            self._probe = probe
        self._batches += 1
        if self.remembering:
            self._contents.append(rebuilt(batch, lambda part: part) if is_container(batch) else batch)
        if self._batches == 1:
            self._first = feed.out_position
            self._listener.serving(probing=probe is not None)
        if probe is not None:
            chances: tuple[Chance, ...] = probe.info[1]  # type: ignore[index] # what the governor kept
            chances[self._batches - 1].put_back()
        elif feed.accumulate > 1:
            self._chances.append(Chance.now(everything=self.everything))

    def _compare(self, out: Out, feed: Served[Any]) -> None:
        """Say once that nothing is asked where steps are not made of what their feed was told."""
        self._uneven = self._uneven + 1 if not out.whole and not feed.ended else 0
        if self._uneven == _SEVERAL and self._policy.diagnosis:
            self._teller.warn(
                "steps are made of %d batches, and the feed was told %d: no batch is served again in doubt, and a bad "
                "batch and a damaged state are told apart by the detector alone; use `feed(loader, accumulate=%d)`",
                out.batches,
                feed.accumulate,
                out.batches,
            )


class Served(Feed[B]):
    """A feed that tells its governor of every batch before it is handed out.

    Attributes:
        accumulate: How many batches make a step.
        listener: Who is told.
    """

    accumulate: int
    listener: Feeding

    @property
    def more(self) -> bool:
        """Whether the step that is served again has more batches."""
        return bool(self._waiting)

    @property
    def length(self) -> int | None:
        """How many batches an epoch has, if the loader knows."""
        try:
            return len(self)
        except TypeError:
            return None  # also a loader over an iterable dataset, which has a length that raises

    @property
    def ended(self) -> bool:
        """Whether the batch that is out is known to be the last of its epoch."""
        return self.position.batch == self.length

    def __iter__(self) -> Any:
        self.listener.coming(self, anew=True)
        begun = super().__iter__()
        self.listener.begins(self)
        return begun

    def _next(self, target: int) -> B:
        self.listener.coming(self, anew=False)
        try:
            batch = super()._next(target)
        except StopIteration:
            self.listener.ends(self)
            raise
        self.listener.serving(self, batch)
        return batch
