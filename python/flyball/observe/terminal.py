"""The terminal view: a run in plain lines that read well in a window, in a pipe and in a log."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flyball.events import EpochFinished, Estimate, Evaluated, RunFinished, RunStarted
from flyball.govern.records import RolledBack, VerdictGiven

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flyball.events import Event


class Terminal:
    """Print a run to standard output, with emphasis on a terminal and as plain text elsewhere.

    When standard output fails (`flyball demo | head -1`, a full disk behind `>`), the view falls silent and the run
    goes on: its results are in the run folder.
    """

    def __init__(self) -> None:
        self._console = _LastingConsole(highlight=False, soft_wrap=True)

    def line(self, text: str, *, style: str | None = None) -> None:
        """Print one line as it is: no markup, no wrapping, so that a path can be copied."""
        self._print(text, style=style, markup=False)

    def paragraph(self, text: str) -> None:
        """Print a sentence, wrapped to the width that there is."""
        self._print(text, markup=False, soft_wrap=False)

    def show(self, event: Event) -> None:
        """Print an event; the kinds that a person does not read live are left to the journal."""
        match event:
            case RunStarted():
                self.line(f"{event.name} on {event.device}, seed {event.seed}", style="bold")
            case EpochFinished():
                trained = "nothing trained" if event.train_loss is None else f"loss {event.train_loss:.4f}"
                measured = "  ".join(f"{name} {value:.4f}" for name, value in event.validation.items())
                self.line(f"epoch {event.epoch:3d}  {trained}  {measured}")
            case VerdictGiven() if "asking" not in event.reasons:
                self._print(event.text, markup=False, no_wrap=True, overflow="ellipsis", soft_wrap=False)
            case RolledBack():
                self.line(f"step {event.step}: rolled back to step {event.back_to}")
            case Evaluated() if not event.measurements:
                self.line(f"{event.split} split: nothing to measure, what the model says is not a number")
            case Evaluated():
                self.table(f"{event.split} split", ("measure", "value", "95 % interval"), _measured(event))
            case RunFinished():
                self.line(f"{event.reason} in {event.seconds:.1f} s", style="bold")
            case _:
                pass

    def table(self, title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table whose first column is words and whose others are numbers."""
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
        for number, name in enumerate(head):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        self._print(table, soft_wrap=False)

    def _print(self, thing: str | Table, **how: Any) -> None:
        try:
            self._console.print(thing, **how)
        except OSError:
            self._console.on_broken_pipe()


class _LastingConsole(Console):
    """A rich console that outlives its reader."""

    def on_broken_pipe(self) -> None:
        """Fall silent, also for what Python itself flushes to standard output at exit."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _measured(event: Evaluated) -> Iterator[tuple[str, str, str]]:
    for name, measured in event.measurements.items():
        if isinstance(measured, Estimate):
            yield name, f"{measured.value:.4f}", f"{measured.low:.4f} to {measured.high:.4f}"
        else:
            yield name, f"{measured:.4f}", ""
