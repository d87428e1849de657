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
        RunFolderError: The folder cannot be created.
    """
    try:
        found = [name for name in (CONFIG, JOURNAL) if (path / name).exists()]
        if not found:
            (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if found:
        raise RunExistsError(
            f"`{path}` already holds a run (it has `{found[0]}`): name another folder, or move this one away"
        )
    return path


def create_fresh(parent: Path, name: str) -> Path:
    """Create a folder under `parent` that no other run has, and return it.

    It is called by the name and the time, with a number where two runs of one name start in one second.

    Raises:
        RunFolderError: The folder cannot be created.
    """
    stem = path = parent / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while True:
        try:
            path.mkdir(parents=True)  # fails where another process was faster
        except FileExistsError:
            number += 1
            path = stem.with_name(f"{stem.name}-{number}")
        except OSError as error:
            raise _unusable(path, error) from error
        else:
            return create(path)


def _unusable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(f"`{path}` cannot be a run folder ({error.strerror}): name a folder that you can write")
