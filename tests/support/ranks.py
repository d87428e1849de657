"""Some processes that form a gloo group and run functions together, as the ranks of a run do.

The functions must be importable by name, so they live in modules beside this one. The processes stem from a server that
has torch imported already: a pool starts in a fraction of a second, and one that a test has killed is soon replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_PATIENCE = 60.0


@dataclass(frozen=True)
class Gone:
    """A rank whose process has ended."""

    code: int | None


class Ranks:
    """The processes; `run` gives all of them a function, which gets the rank, and returns what each made of it."""

    def __init__(self, count: int, meeting: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed", "flyball.govern.governor"])
        self.count = count
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, count, str(meeting)), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any, last: bool = False) -> list[Any]:
        """Return what each rank returned, the exception that it raised, or `Gone`.

        With `last` each process ends when it is done, as a program that has raised does: torch's own collectives let
        the neighbours of a lost rank fail, and the others wait for these.
        """
        for pipe in self._pipes:
            pipe.send((function, arguments, last))
        answers: list[Any] = [None] * self.count
        waited = {pipe: rank for rank, pipe in enumerate(self._pipes)}
        while waited:
            ready = wait(list(waited), timeout=_PATIENCE)
            if not ready:
                raise TimeoutError(f"ranks {sorted(waited.values())} hang in `{function.__name__}`")
            for pipe in [one for one in self._pipes if one in ready]:
                rank = waited.pop(pipe)
                try:
                    answers[rank] = pipe.recv()
                except EOFError:
                    self._processes[rank].join()
                    answers[rank] = Gone(self._processes[rank].exitcode)
        return answers

    def values(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return what each rank returned; what one raised is raised."""
        answers = self.run(function, *arguments)
        for rank, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                answer.add_note(f"on rank {rank}")
                raise answer
        return answers

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()


@contextmanager
def ranks(count: int) -> Iterator[Ranks]:
    """Start so many ranks, and end them after use."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Ranks(count, Path(folder) / "meeting")
        try:
            yield pool
        finally:
            pool.close()


def _serve(pipe: Connection, rank: int, count: int, meeting: str) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    last = False
    while not last:
        function, arguments, last = pipe.recv()
        try:
            answer = function(rank, *arguments)
        except Exception as error:  # noqa: BLE001 -- the test looks at it
            answer = error
        pipe.send(answer)
