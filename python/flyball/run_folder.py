"""A run has a folder of its own, and no run is written over another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flyball.errors import RunExistsError, RunFolderError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "config.toml"
JOURNAL = "events.jsonl"
CHECKPOINTS = "checkpoints"


def create(path: Path) -> Path:
    """Create the folder for a new run, with its folder for checkpoints, and return it.

    Args:
        path: Where; parents are created, and a folder that holds no run is used as it is.

    Raises:
        RunExistsError: The folder already holds a run.
        RunFolderError: The folder cannot be created or written.
    """
    for name in (CONFIG, JOURNAL):
        if (path / name).exists():
            raise RunExistsError(
                f"`{path}` already holds a run (it has `{name}`): name another folder, or move this one away"
            )
    try:
        (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"`{path}` cannot be a run folder ({error.strerror}): name a folder that you can write"
        ) from error
    return path


def fresh(parent: Path, name: str) -> Path:
    """Return a path under `parent` that no run has taken: the name, the time, and a number if need be."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = parent / stem
    number = 2
    while path.exists():
        path = parent / f"{stem}-{number}"
        number += 1
    return path
