"""Pickles that hold arrays and plain data alone: nothing else in them is looked up, so nothing can run."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

from flyball.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which no array needs")
        return super().find_class(module, name)


def load(held: bytes, path: Path) -> Any:
    """Return what a pickle holds; strings of Python 2 stay bytes.

    Raises:
        InputError: It is cut short, or asks for anything but arrays and plain data.
    """
    try:
        return _Unpickler(io.BytesIO(held), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"`{path}` is refused as a pickle of arrays: {error}") from error
