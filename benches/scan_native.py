"""Hyperscan as a C library, built on the spot; only where its headers are (Debian: `libhyperscan-dev`)."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("hyperscan.c")


class NotHereError(Exception):
    """The machine has no Hyperscan to build against; the message says what is missing."""


class Hyperscan:
    """Scans texts that lie one behind the other, as a column of Arrow does, in one call."""

    def __init__(self, patterns: list[str], texts: list[str], *, utf8: bool = False) -> None:
        self._library = _library()
        encoded = [one.encode() for one in patterns]
        self._scanner = self._library.scanner_new((ctypes.c_char_p * len(encoded))(*encoded), len(encoded), int(utf8))
        if not self._scanner:
            raise NotHereError("Hyperscan refuses the patterns")
        raw = [one.encode() for one in texts]
        self._texts = b"".join(raw)
        self._offsets = np.concatenate([[0], np.cumsum([len(one) for one in raw])]).astype(np.int64)
        self._pairs = np.zeros((len(texts) * 16, 2), np.int32)

    @property
    def info(self) -> str:
        """Version and instruction set, as the library says."""
        return str(ctypes.string_at(self._library.scanner_info(self._scanner)).decode())

    def scan(self) -> int:
        """Scan all texts; return the number of pairs."""
        count: int = self._library.scanner_scan(
            self._scanner, self._texts, self._offsets.ctypes.data, len(self._offsets) - 1,
            self._pairs.ctypes.data, len(self._pairs),
        )  # fmt: skip
        assert 0 <= count <= len(self._pairs)
        return count

    def pairs(self) -> list[tuple[int, int]]:
        """Return every (text, rule), in order."""
        return sorted((int(text), int(rule)) for text, rule in self._pairs[: self.scan()])


def _library() -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotHereError("there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "hyperscan.so"
        command = [compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(built), "-lhs"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own source
        if done.returncode:
            raise NotHereError(f"`{SOURCE.name}` does not build: {done.stderr.splitlines()[0]}")
        library = ctypes.CDLL(str(built))  # stays loaded when the file is gone
    library.scanner_new.restype = library.scanner_info.restype = ctypes.c_void_p
    library.scanner_info.argtypes = [ctypes.c_void_p]
    library.scanner_scan.restype = ctypes.c_int64
    library.scanner_scan.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64,
    ]  # fmt: skip
    return library
