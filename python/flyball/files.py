"""Whole files or none: how everything but the journal is written."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from flyball.errors import WriteError

if TYPE_CHECKING:
    from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a full disk at any instant leaves the old one or the new one.

    The content goes to a temporary name beside `path`, is flushed to the disk, and is renamed over it.

    Args:
        path: The file to write; an existing one is replaced.
        content: All of it.

    Raises:
        WriteError: The file cannot be written; `path` is as it was, and nothing is left beside it.
    """
    # The process id keeps two processes that write the same file out of each other's way.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # what cannot be written cannot always be removed
            temporary.unlink(missing_ok=True)
        raise WriteError(
            f"`{path}` cannot be written ({error.strerror}): make room or get permission there, or name another place"
        ) from error
    except BaseException:  # an interrupt, say
        temporary.unlink(missing_ok=True)
        raise
