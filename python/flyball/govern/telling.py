"""Say what happens, to a journal and to the log, and never let a listener get in the way of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyball.events import Event
    from flyball.govern.records import Sink

_LOG = logging.getLogger("flyball.govern")
_MOST_FAILURES = 8


class Teller:
    """Pass events to a sink, and sentences to the log.

    A sink that raises is one that a rollback must not fail by: what it raises is counted and logged, and after eight
    failures in a row it is not asked again, which is logged as well.

    Args:
        sink: A journal, or anything with `write`; None for nobody.

    Attributes:
        lost: How many events the sink did not take.
    """

    def __init__(self, sink: Sink | None) -> None:
        self.lost = 0
        self._sink = sink
        self._failures = 0

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        if self._sink is None:
            return
        if self._failures >= _MOST_FAILURES:
            self.lost += 1
            return
        try:
            self._sink.write(event)
        except Exception as error:  # noqa: BLE001 -- whatever a user's sink raises, the run comes first
            self.lost += 1
            self._failures += 1
            gone = ", and it is not asked again" if self._failures == _MOST_FAILURES else ""
            self.warn(
                "the journal, a `%s`, did not take `%s` (%r)%s: look at its `write`",
                type(self._sink).__name__,
                event.kind,
                error,
                gone,
            )
        else:
            self._failures = 0

    def warn(self, message: str, *values: object) -> None:
        """Log a warning; a handler that raises has nobody left to hear of it."""
        try:
            _LOG.warning(message, *values)
        except Exception:  # noqa: BLE001 -- as above
            self.lost += 1
