"""What a journal costs the thread that trains, and what it takes to read one back.

An event is written beside what people do instead: a line of JSON into a file that is flushed now and then. The time is
that of the calling thread, as the journal's own thread does the rest while training goes on.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

from benches.harness import Contest
from flyball.events import Journal, StepSample
from flyball.govern.governor import Governor
from flyball.observe import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = ("torch", "pyarrow")

_EVENTS = 5_000
_LINES = 100_000
_STEPS = 300


def thread_seconds(pieces: int) -> Callable[[Callable[[], object]], float]:
    """Return a timer of the calling thread, for one of so many equal pieces of the work."""

    def timer(work: Callable[[], object]) -> float:
        started = time.thread_time()
        work()
        return (time.thread_time() - started) / pieces

    return timer


def contests() -> Iterator[Contest[Any]]:
    """Yield the rows: an event written, a journal read, a governed step with a journal."""
    with tempfile.TemporaryDirectory() as folder:
        yield _written(Path(folder))
        yield _read(Path(folder))
        yield _governed(Path(folder))


def _written(folder: Path) -> Contest[int]:
    def ours() -> int:
        path = folder / f"{time.monotonic_ns()}.jsonl"
        journal = Journal(path, run="r", capacity=2 * _EVENTS)
        for n in range(_EVENTS):
            journal.write(StepSample(step=n, epoch=1, loss=1.5, learning_rate=0.1))
        return _EVENTS

    def theirs() -> int:
        with (folder / "lines.jsonl").open("w") as file:
            for n in range(_EVENTS):
                file.write(json.dumps({"step": n, "epoch": 1, "loss": 1.5, "lr": 0.1, "time": time.time()}) + "\n")
        return _EVENTS

    return Contest(
        work="a step is written down, time of the training thread",
        answers={"Journal.write": ours, "json.dumps into a file": theirs},
        same=_equal,
        timer=thread_seconds(_EVENTS),
    )


def _read(folder: Path) -> Contest[tuple[int, float]]:
    path = folder / "long.jsonl"
    with Journal(path, run="r", capacity=2 * _LINES) as journal:
        for n in range(_LINES):
            journal.write(StepSample(step=n, epoch=1, loss=1.0 / (n + 1), learning_rate=0.1, grad_norm=0.5))

    def ours() -> tuple[int, float]:
        table = read(path).to_arrow()["train.step"]
        return table.num_rows, table.column("loss")[-1].as_py()

    def theirs() -> tuple[int, float]:
        with path.open() as lines:
            rows = [{**(one := json.loads(line)), **one["data"], "data": None} for line in lines]
        table = pa.Table.from_pylist(rows)
        return table.num_rows, table.column("loss")[-1].as_py()

    return Contest(
        work=f"a journal of {_LINES:,} steps becomes an Arrow table",
        answers={"observe.read(run).to_arrow": ours, "json.loads, line by line": theirs},
        same=_equal,
    )


def _governed(folder: Path) -> Contest[torch.Tensor]:
    torch.set_num_threads(1)
    inputs = torch.randn(_STEPS, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [(one, (one.sum(dim=1) > 0).long()) for one in inputs]

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        return model, torch.optim.SGD(model.parameters(), lr=1e-3)

    def ours() -> torch.Tensor:
        model, optimizer = made()
        with Journal(folder / f"{time.monotonic_ns()}.jsonl", run="r") as journal:
            governor = Governor(model, optimizer, journal=journal)
            for step, (given, targets) in enumerate(governor.feed(batches)):
                loss = functional.cross_entropy(model(given), targets)
                loss.backward()  # type: ignore[no-untyped-call]
                governor.step(loss)
                journal.write(StepSample(step=step, epoch=1, loss=loss.item(), learning_rate=1e-3))
        return next(model.parameters()).detach().clone()

    def theirs() -> torch.Tensor:
        model, optimizer = made()
        for given, targets in batches:
            loss = functional.cross_entropy(model(given), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
        return next(model.parameters()).detach().clone()

    def same(mine: torch.Tensor, other: torch.Tensor) -> None:
        assert torch.equal(mine, other)

    return Contest(
        work="a trivial step, governed and written down",
        answers={"Governor with a journal": ours, "the plain loop": theirs},
        same=same,
        timer=thread_seconds(_STEPS),
    )


def _equal(mine: object, other: object) -> None:
    assert mine == other
