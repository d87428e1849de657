"""A run read as one story: every rank, every attempt, from a folder or a single journal, in the order of time.

    for record in read("runs/digits"):
        print(record.rank, record.step, record.event)

A run that was killed and resumed has steps that were made twice. The ones that the resumed run did again are left out
unless `repeated` is asked for, so what is read is the run that led to the last weights; the `RunResumed` record stands
where the two were sewn together. A last line that a kill cut short is left out, as ever.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyball import run_folder
from flyball.errors import InputError
from flyball.events import JournalReader, Record
from flyball.train.records import RunResumed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_RANKS = "ranks"
_OF_THE_GOVERNOR = ("vitals.", "rollback.", "snapshot.", "governor.", "bundle.")


@dataclass(frozen=True, slots=True)
class Seam:
    """Where a run was resumed.

    Args:
        rank: Of which process.
        seq: The number of the line that says so.
        step: The step that it went on after.
    """

    rank: int
    seq: int
    step: int


class RunRecords:
    """The records of a run; each iteration reads from the start, and memory holds one line of each rank.

    Attributes:
        journals: The file of each rank that is read.
        torn: Bytes of last lines that were cut short; None until an iteration has come to the end.
    """

    def __init__(self, journals: dict[int, Path], *, repeated: bool) -> None:
        self.journals = journals
        self.torn: int | None = None
        self._repeated = repeated

    def seams(self) -> list[Seam]:
        """Return where the run was resumed, each rank's in order."""
        return [seam for rank, path in self.journals.items() for seam in _seams(rank, path)]

    def __iter__(self) -> Iterator[Record]:
        self.torn = None
        readers = [JournalReader(path) for path in self.journals.values()]
        yield from heapq.merge(*map(self._of_one, self.journals, readers), key=lambda record: record.wall)
        self.torn = sum(reader.torn or 0 for reader in readers)

    def to_arrow(self) -> dict[str, pa.Table]:
        """Return a table for each kind of event, by its kind: the envelope, then the fields of the event.

        Every line of every attempt is in it. A field that has parts is a column of JSON text.

        Raises:
            MissingExtraError: pyarrow is not installed.
            JournalError: A complete line is not an event.
        """
        from flyball.observe.tables import tables

        return tables(list(self.journals.values()))

    def _of_one(self, rank: int, reader: JournalReader) -> Iterator[Record]:
        if self._repeated:
            yield from reader
            return
        seams = _seams(rank, reader.path)
        for record in reader:
            while seams and seams[0].seq <= record.seq:
                seams.pop(0)
            if not any(_made_again(record, seam) for seam in seams):
                yield record


def read(run: str | os.PathLike[str], *, ranks: Sequence[int] | None = None, repeated: bool = False) -> RunRecords:
    """Return the records of a run.

    Args:
        run: A run folder, or one journal.
        ranks: Of which processes; all of them by default.
        repeated: Whether steps that a resumed run made again are given as often as they were made.

    Raises:
        InputError: There is no journal, or none of such a rank.
    """
    found = journals_of(Path(run))
    if ranks is not None:
        if missing := sorted(set(ranks) - found.keys()):
            raise InputError(f"`{run}` has no journal of rank {missing[0]}: it has those of {sorted(found)}")
        found = {rank: found[rank] for rank in sorted(set(ranks))}
    return RunRecords(found, repeated=repeated)


def journals_of(run: Path) -> dict[int, Path]:
    """Return the journals of a run by rank.

    Raises:
        InputError: There is none.
    """
    if run.is_file():
        return {0: run}
    found = {0: run / run_folder.JOURNAL} if (run / run_folder.JOURNAL).is_file() else {}
    if (run / _RANKS).is_dir():
        for folder in (run / _RANKS).iterdir():
            if folder.name.isdecimal() and (folder / run_folder.JOURNAL).is_file():
                found[int(folder.name)] = folder / run_folder.JOURNAL
    if not found:
        raise InputError(f"`{run}` has no `{run_folder.JOURNAL}`: name the folder of a run, or a journal")
    return dict(sorted(found.items()))


def _seams(rank: int, path: Path) -> list[Seam]:
    mark = b'"kind":"run.resumed"'
    with path.open("rb") as lines:
        resumed = any(mark in line for line in lines)
    if not resumed:  # nearly always, and then no line needs to be parsed
        return []
    return [
        Seam(rank, record.seq, record.event.step)
        for record in JournalReader(path)
        if isinstance(record.event, RunResumed)
    ]


def _made_again(record: Record, seam: Seam) -> bool:
    """Say whether a record from before a seam is of a step that was made once more after it."""
    if record.step is None or record.event.kind.startswith("checkpoint."):
        return False
    # A governor counts its steps from 0, the trainer, which alone resumes, from 1.
    first = 1 if record.event.kind.startswith(_OF_THE_GOVERNOR) else 0
    return record.step + first > seam.step
