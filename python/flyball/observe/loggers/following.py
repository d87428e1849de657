"""Pass a journal on to loggers, as it grows or as a whole."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flyball import run_folder
from flyball.errors import JournalError
from flyball.events import JournalReader, RunStarted
from flyball.observe.loggers.base import numbers

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from flyball.events import Record
    from flyball.observe.loggers.base import Logger

_LOG = logging.getLogger("flyball.observe")
_MOST_FAILURES = 8


class _Guarded:
    """A logger that can fail without anybody else failing."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self.failures = 0  # in a row
        self.lost = 0

    @property
    def disabled(self) -> bool:
        return self.failures >= _MOST_FAILURES

    def call(self, what: Callable[..., None], *values: Any) -> None:
        if self.disabled:
            self.lost += 1
            return
        try:
            what(*values)
        except Exception as error:  # noqa: BLE001 -- whatever somebody else's logger raises, the run goes on
            self.failures += 1
            self.lost += 1
            gone = ", and it is not asked again" if self.failures >= _MOST_FAILURES else ""
            _LOG.warning("the logger `%s` failed (%r)%s", type(self.logger).__name__, error, gone)
        else:
            self.failures = 0


class _Passing:
    """Give records to loggers."""

    def __init__(self, loggers: Iterable[Logger]) -> None:
        self.guarded = [_Guarded(logger) for logger in loggers]
        self._step = 0
        self._begun = False

    def take(self, record: Record) -> None:
        event = record.event
        if isinstance(event, RunStarted) and not self._begun:
            self._begun = True
            for one in self.guarded:
                one.call(one.logger.begin, event)
        self._step = max(self._step, record.step or 0)
        values, text = numbers(event)
        if values or text:
            step = self._step if record.step is None else record.step
            for one in self.guarded:
                one.call(one.logger.log, step, values, text)

    def close(self) -> int:
        for one in self.guarded:
            one.failures = min(one.failures, _MOST_FAILURES - 1)  # what was taken before is worth a try
            one.call(one.logger.close)
        return sum(one.lost for one in self.guarded)


def send(run: str | os.PathLike[str], *loggers: Logger) -> int:
    """Pass a whole journal on, close the loggers, and return how many calls they failed or were not asked.

    Args:
        run: A run folder, or a journal.
        loggers: Who gets it.

    Raises:
        JournalError: A complete line is not an event.
        OSError: There is no journal.
    """
    passing = _Passing(loggers)
    try:
        for record in JournalReader(_journal(Path(run))):
            passing.take(record)
    finally:
        lost = passing.close()
    return lost


class Following:
    """Pass a journal on while it is written, from a thread of its own; it may not be there yet.

    Args:
        run: A run folder, or a journal.
        loggers: Who gets it.
        every: Seconds between two looks.

    Attributes:
        lost: How many calls the loggers failed or were not asked, once it is closed.
    """

    def __init__(self, run: str | os.PathLike[str], *loggers: Logger, every: float = 1.0) -> None:
        self.lost = 0
        self._path = Path(run)
        self._passing = _Passing(loggers)
        self._every = every
        self._stop = threading.Event()
        self._place = self._line = 0
        self._thread = threading.Thread(target=self._follow, name="flyball-loggers", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 30.0) -> None:
        """Pass on what is left, close the loggers, and wait for them, so long; what is late is told in the log."""
        self._stop.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _LOG.error("the loggers of `%s` have not taken everything after %g s: they are left behind",
                       self._path, timeout)  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> None:
        last = False
        try:
            while not last:
                last = self._stop.wait(self._every)
                self._look()
        except JournalError as error:
            _LOG.error("%s: the loggers get nothing more of it", error)
        except OSError as error:
            _LOG.error("`%s` cannot be read (%s): the loggers get nothing more of it", self._path, error)
        finally:
            self.lost = self._passing.close()

    def _look(self) -> None:
        journal = _journal(self._path)
        if not journal.is_file():
            return
        with journal.open("rb") as lines:
            lines.seek(self._place)
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # not whole yet
                self._place += len(line)
                self._line += 1
                self._passing.take(JournalReader.record_of(line, journal, self._line))


def _journal(run: Path) -> Path:
    return run if run.suffix == ".jsonl" else run / run_folder.JOURNAL
