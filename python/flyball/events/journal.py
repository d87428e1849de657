"""The journal's writing side: a bounded queue in front of one thread that owns the file.

`Journal.write` takes a lock that nobody holds for longer than an append, stores the event with
its times, and returns; encoding and disk are the thread's. When the queue is full the event is
counted instead of stored, and when the disk refuses, the thread keeps the rest of its chunk and
goes on from the same byte later. Memory holds at most one queue and the chunk made from the one
before.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, time
from typing import TYPE_CHECKING, NoReturn, Self, TypeAlias

from flyball.errors import InputError, JournalError
from flyball.events.append import AppendFile
from flyball.events.kinds import Event, EventsDropped
from flyball.events.reader import seq_after
from flyball.events.strict_json import UNENCODABLE, encode, plain

if TYPE_CHECKING:
    from types import TracebackType

_LOG = logging.getLogger("flyball.events")

_CLOSE_TIMEOUT = 5.0
_JOIN_GRACE = 1.0
_RETRY_EVERY = 1.0

_Waiting: TypeAlias = "tuple[Event, int | None, float, float]"


class Journal:
    """Write events to a new file of JSON lines, without ever holding up the loop that emits them.

    ``with Journal(path, run="name") as journal`` closes it on the way out. A journal that is
    dropped, or still open when the interpreter ends, is closed too, but a fork's child cannot
    use it: a `DataLoader` worker that needs to write opens one of its own.

    Args:
        path: The file to create, in a folder that exists.
        run: The run's id, written on every line.
        rank: The process's rank in a distributed run.
        capacity: How many events may wait; more are dropped, counted and reported.
        flush_every: Seconds between two writes to the file.
        go_on: Whether a journal that exists is gone on with, as by a run that is resumed: a last line that was cut
            short is cut off, and `seq` goes on where it stood.

    Raises:
        RunExistsError: The file exists already.
        RunFolderError: The file cannot be created.
        JournalError: It is to be gone on with, and its last line is not an event.
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: str,
        rank: int = 0,
        capacity: int = 10_000,
        flush_every: float = 0.05,
        go_on: bool = False,
    ) -> None:
        # Not every caller has a type checker, and what the reader would refuse must not be written.
        if not isinstance(run, str) or not run:  # type: ignore[redundant-expr]
            raise InputError(f"`run` is {run!r}: every line of a journal names its run, in text")
        if not isinstance(rank, int) or rank < 0:  # type: ignore[redundant-expr]
            raise InputError(f"`rank` is {rank!r}: ranks are whole numbers from 0")
        if capacity < 1:
            raise InputError(f"`capacity` is {capacity}: a journal needs room for at least one event")
        if not 0 < flush_every <= threading.TIMEOUT_MAX:  # false for NaN, too
            raise InputError(f"`flush_every` is {flush_every}: pass a positive number of seconds")
        self.path = Path(path)
        self.run = run
        self.rank = rank
        file = AppendFile(self.path, go_on=go_on)
        try:
            first = seq_after(file.last) if file.last else 0
        except (ValueError, RecursionError) as error:
            file.close()
            raise JournalError(
                f"`{self.path}` cannot be gone on with, as its last line is not an event ({error}): move it away"
            ) from error
        writer = _Writer(file, run, self.rank, capacity=capacity, flush_every=flush_every, seq=first)
        self._writer = writer
        if hasattr(os, "register_at_fork"):
            # A hook cannot be taken back, so it must keep nothing alive.
            os.register_at_fork(after_in_child=partial(_disown, weakref.ref(writer)))
        # The thread knows only the writer: a journal that nobody holds is collected, and closed.
        # At exit this runs while daemon threads still do.
        weakref.finalize(self, writer.finish, _CLOSE_TIMEOUT)
        writer.thread.start()

    def write(self, event: Event, *, step: int | None = None) -> None:
        """Hand over an event without waiting; trouble with the file is never raised here.

        Numbers belong in an event as numbers: a tensor is read when the writer comes to it.

        Args:
            event: What happened.
            step: The optimizer step it belongs to; without one, the event's own `step` field.

        Raises:
            JournalError: The journal is closed, or belongs to the process this one was forked from.
        """
        writer = self._writer
        with writer.lock:
            if writer.refusal is not None:
                raise JournalError(writer.refusal)
            queue = writer.queue
            if len(queue) >= writer.capacity:
                writer.missed += 1
                return
            queue.append((event, step, time(), monotonic()))
            if len(queue) == writer.half:
                writer.bell.put(None)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was written so far is in the file, and return whether it is.

        With a timeout, a file that cannot be written is given that long to recover. Without one,
        the answer is False as soon as a write fails; `error` then says why.

        Raises:
            JournalError: The journal belongs to the process this one was forked from.
        """
        return self._writer.flush(timeout)

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Write what waits, make the file durable and let go of it; again, it does nothing.

        A file that cannot be written is tried until the timeout has run out; then the events that
        are lost are counted in `dropped` and in the log. In a forked child it does nothing.
        """
        self._writer.finish(timeout)

    @property
    def closed(self) -> bool:
        """Whether `write` is refused."""
        return self._writer.refusal is not None

    @property
    def dropped(self) -> int:
        """How many events are not, and will not be, in the file."""
        with self._writer.lock:
            return self._writer.dropped + self._writer.missed

    @property
    def error(self) -> OSError | None:
        """Why the file cannot be written just now; None while it can."""
        return self._writer.file.error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a file has one writer."""
        raise TypeError(f"journal `{self.path}` cannot be pickled or copied: open another one there instead")


class _Writer:
    """The thread of a journal, and what it shares with the callers under one lock."""

    def __init__(self, file: AppendFile, run: str, rank: int, *, capacity: int, flush_every: float, seq: int) -> None:
        self.file = file
        self.run = run
        self.rank = rank
        self.flush_every = flush_every
        self.retry_every = min(flush_every, _RETRY_EVERY)
        # Re-entrant lock and queue: a signal handler may write while a write is under way.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.bell: SimpleQueue[None] = SimpleQueue()
        # Under the lock:
        self.queue: list[_Waiting] = []
        self.capacity = capacity
        self.half = max(1, capacity // 2)
        self.missed = 0  # dropped because the queue was full, and not yet reported in the file
        self.dropped = 0  # all others that are not in the file
        self.refusal: str | None = None
        self.forked = False
        self.stopping = False
        self.deadline = math.inf
        self.asked = self.promised = self.answered = 0  # flushes: by number, as they were called
        self.failures = 0
        self.ended = False
        self.lost = 0
        # The thread's own:
        self.seq = seq
        self.batch: list[_Waiting] = []  # taken from the queue, and not yet a chunk
        self.weights: list[int] = []  # events of the caller's in each line of the chunk: 1 or 0
        self.reported: set[str] = set()
        self.thread = threading.Thread(target=self.loop, name=f"flyball-journal-{file.path.name}", daemon=True)

    def flush(self, timeout: float | None) -> bool:
        with self.changed:
            if self.forked and self.refusal is not None:
                raise JournalError(self.refusal)
            if self.ended:
                return self.lost + self.missed == 0
            if threading.current_thread() is self.thread:
                return False  # a log handler asks; waiting for oneself would take for ever
            self.asked += 1
            mine, failures = self.asked, self.failures
            self.bell.put(None)
            self.changed.wait_for(
                lambda: self.answered >= mine or self.ended or (timeout is None and self.failures > failures),
                timeout,
            )
            return self.answered >= mine

    def finish(self, timeout: float) -> None:
        with self.lock:
            if self.forked:
                return
            if not self.stopping:
                self.refusal = f"journal `{self.file.path}` is closed: write before `close`, or inside `with`"
                self.deadline = monotonic() + timeout
                self.stopping = True
        self.bell.put(None)
        if threading.current_thread() is self.thread:
            return  # the collector may run anywhere; the thread ends by itself
        self.thread.join(min(max(0.0, timeout) + _JOIN_GRACE, threading.TIMEOUT_MAX))
        if self.thread.is_alive():
            _LOG.error(
                "journal `%s` is not closed after %g s: its disk does not answer, and the events that wait may be lost",
                self.file.path,
                timeout,
            )

    def disown(self) -> None:
        """Become the useless copy that a forked child has: the file and the queue are not its."""
        self.lock = threading.RLock()  # the inherited one may be held by a thread that is not here
        self.changed = threading.Condition(self.lock)
        self.forked = True
        self.refusal = (
            f"journal `{self.file.path}` belongs to the process that opened it, and this one was "
            f"forked from it: open another journal here"
        )
        self.queue = []
        self.file.disown()

    def loop(self) -> None:
        try:
            done = True
            while not self.stopping:
                self.rest(self.flush_every if done else self.retry_every)
                done = self.drain()
            while not self.drain() and (left := self.deadline - monotonic()) > 0:
                self.rest(min(left, self.retry_every))
        finally:
            self.end()

    def rest(self, seconds: float) -> None:
        try:
            self.bell.get(timeout=seconds)
        except Empty:
            return

    def drain(self) -> bool:
        """Write what waits, and return whether the file took all of it."""
        if not self.push():
            return False
        with self.lock:
            self.batch, self.queue = self.queue, []
            missed, self.missed = self.missed, 0
            self.dropped += missed
            self.promised = self.asked
        self.weights = []
        lines = [self.line_of(*waiting) for waiting in self.batch]
        if missed:
            _LOG.warning(
                "journal `%s`: %d events were dropped, as its queue of %d was full",
                self.file.path,
                missed,
                self.capacity,
            )
            lines.append(self.dropped_line(missed, "the queue was full", time(), monotonic()))
        self.file.offer("".join(lines).encode("ascii"))
        self.batch = []
        return self.push()

    def push(self) -> bool:
        done = self.file.push()
        with self.changed:
            if done:
                self.answered = self.promised
            else:
                self.failures += 1
            self.changed.notify_all()
        return done

    def line_of(self, event: Event, step: int | None, wall: float, instant: float) -> str:
        try:
            line = self.line(event, step, wall, instant)
        except UNENCODABLE as error:
            name = str(getattr(event, "kind", type(event).__qualname__))
            reason = f"`{name}` cannot be written as JSON: {error}"
            if name not in self.reported:
                self.reported.add(name)
                _LOG.error("journal `%s`: %s; it is counted as dropped", self.file.path, reason)
            with self.lock:
                self.dropped += 1
            return self.dropped_line(1, reason, wall, instant)
        self.weights.append(1)
        return line

    def dropped_line(self, count: int, reason: str, wall: float, instant: float) -> str:
        event = EventsDropped(count=count, total=self.dropped, reason=reason)
        line = self.line(event, None, wall, instant)
        self.seq += count
        self.weights.append(0)
        return line

    def line(self, event: Event, step: int | None, wall: float, instant: float) -> str:
        data = event.to_data()
        number = plain(data.get("step") if step is None else step)
        if number is not None and type(number) is not int:
            raise TypeError(f"its step is a `{type(number).__name__}`, not an integer")
        text = encode(
            {
                "kind": event.kind,
                "version": event.version,
                "run": self.run,
                "rank": self.rank,
                "seq": self.seq,
                "step": number,
                "wall": wall,
                "monotonic": instant,
                "data": data,
            }
        )
        self.seq += 1
        return text + "\n"

    def end(self) -> None:
        with self.changed:
            unwritten = self.weights[len(self.weights) - self.file.lines_left :]
            # Nothing may wait for a thread that has ended, however it did.
            self.capacity = 0
            self.lost = self.missed + len(self.queue) + len(self.batch) + sum(unwritten)
            self.dropped += self.lost
            self.missed = 0
            self.queue = []
        if self.lost:
            _LOG.error(
                "journal `%s` is closed, and its last %d events are lost (%s)",
                self.file.path,
                self.lost,
                self.file.error or "its thread has failed",
            )
        self.file.close()
        with self.changed:
            self.ended = True
            self.changed.notify_all()


def _disown(reference: weakref.ref[_Writer]) -> None:
    if (writer := reference()) is not None:
        writer.disown()
