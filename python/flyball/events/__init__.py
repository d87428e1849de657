"""Typed events and the journal that keeps them: one line of JSON for everything worth knowing.

A run writes `events.jsonl`; the terminal, the plots and the reports read it::

    with Journal(folder / "events.jsonl", run="digits-7") as journal:
        journal.write(StepSample(step=1, epoch=0, loss=2.3, learning_rate=0.1))

    for record in read(folder / "events.jsonl"):
        print(record.seq, record.event)

Every line holds the same envelope, and the event's own fields under `data`::

    {"kind": "train.step", "version": 1, "run": "digits-7", "rank": 0, "seq": 1, "step": 1,
     "wall": 1760000000.0, "monotonic": 12.5, "data": {"step": 1, "epoch": 0, ...}}

`seq` grows by one for each event that was offered to the journal. Where events are missing, a
`telemetry.dropped` line stands in their place, and the gap in `seq` after it is its `count`.

To add an event, define it beside what emits it; nothing else changes::

    @event("snapshot.committed", version=1)
    class SnapshotCommitted(Event):
        \"\"\"A snapshot passed its checks and can be rolled back to.\"\"\"

        snapshot: str
        bytes: int
        seconds: float | None

A field is a `str`, `int`, `float`, `bool`, `None`, a union of these, a `Mapping[str, ...]`, a
`Sequence[...]`, a dataclass of such fields, or `object` for whatever JSON can hold. When the
fields change, the version goes up: a reader keeps a version it does not know as `UnknownEvent`.
"""

from __future__ import annotations

from flyball.events.journal import Journal as Journal
from flyball.events.kinds import EpochFinished as EpochFinished
from flyball.events.kinds import Estimate as Estimate
from flyball.events.kinds import Evaluated as Evaluated
from flyball.events.kinds import Event as Event
from flyball.events.kinds import EventsDropped as EventsDropped
from flyball.events.kinds import RunFailed as RunFailed
from flyball.events.kinds import RunFinished as RunFinished
from flyball.events.kinds import RunStarted as RunStarted
from flyball.events.kinds import StepSample as StepSample
from flyball.events.kinds import event as event
from flyball.events.kinds import known_events as known_events
from flyball.events.reader import JournalReader as JournalReader
from flyball.events.reader import Record as Record
from flyball.events.reader import UnknownEvent as UnknownEvent
from flyball.events.reader import read as read

__all__ = [
    "EpochFinished",
    "Estimate",
    "Evaluated",
    "Event",
    "EventsDropped",
    "Journal",
    "JournalReader",
    "Record",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "StepSample",
    "UnknownEvent",
    "event",
    "known_events",
    "read",
]
