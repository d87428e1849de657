"""Checkpoints: the whole state of a run as a folder of safetensors and JSON, written by a thread of its own.

    checkpoints = Checkpoints(folder, state)
    checkpoints.save(step)      # held up while the state is copied in memory; the disk is the thread's
    checkpoints.wait()          # until the last one is on the disk

A checkpoint is a folder `00013-step-00002600`: the thirteenth that was written here, after step 2600. Numbers only
grow, so the newest is the one with the highest number, also where a run went back to an older one and took another
way from there, and no name is ever written twice. It appears under its name whole or not at all (`snapshot.spill`).

Which ones stay: the `keep` newest, and the best. One is removed only after a newer one has reached the disk.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.errors import CheckpointError, InputError, SnapshotError
from flyball.govern.snapshot import spill as disk
from flyball.govern.snapshot.mirror import Arena, Capture, Source, bind
from flyball.train.records import CheckpointFailed, CheckpointSaved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flyball.events import Event
    from flyball.govern.snapshot import TrainingState

_LOG = logging.getLogger("flyball.train")

_NAME = re.compile(r"(\d{5,12})-step-(\d{8,18})")
# What a kill leaves behind: half written, or half removed.
_LEFT = re.compile(r"\.\d{5,12}-step-\d{8,18}\.(\d+\.part|old)")


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A checkpoint on the disk, by its name; whether it can be read is another question.

    Args:
        number: The how-manieth that was written into its folder.
        step: The step after which it was taken.
        path: Its folder.
    """

    number: int
    step: int
    path: Path


def found(folder: Path) -> list[Found]:
    """Return the checkpoints of a folder, oldest first; what only looks like one, such as a link, is left out."""
    if not folder.is_dir():
        return []
    named = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(
        Found(int(match[1]), int(match[2]), path)
        for match, path in named
        if match and path.is_dir() and not path.is_symlink()
    )


class Checkpoints:
    """Write the state of a run, now and then, into folders that survive the process.

    Args:
        folder: Where each gets a folder of its own.
        state: What is written.
        keep: How many of the newest stay.
        tell: Where events go; called from the writing thread too.
        settle: Called before one is written: what the run has said until then is brought to safety first.

    Attributes:
        best: The name of the checkpoint that stays however old it gets, or None.

    Raises:
        InputError: `keep` is below one.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        *,
        keep: int = 3,
        tell: Callable[[Event], object] = lambda _: None,
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        if keep < 1:
            raise InputError(f"`keep` is {keep}: at least the newest checkpoint has to stay")
        self.folder = folder
        self.best: str | None = None
        self._state = state
        self._keep = keep
        self._tell = tell
        self._settle = settle
        self._source: Source | None = None
        self._arena: Arena | None = None
        self._thread: threading.Thread | None = None
        self._failure: CheckpointError | None = None
        self._written: str | None = None
        known = found(folder)
        self._next = known[-1].number + 1 if known else 1
        if folder.is_dir():
            for path in folder.iterdir():
                if _LEFT.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)

    @property
    def written(self) -> str | None:
        """The name of the newest checkpoint that this process has brought to the disk."""
        return self._written

    def save(self, step: int, *, best: bool = False) -> None:
        """Copy the state, and let the thread write it; one that is still being written is waited for first.

        A disk that refuses is logged and told as an event, and `wait` raises it: training need not stop for it.

        Args:
            step: The step that was just done.
            best: Whether it is the best one so far, which stays.

        Raises:
            SnapshotError: Something in the state cannot be captured; it is named.
        """
        self.join()
        number, self._next = self._next, self._next + 1
        name = f"{number:05}-step-{step:08}"
        best_before = self.best
        if best:
            self.best = name  # in what is captured, too
        started = time.perf_counter()
        captured = self._state.capture()
        source = self._source = bind(captured.members, self._source)
        arena = self._arena = self._room(source)
        capture = Capture(source, arena)
        blocked = time.perf_counter() - started

        def write() -> None:
            try:
                checksums, bad = capture.finish()
                if bad is not None:
                    raise SnapshotError(
                        f"`{bad.name}` holds a value that is not finite after step {step}", reason="not-finite"
                    )
                self._settle()
                saved = disk.Saved(
                    number, step, not self._state.unchecked, captured.trees, source.layout, checksums, arena.tensor
                )
                disk.write(self.folder, saved, name)
            except SnapshotError as error:
                self.best = best_before
                self._failed(step, error)
                return
            self._failure = None
            self._written = name
            self._tell(
                CheckpointSaved(
                    step=step,
                    checkpoint=name,
                    bytes=source.layout.bytes,
                    blocked=blocked,
                    seconds=time.perf_counter() - started,
                )
            )
            self._remove_old()

        # Not a daemon: an interpreter that ends waits for what is being written.
        self._thread = threading.Thread(target=write, name="flyball-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            CheckpointError: It could not be written; those from before are as they were.
        """
        self.join()
        if self._failure is not None:
            raise self._failure

    def join(self) -> None:
        """Wait until nothing is being written any more, whatever came of it; that was logged and told."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _failed(self, step: int, error: SnapshotError) -> None:
        match error.reason:
            case "disk":
                cause = error.__cause__
                why = getattr(cause, "strerror", None) or str(cause)
                remedy = f"`{self.folder}` takes no checkpoint ({why}): make room there, or get permission"
            case "not-finite":
                remedy = f"{error}, so the state is not worth a checkpoint: look for the step that made it"
            case _:
                remedy = str(error)
        self._failure = CheckpointError(
            f"no checkpoint was written after step {step}. {remedy}. Those written before are as they were",
            reason=error.reason,
        )
        _LOG.error("%s", self._failure)
        self._tell(CheckpointFailed(step=step, reason=str(self._failure)))

    def _room(self, source: Source) -> Arena:
        arena = self._arena
        if arena is None or (arena.size, arena.pinned) != (source.layout.size, source.pinned):
            self._arena = None  # what it held is given back first
            arena = Arena(source.layout.size, pinned=source.pinned)
        return arena

    def _remove_old(self) -> None:
        for old in found(self.folder)[: -self._keep]:
            if old.path.name != self.best:
                # Out of sight first, so that a kill half-way leaves nothing that looks like a checkpoint.
                hidden = old.path.with_name(f".{old.path.name}.old")
                with suppress(OSError):
                    old.path.rename(hidden)
                    shutil.rmtree(hidden, ignore_errors=True)
