"""What a journal tells of a run, put together: the steps and what became of each, and everything that was done.

One pass over the lines. Of the many lines that are steps only four numbers are taken, so that a long run is read in a
second; the others become events as ever.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import JournalError
from flyball.events import (
    EpochFinished,
    Evaluated,
    EventsDropped,
    JournalReader,
    Record,
    RunFailed,
    RunFinished,
    RunStarted,
    StepSample,
)
from flyball.events.strict_json import decode
from flyball.govern.records import Exhausted, RollbackBroken, RolledBack, VerdictGiven
from flyball.observe.journals import journals_of
from flyball.train.records import CheckpointSaved, RunResumed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

_STEP = f'{{"kind":"{StepSample.kind}","version":{StepSample.version},'.encode()


class Fate(IntEnum):
    """What became of a step."""

    KEPT = 0
    LEFT_OUT = 1
    ABANDONED = 2
    """Taken back by a rollback."""
    REPEATED = 3
    """Made again, after the run was killed and resumed from before it."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a reader of the run should know.

    Args:
        step: When, in the numbers of the steps.
        what: "skip", "watch", "rollback", "resume", "stop" or "dropped".
        says: In a sentence.
        cost: What was lost by it, in words; empty if nothing was.
        event: What was written.
    """

    step: int
    what: str
    says: str
    cost: str
    event: Any


@dataclass
class Story:
    """A run, as its journal tells it.

    Attributes:
        name: What it is called.
        folder: Where it lies.
        step, loss, rate, norm, wall: Of each step that was made, in the order in which they were made.
        fate: What became of each, a `Fate`.
        happenings: Everything that was done or went wrong, in order.
        epochs: Each epoch once, the last time it was made.
        evaluations: The last of each name.
        started, ended: How it began, and how it came to its end; None if the journal has no such line.
        first, last: The times of the first and the last line.
        kinds: How many events of each kind there are.
        checkpoints: How many were written.
        dropped: How many events are missing.
        torn: Bytes of a last line that was cut short.
        ranks: How many processes wrote a journal.
    """

    name: str
    folder: Path
    step: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    loss: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    rate: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    norm: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    wall: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    fate: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    happenings: list[Happening] = field(default_factory=list)
    epochs: list[EpochFinished] = field(default_factory=list)
    evaluations: dict[str, Evaluated] = field(default_factory=dict)
    started: RunStarted | None = None
    ended: RunFinished | RunFailed | None = None
    first: float | None = None
    last: float | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    checkpoints: int = 0
    dropped: int = 0
    torn: int = 0
    ranks: int = 1

    @property
    def rollbacks(self) -> list[RolledBack]:
        """Every rollback, in order."""
        return [one.event for one in self.happenings if isinstance(one.event, RolledBack)]

    @property
    def left_out(self) -> int:
        """How many batches were left out."""
        return int((self.fate == Fate.LEFT_OUT).sum())

    @property
    def steps_lost(self) -> int:
        """How many steps the rollbacks took back."""
        return sum(back.step - back.back_to for back in self.rollbacks)

    @property
    def seconds(self) -> float | None:
        """How long it took from the first line to the last, pauses between two attempts included."""
        return None if self.first is None or self.last is None else self.last - self.first

    @property
    def outcome(self) -> str:
        """How it came to its end, in words."""
        if isinstance(self.ended, RunFinished):
            return self.ended.reason
        if isinstance(self.ended, RunFailed):
            return f"failed: {self.ended.error}"
        return "no end in the journal: it still runs, or was killed"


def read_story(run: str | os.PathLike[str]) -> Story:
    """Return what the journal of a run tells, of its first process.

    Args:
        run: A run folder, or a journal.

    Raises:
        InputError: There is no journal.
        JournalError: A complete line is not an event.
    """
    path = Path(run)
    journals = journals_of(path)
    journal = next(iter(journals.values()))
    telling = _Telling()
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                telling.torn = len(line)
            elif line.startswith(_STEP):
                telling.take_step(line, journal, number)
            else:
                telling.take(JournalReader.record_of(line, journal, number))
    folder = path if path.is_dir() else path.parent
    return telling.story(folder, len(journals))


class _Telling:
    """A story while it is being read."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float, float, float, float]] = []
        self.torn = 0
        self._fate: dict[int, Fate] = {}  # by place in `steps`
        self._refused: set[int] = set()
        self._attempt = 0  # the place where the latest attempt began
        self._shift: int | None = None
        self._told = Story("", Path())

    def take_step(self, line: bytes, path: Path, number: int) -> None:
        """Take what is needed of a line that is a step, and nothing more."""
        try:
            found: Any = decode(line.decode())
            data = found["data"]
            norm = data["grad_norm"]
            one = (int(data["step"]), data["loss"], data["learning_rate"], np.nan if norm is None else norm)
            wall = float(found["wall"])
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"`{path}:{number}` is not an event: {error}") from error
        self._seen(StepSample.kind, wall)
        if self._shift is None:
            # A governor counts from 0; whoever counts steps from 1 is one ahead of it.
            self._shift = 1 if one[0] == 1 else 0
        self.steps.append((*one, wall))

    def take(self, record: Record) -> None:  # noqa: C901 -- a line for each kind
        """Take any other line."""
        event, told = record.event, self._told
        told.name = told.name or record.run
        self._seen(event.kind, record.wall)
        match event:
            case RunStarted():
                told.started, told.ended = event, None
            case RunFinished() | RunFailed():
                told.ended = event
                if isinstance(event, RunFailed):
                    self._happened(self._now, "stop", f"the run ended by {event.error}: {event.message}", "", event)
            case RunResumed():
                self._resumed(event)
            case VerdictGiven():
                self._judged(event)
            case RolledBack():
                self._rolled_back(event)
            case Exhausted() | RollbackBroken():
                self._happened(event.step + self._ahead, "stop", event.message, "", event)
            case EpochFinished():
                told.epochs = [one for one in told.epochs if one.epoch < event.epoch]
                told.epochs.append(event)
            case Evaluated():
                told.evaluations[event.split] = event
            case CheckpointSaved():
                told.checkpoints += 1
            case EventsDropped():
                told.dropped += event.count
                self._happened(self._now, "dropped", f"{event.count} events are missing: {event.reason}", "", event)
            case _:
                pass

    @property
    def _now(self) -> int:
        return self.steps[-1][0] if self.steps else 0

    @property
    def _ahead(self) -> int:
        return self._shift or 0

    def _seen(self, kind: str, wall: float) -> None:
        told = self._told
        told.kinds[kind] += 1
        told.first = wall if told.first is None else told.first
        told.last = wall

    def _happened(self, step: int, what: str, says: str, cost: str, event: Any) -> None:
        self._told.happenings.append(Happening(step, what, says, cost, event))

    def _judged(self, event: VerdictGiven) -> None:
        step = event.step + self._ahead
        told = self._told.happenings
        if told and told[-1].step == step and told[-1].what == "skip" and "asking" in told[-1].event.reasons:
            told.pop()  # what was in doubt is settled, and this is the answer
        if event.action == "apply" or "distrusted" in event.reasons:
            self._happened(step, "watch", event.text, "", event)
        elif event.action == "skip":
            self._refused.add(step)
            self._happened(step, "skip", event.text, "one batch", event)
        else:
            self._refused.add(step)
            self._happened(step, "watch", event.text, "", event)

    def _rolled_back(self, event: RolledBack) -> None:
        ahead = self._ahead
        for place in range(len(self.steps) - 1, self._attempt - 1, -1):
            step = self.steps[place][0]
            if step < event.back_to + ahead:
                break
            self._fate[place] = Fate.ABANDONED
        lost = event.step - event.back_to
        rate = "" if event.learning_rate_factor == 1.0 else f", at {event.learning_rate_factor:g} of the rate"
        self._happened(
            event.step + ahead, "rollback",
            f"rolled back to step {event.back_to + ahead} because of {event.reason}{rate}",
            f"{lost} steps, {event.seconds:.2g} s", event,
        )  # fmt: skip

    def _resumed(self, event: RunResumed) -> None:
        self._settle()
        again = 0
        for place in range(len(self.steps) - 1, -1, -1):
            if self.steps[place][0] <= event.step:
                break
            if self._fate.get(place) is not Fate.REPEATED:
                again += 1
            self._fate[place] = Fate.REPEATED
        self._attempt = len(self.steps)
        self._told.ended = None
        cost = f"{again} steps made again" if again else ""
        self._happened(event.step, "resume", f"resumed from `{event.checkpoint}`, after step {event.step}", cost, event)

    def _settle(self) -> None:
        """Note which steps of this attempt were left out."""
        for place in range(self._attempt, len(self.steps)):
            if self.steps[place][0] in self._refused and place not in self._fate:
                self._fate[place] = Fate.LEFT_OUT
        self._refused = set()

    def story(self, folder: Path, ranks: int) -> Story:
        """Return it, as far as it was read."""
        self._settle()
        told = self._told
        columns = np.array(self.steps, dtype=np.float64).reshape(-1, 5).T
        told.step = columns[0].astype(np.int64)
        told.loss, told.rate, told.norm, told.wall = columns[1], columns[2], columns[3], columns[4]
        told.fate = np.zeros(len(self.steps), np.int8)
        for place, fate in self._fate.items():
            told.fate[place] = fate
        told.folder, told.ranks, told.torn = folder, ranks, self.torn
        told.name = told.name or folder.resolve().name
        return told


def surroundings(folder: Path) -> dict[str, Any]:
    """Return what a run wrote about where it ran; empty if it wrote nothing that can be read."""
    try:
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def settings(story: Story) -> Iterator[tuple[str, str]]:
    """Yield what a run was told, by dotted names."""
    told = story.started.config if story.started is not None else {}
    yield from _flat(told, "")


def _flat(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)
