"""Which checkpoint a run goes on from, whether it fits, and how it is put back.

    "auto"     the newest of the run folder that can be read; one that cannot is reported and the one before it is
               taken. A fresh start only where there is none at all: if there are some and none can be read, an error.
    a path     that checkpoint, or the newest that can be read of a run folder

Nothing is unpickled, and nothing of the run is changed before the checkpoint was read, verified byte by byte, and found
to fit: what it was written by, its configuration and the number of its processes, must be what is here. What may differ
is named by who resumes.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyball import run_folder
from flyball.errors import CheckpointError, SnapshotError
from flyball.govern.snapshot import TrainingState
from flyball.govern.snapshot import spill as disk
from flyball.govern.snapshot.mirror import Arena
from flyball.govern.snapshot.restore import Kept, prepare, verify
from flyball.train.checkpoint import found

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import torch

_LOG = logging.getLogger("flyball.train")

ABOUT = "about"
"""The component that says what a checkpoint was written by: `{"config": {...}, "versions": {...}}`."""

_NOTHING = "nothing"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified, and not yet put back.

    Args:
        path: Its folder.
        step: The step after which it was taken.
        about: What it was written by.
        passed_over: Newer ones that could not be read, and why.
    """

    path: Path
    step: int
    about: Mapping[str, Any]
    passed_over: tuple[str, ...]
    _kept: Kept

    def put_back(self, state: TrainingState, about: Mapping[str, Any], *, accept: Collection[str] = ()) -> None:
        """Give a run the state that this checkpoint holds: all of it, or nothing.

        Args:
            state: The run.
            about: What it is now, in the form of `ABOUT`.
            accept: Settings that may differ, by the names that the error gives them.

        Raises:
            CheckpointError: The run is another one than that which wrote it; every difference is named. Nothing was
                changed.
            RollbackFailed: It broke off half-way.
        """
        self._compare(about, accept)
        try:
            prepare(state, self._kept, None).commit()
        except SnapshotError as error:
            reason = "changed" if error.reason == "structure" else error.reason
            raise CheckpointError(f"`{self.path}` does not fit this run: {error}", reason=reason) from error

    def put_back_weights(self, model: torch.nn.Module) -> None:
        """Give a model the parameters and buffers that this checkpoint has of it, and change nothing else.

        Raises:
            CheckpointError: They do not fit.
        """
        alone = TrainingState(model)
        now = alone.capture().trees
        kept = dataclasses.replace(self._kept, trees={**now, "model": self._kept.trees["model"]})
        try:
            prepare(alone, kept, None).commit()
        except SnapshotError as error:
            raise CheckpointError(f"`{self.path}` does not fit this model: {error}", reason="changed") from error

    def _compare(self, about: Mapping[str, Any], accept: Collection[str]) -> None:
        before, now = _flat(self.about["config"]), _flat(about["config"])
        differences = [
            f"`{name}` was {before.get(name, _NOTHING)!r} and is {now.get(name, _NOTHING)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name, _NOTHING) != now.get(name, _NOTHING)
            and not any(name == one or name.startswith(f"{one}.") for one in accept)
        ]
        if differences:
            raise CheckpointError(
                f"`{self.path}` was written by another run than this one: {'; '.join(differences)}. Set it back, or "
                "name in `accept=` what may differ",
                reason="changed",
            )
        then, here = _flat(self.about["versions"]), _flat(about["versions"])
        others = [f"{name} {then.get(name)}" for name in here if then.get(name) != here[name]]
        if others:
            _LOG.warning("`%s` was written with %s: the same numbers are not promised", self.path, ", ".join(others))


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint of a folder that can be read; None where there is none at all.

    Raises:
        CheckpointError: There are some, and none can be read.
    """
    passed_over: list[str] = []
    for one in reversed(found(folder)):
        try:
            return read(one.path, tuple(passed_over))
        except CheckpointError as error:
            _LOG.warning("%s; the one before it is taken, if there is one", error)
            passed_over.append(str(error))
    if passed_over:
        raise CheckpointError(
            f"`{folder}` holds {len(passed_over)} checkpoints and none can be read ({'; '.join(passed_over)}): a fresh "
            "start would hide that, so move them away first, or resume from another path",
            reason="damaged",
        )
    return None


def at(path: Path) -> Checkpoint:
    """Read the checkpoint that a path names, or the newest that can be read where it names a run folder.

    Raises:
        CheckpointError: There is none, it cannot be read, or it is not one of flyball's.
    """
    if path.is_file():
        raise CheckpointError(
            f"`{path}` is a file, and flyball resumes from folders of safetensors and JSON: a pickle can run code when "
            "it is read. Load the weights yourself, with `torch.load(path, weights_only=True)`, before `fit`",
            reason="foreign",
        )
    if (path / disk.PLAIN).exists() or (path / disk.TENSORS).exists():
        return read(path)
    for folder in (path, path / run_folder.CHECKPOINTS):
        if (checkpoint := newest(folder)) is not None:
            return checkpoint
    why = "holds no checkpoint" if path.exists() else "does not exist"
    raise CheckpointError(
        f"`{path}` {why}: name a run folder, or a checkpoint in its `{run_folder.CHECKPOINTS}`", reason="missing"
    )


def read(path: Path, passed_over: tuple[str, ...] = ()) -> Checkpoint:
    """Read one checkpoint, and compare every byte with what was written.

    Raises:
        CheckpointError: It is damaged, or was not written by a trainer.
    """
    try:
        saved, fill = disk.read(path)
        arena = Arena(saved.layout.size, pinned=False)
        fill(arena.tensor)
        kept = Kept(
            saved.id, saved.step, time.perf_counter(), saved.trees, saved.layout, arena, None, saved.checksums
        )  # fmt: skip
        verify(kept, f" (`{path}`)")
    except SnapshotError as error:
        raise CheckpointError(f"`{path}` cannot be used ({error})", reason="damaged") from error
    about = saved.trees.get(ABOUT)
    if not isinstance(about, dict) or not all(isinstance(about.get(part), dict) for part in ("config", "versions")):
        raise CheckpointError(f"`{path}` was not written by a trainer: resume from one of its own", reason="foreign")
    return Checkpoint(path, saved.step, about, passed_over, kept)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
