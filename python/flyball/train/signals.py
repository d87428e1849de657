"""A wish to stop, from outside: the step is finished, the state saved, and the process ends with a code of its own."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

STOPPED = getattr(os, "EX_TEMPFAIL", 75)
"""The exit code of a run that a signal has stopped and that can be resumed: `EX_TEMPFAIL`, as in "try again"."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal has stopped the run, and its state is saved; where nobody catches this, the process exits with 75.

    Attributes:
        signal: Which signal.
        checkpoint: The name of the checkpoint that was written.
    """

    def __init__(self, name: str, checkpoint: str | None) -> None:
        super().__init__(STOPPED)
        self.signal = name
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        return f"stopped by {self.signal}, with `{self.checkpoint}` saved: resume with `resume='auto'`"


class Interrupted(Exception):
    """A signal came while something was measured that can be measured again."""


class Wish:
    """While it is entered, SIGTERM and SIGINT are only noted; a second SIGINT interrupts at once, as it always does.

    Outside the main thread signals stay as they are, since Python lets only that one handle them.

    Attributes:
        signal: The name of the signal that came, None if none did.
    """

    def __init__(self, *, active: bool) -> None:
        self.signal: str | None = None
        self._active = active and threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if self._active:
            self._before = {one: signal.signal(one, self._note) for one in _SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal, signal.Signals(number).name
        if again is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)

    def heed(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signal is not None:
            raise Interrupted(self.signal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one, handler in self._before.items():
            # None is a handler that was not set from Python, and cannot be set back by it.
            signal.signal(one, signal.SIG_DFL if handler is None else handler)
        self._before = {}
