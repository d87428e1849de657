"""What agreeing costs: one message of a step beside torch's collectives, and a governed DDP loop beside a plain one.

Times are wall time on rank 0: what a rank waits for the others is what a message costs. The ranks are processes of this
machine that stay alive; each contestant runs on all of them at once.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from benches.harness import Contest
from flyball.govern.agreement import Agreement, Measured
from flyball.govern.governor import Governor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

PACKAGES = ("torch",)
_MESSAGES = 200
_STEPS = 10


def contests() -> Iterator[Contest[float]]:
    """Yield the messages of two and four ranks, and the training steps of two."""
    for count in (2, 4):
        with _processes(count) as ask:
            yield Contest(
                f"agree on a step, {count} ranks, wall time",
                {
                    "flyball": partial(ask, "answer", "ours"),
                    "torch all_gather, gloo": partial(ask, "answer", "gather"),
                    "torch all_reduce, gloo": partial(ask, "answer", "reduce"),
                },
                _same,
                {
                    "flyball": partial(ask, "time", "ours"),
                    "torch all_gather, gloo": partial(ask, "time", "gather"),
                    "torch all_reduce, gloo": partial(ask, "time", "reduce"),
                },
                timer=_told,
            )
    with _processes(2) as ask:
        yield Contest(
            "one step of about 20 ms under DDP, 2 ranks, wall time",
            {"flyball, governed": partial(ask, "train", "governed"), "plain DDP loop": partial(ask, "train", "plain")},
            _same,
            {"flyball, governed": partial(ask, "steps", "governed"), "plain DDP loop": partial(ask, "steps", "plain")},
            timer=_told,
        )


def _same(ours: float, theirs: float) -> None:
    assert ours == theirs, (ours, theirs)


def _told(work: Callable[[], object]) -> float:
    """Take the seconds from the ranks themselves."""
    seconds = work()
    assert isinstance(seconds, float)
    return seconds


@contextmanager
def _processes(count: int) -> Iterator[Callable[[str, str], float]]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes: list[Connection[Any, Any]] = []
        processes = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, count, Path(folder) / "meeting"), daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)

        def ask(what: str, how: str) -> float:
            for pipe in pipes:
                pipe.send((what, how))
            seconds = [float(pipe.recv()) for pipe in pipes]
            return seconds[0]

        try:
            yield ask
        finally:
            for process in processes:
                process.kill()
                process.join()


def _serve(pipe: Connection[Any, Any], rank: int, count: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    messages = _Messages(rank, count)
    trainings: dict[str, _Training] = {}
    while True:
        what, how = pipe.recv()
        if what in {"answer", "time"}:
            message = getattr(messages, how)
            started = time.perf_counter()
            answers = [message() for _ in range(1 if what == "answer" else _MESSAGES)]
            pipe.send(answers[0] if what == "answer" else (time.perf_counter() - started) / _MESSAGES)
            continue
        if what == "train":  # from the same weights, so that the answers can be compared
            pipe.send(_Training(rank, governed=how == "governed").run(_STEPS))
            continue
        if how not in trainings:
            trainings[how] = _Training(rank, governed=how == "governed")
        started = time.perf_counter()
        trainings[how].run(_STEPS)
        pipe.send((time.perf_counter() - started) / _STEPS)


class _Messages:
    """The mean loss of a step over the ranks, by three ways."""

    def __init__(self, rank: int, count: int) -> None:
        agreement = Agreement.of_this_run(60.0, lambda _: None)
        assert agreement is not None
        self._agreement = agreement
        self._count = count
        self._own = Measured(float(rank + 1), 1.0)
        self._row = torch.full((12,), float(rank + 1), dtype=torch.float64)
        self._rows = torch.zeros(12 * count, dtype=torch.float64)

    def ours(self) -> float:
        return self._agreement.step(self._own).loss

    def gather(self) -> float:
        dist.all_gather_into_tensor(self._rows, self._row)
        found: list[float] = self._rows.tolist()
        return sum(found[::12]) / self._count

    def reduce(self) -> float:
        row = self._row.clone()
        dist.all_reduce(row)
        return float(row.tolist()[0]) / self._count


class _Training:
    """An MLP under DDP whose step takes about 20 ms."""

    def __init__(self, rank: int, *, governed: bool) -> None:
        torch.manual_seed(0)
        layers: Sequence[nn.Module] = [
            nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
            nn.Linear(512, 10),
        ]  # fmt: skip
        self._model = DistributedDataParallel(nn.Sequential(*layers))
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01)
        self._governor = Governor(self._model, self._optimizer) if governed else None
        chance = torch.Generator().manual_seed(rank)
        self._inputs = torch.randn(384, 64, generator=chance)
        self._targets = torch.randint(0, 10, (384,), generator=chance)

    def run(self, steps: int) -> float:
        loss = torch.zeros(())
        for _ in range(steps):
            loss = functional.cross_entropy(self._model(self._inputs), self._targets)
            loss.backward()  # type: ignore[no-untyped-call]
            if self._governor is None:
                self._optimizer.step()
                self._optimizer.zero_grad()
            else:
                self._governor.step(loss)
        return loss.item()
