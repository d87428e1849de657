"""What a run leaves behind: its folder, its journal and its checkpoints, and how it is begun or gone on with.

    config.toml          what it was told
    environment.json     what it ran on: versions, device, git revision
    events.jsonl         everything that happened
    checkpoints/         states that it can be resumed from

A run that was given no folder leaves nothing.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors
import torch

from flyball import run_folder
from flyball._native import __version__
from flyball.config.formats import Format, written
from flyball.errors import ConfigError, RunExistsError
from flyball.events import Event, Journal, RunFailed, RunFinished, RunStarted
from flyball.files import write_whole
from flyball.train import distributed
from flyball.train import resume as resuming
from flyball.train.checkpoint import Checkpoints
from flyball.train.records import RunResumed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from flyball.govern.snapshot import TrainingState

_LOG = logging.getLogger("flyball.train")

ENVIRONMENT = "environment.json"
_LOCK = ".lock"


class Run:
    """One run, from its beginning or from a checkpoint to its end; used as a context.

    Args:
        folder: Where it leaves what it leaves; None for nowhere.
        state: All that a checkpoint holds.
        config: What must be the same where it is resumed.
        device: Where it computes.
        keep: How many of the newest checkpoints stay.
        told: Whether there is a journal in the folder.
    """

    def __init__(
        self,
        folder: Path | None,
        state: TrainingState,
        *,
        config: Mapping[str, Any],
        device: torch.device,
        keep: int,
        told: bool = True,
    ) -> None:
        self.folder = folder
        self.checkpoints: Checkpoints | None = None
        self._state = state
        self._device = device
        self._keep = keep
        self._tells = told
        self._journal: Journal | None = None
        self._lock: int | None = None
        self._started = time.monotonic()
        self.about = {"config": dict(config), "versions": versions()}

    def begin(
        self,
        resume: str | os.PathLike[str] | None,
        accept: Collection[str],
        around: AbstractContextManager[None],
    ) -> resuming.Checkpoint | None:
        """Make the folder, or go on in it, and put the state back that the run goes on from.

        Args:
            resume: What to go on from.
            accept: Settings that may differ.
            around: Entered while the state is put back.

        Raises:
            RunExistsError: The folder holds a run, and it is not resumed.
            CheckpointError: There is no checkpoint where one is named, none can be read, or it does not fit.
            ConfigError: `resume` is "auto", and there is no run folder.
        """
        if resume == "auto" and self.folder is None:
            raise ConfigError("`resume` is 'auto', which looks into the run folder, and `run` is None: give it one")
        checkpoint = None
        if resume is not None and resume != "auto":
            checkpoint = distributed.at(Path(resume))
        if self.folder is not None:
            inside = checkpoint is not None and self.folder.resolve() in checkpoint.path.resolve().parents
            goes_on = resume == "auto" or inside
            self._make(self.folder, goes_on=goes_on)
            if resume == "auto":
                checkpoint = distributed.newest_of_all(self.folder / run_folder.CHECKPOINTS)
        if checkpoint is not None:
            with around:
                checkpoint.put_back(self._state, self.about, accept=accept)
        if self.folder is not None:
            self._open(self.folder)
        return checkpoint

    def _make(self, folder: Path, *, goes_on: bool) -> None:
        # A kill may have come between the first file of a run and the second.
        begun = any((folder / name).exists() for name in (run_folder.CONFIG, run_folder.JOURNAL))
        if not (goes_on and begun):
            try:
                run_folder.create(folder)
            except RunExistsError as error:
                raise RunExistsError(f"{error}, or go on with it: `fit(..., resume='auto')`") from error
        self._lock_or_refuse(folder)

    def _lock_or_refuse(self, folder: Path) -> None:
        """See to it that no other process trains in this folder; the lock goes with the process, however it ends."""
        try:
            import fcntl
        except ImportError:  # not on this system
            return
        checkpoints = folder / run_folder.CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)  # a copy of a folder may have lost what was empty
        self._lock = os.open(checkpoints / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not `flock`, which the workers of a loader would inherit and hold when this process was killed.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise RunExistsError(f"`{folder}` is in use by another process that trains there: wait for it") from error

    def _open(self, folder: Path) -> None:
        if not (folder / ENVIRONMENT).exists():
            write_whole(folder / run_folder.CONFIG, written(_for_toml(self.about["config"]), Format.TOML).encode())
            surroundings = json.dumps(environment(self._device), indent=2) + "\n"
            write_whole(folder / ENVIRONMENT, surroundings.encode())
        rank, _ = distributed.world()
        name = folder.resolve().parents[1].name if rank else folder.resolve().name
        if self._tells:
            self._journal = Journal(folder / run_folder.JOURNAL, run=name or "run", rank=rank, go_on=True)
        self.checkpoints = Checkpoints(
            folder / run_folder.CHECKPOINTS,
            self._state,
            keep=self._keep,
            tell=self.tell,
            settle=self._settle,
        )

    def _settle(self) -> None:
        """Bring what was said until now to the disk, before a checkpoint that was taken after it."""
        if self._journal is not None:
            self._journal.flush(timeout=1.0)

    def started(self, checkpoint: resuming.Checkpoint | None, epoch: int, accept: Collection[str]) -> None:
        """Say in the journal how the run was begun; of a new one, write the first checkpoint.

        It is written before the first step, so that what cannot be written is refused before an hour of training.
        """
        if checkpoint is not None:
            resumed = RunResumed(
                step=checkpoint.step,
                epoch=epoch,
                checkpoint=checkpoint.path.name,
                passed_over=checkpoint.passed_over,
                accepted=tuple(accept),
                versions=self.about["versions"],
            )
            _LOG.info("goes on from `%s`, after step %d", checkpoint.path, checkpoint.step)
            self.tell(resumed)
            return
        if self.folder is not None:
            self.tell(
                RunStarted(
                    name=self.folder.resolve().name,
                    seed=torch.initial_seed(),
                    device=str(self._device),
                    versions=self.about["versions"],
                    config=self.about["config"],
                )
            )
        if self.checkpoints is not None:
            self.checkpoints.save(0)
            self.checkpoints.wait()

    def put_back_weights(self, name: str, model: torch.nn.Module) -> None:
        """Give the model the weights and buffers of a checkpoint of this run, and change nothing else.

        Raises:
            CheckpointError: It cannot be read.
        """
        if self.folder is not None:
            resuming.read(self.folder / run_folder.CHECKPOINTS / name).put_back_weights(model)

    def tell(self, event: Event) -> None:
        """Write an event into the journal, where there is one."""
        if self._journal is not None:
            self._journal.write(event)

    write = tell  # what a governor calls it

    @property
    def told(self) -> bool:
        """Whether there is a journal."""
        return self._journal is not None

    def finished(self, reason: str) -> None:
        """Say that the run came to an end that was meant."""
        self.tell(RunFinished(reason=reason, seconds=time.monotonic() - self._started))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of everything; an error is told before."""
        try:
            if self.checkpoints is not None:
                self.checkpoints.join()
            if error is not None and not isinstance(error, SystemExit):
                self.tell(RunFailed(error=type(error).__name__, message=str(error)))
        finally:
            if self._journal is not None:
                self._journal.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def versions() -> dict[str, str]:
    """Return the versions that numbers hang on."""
    return {
        "flyball": __version__,
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a run ran on, as plain data."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "git": _revision(),
    }


def _revision() -> str | None:
    """Return the git revision of the script that runs, with a mark where files differ from it."""
    folder = Path(sys.argv[0]).resolve().parent if sys.argv and sys.argv[0] else Path.cwd()
    command = [
        "git",
        "-C",
        str(folder if folder.is_dir() else Path.cwd()),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _for_toml(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what has no value: TOML has no word for it."""
    return {
        key: _for_toml(value) if isinstance(value, dict) else value
        for key, value in mapping.items()
        if value is not None
    }
