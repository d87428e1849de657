"""A new file that gets every byte once and in order, however often the disk refuses."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from flyball.errors import RunExistsError, RunFolderError

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger("flyball.events")

_BLOCK = 1 << 16  # far more than a line is long


class AppendFile:
    """Create a file and append chunks to it; what the disk refuses is kept, and tried again.

    A failure is logged once, when it begins, and once more when it is over; `error` holds it in
    between. One thread uses it at a time.

    Args:
        path: The file.
        go_on: Whether a file that exists is gone on with; a last line that was cut short is cut off first.

    Attributes:
        last: The last line of a file that is gone on with, empty if it has none.

    Raises:
        RunExistsError: The file exists; it is left as it is.
        RunFolderError: It cannot be created.
    """

    def __init__(self, path: Path, *, go_on: bool = False) -> None:
        flags = os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self.last = b""
        try:
            self._descriptor = os.open(path, flags | (os.O_RDWR if go_on else os.O_WRONLY | os.O_EXCL), 0o666)
            if go_on:
                self.last = _cut_to_last_line(self._descriptor)
        except FileExistsError as error:
            raise RunExistsError(
                f"`{path}` exists, and a journal is never overwritten: choose another run folder, or move this one away"
            ) from error
        except OSError as error:
            raise RunFolderError(
                f"`{path.name}` cannot be created in `{path.parent}` ({error.strerror}): "
                f"the folder must exist and be writable; create it, or choose another"
            ) from error
        self.path = path
        self.error: OSError | None = None
        self._rest = memoryview(b"")

    @property
    def lines_left(self) -> int:
        """How many lines have not reached the file whole."""
        return bytes(self._rest).count(b"\n")

    def offer(self, chunk: bytes) -> None:
        """Take the next chunk, once `push` has returned True."""
        self._rest = memoryview(chunk)

    def push(self) -> bool:
        """Write what is left of the chunk, and return whether all of it is in the file."""
        while self._rest:
            try:
                written = os.write(self._descriptor, self._rest)
                if written == 0:
                    raise OSError(errno.EIO, "the file took no bytes")
            except OSError as error:
                if self.error is None:
                    _LOG.error(
                        "journal `%s` cannot be written (%s): training goes on, and events wait in "
                        "memory until it can; when the queue is full they are dropped and counted",
                        self.path,
                        error,
                    )
                self.error = error
                return False
            self._rest = self._rest[written:]
        if self.error is not None:
            self.error = None
            _LOG.warning("journal `%s` is written again, from where it stopped", self.path)
        return True

    def close(self) -> None:
        """Make the file durable and let go of it; a failure is logged."""
        descriptor, self._descriptor = self._descriptor, -1
        try:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _LOG.error("journal `%s` may not outlive a power cut (%s)", self.path, error)

    def disown(self) -> None:
        """Let go of a descriptor that a fork has copied; the file stays the parent's."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _cut_to_last_line(descriptor: int) -> bytes:
    """Cut off what follows the last newline, and return the line that it ends."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    tail, start = b"", end
    while start and tail.count(b"\n") < 2:
        start = max(0, start - _BLOCK)
        os.lseek(descriptor, start, os.SEEK_SET)
        tail = os.read(descriptor, end - start)
    whole = tail[: tail.rfind(b"\n") + 1]
    os.ftruncate(descriptor, end - len(tail) + len(whole))
    return whole[:-1].rpartition(b"\n")[2]
