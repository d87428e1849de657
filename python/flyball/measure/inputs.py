"""What a meter accepts: NumPy arrays and torch tensors, looked at in place, or refused with a remedy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import InputError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array = NDArray[Any] | torch.Tensor

_INT64 = np.dtype(np.int64)


def floats(value: Array, name: str, ndim: int, shape: str) -> tuple[NDArray[Any], str | None]:
    """Return a view of floats that Rust reads in place, of any strides, and the name of a type of 16 bits.

    Values of 16 bits come as their bits, in uint16. Only what is misaligned is copied.

    Args:
        value: An array or a tensor on the CPU; float32, float64, float16 or bfloat16.
        name: What the caller calls it.
        ndim: How many dimensions it must have.
        shape: What those are and how to get there; completes the message.

    Raises:
        InputError: It is something else.
    """
    half = None
    torch = sys.modules.get("torch")
    if torch is not None and getattr(value, "dtype", None) is torch.bfloat16:
        array, half = _brain(value, name), "bfloat16"
    else:
        array = plain(value, name)
    if array.ndim != ndim:
        raise InputError(f"`{name}` has shape {array.shape}: {shape}")
    kind = array.dtype
    if kind.char == "e" and kind.isnative:
        array, half = array.view(np.uint16), "float16"
    elif half is None and (kind.char not in "fd" or not kind.isnative):
        raise InputError(
            f"`{name}` has type {array.dtype}: pass float32, float64, float16 or bfloat16 in native byte order; "
            "`.float()` of a tensor or `.astype('float32')` of an array converts"
        )
    return (array if array.flags.aligned else array.copy()), half


def indices(value: Array, name: str, remedy: str) -> NDArray[np.int64]:
    """Return class indices as a contiguous int64 array; it is copied if it is not one.

    Raises:
        InputError: It does not have one dimension, or no integers.
    """
    array = plain(value, name)
    if array.ndim != 1:
        raise InputError(f"`{name}` has shape {array.shape}: {remedy}")
    return whole(array, name)


def whole(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return an array of integers as a contiguous one of int64.

    Raises:
        InputError: It has another type.
    """
    if array.dtype != _INT64:
        if array.dtype.kind not in "iu" or not np.can_cast(array.dtype, _INT64):
            raise InputError(
                f"`{name}` has type {array.dtype}: pass class indices as integers up to 64 bits, "
                "signed; `.long()` of a tensor or `.astype('int64')` of an array converts"
            )
        array = array.astype(_INT64)
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")


def flags(value: Array, name: str, shape: str) -> NDArray[Any]:
    """Return 0 and 1 as a contiguous 2-D array of uint8 or int64; whether they are 0 and 1, Rust looks.

    Raises:
        InputError: It does not have two dimensions, or something else than integers, bools, or floats 0 and 1.
    """
    array = plain(value, name)
    if array.ndim != 2:
        raise InputError(f"`{name}` has shape {array.shape}: {shape}")
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype.kind == "f" and bool(((array == 0.0) | (array == 1.0)).all()):
        array = array.astype(np.uint8)  # as a loss for binary labels wants them
    return np.ascontiguousarray(array) if array.dtype == np.uint8 else whole(array, name)


def plain(value: Any, name: str) -> NDArray[Any]:
    """Return an array or tensor as a NumPy array of the same memory.

    Raises:
        InputError: It is something else, or NumPy cannot look at it.
    """
    if type(value) is np.ndarray:
        return value  # the usual case, without a look at torch
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise InputError(f"`{name}` is a masked array, whose mask would be ignored: leave out masked rows")
        return value.view(np.ndarray)
    if not is_tensor(value):
        raise InputError(f"`{name}` is a {type(value).__name__}: pass a NumPy array or a torch tensor on the CPU")
    try:
        array: NDArray[Any] = value.numpy()
    except (RuntimeError, TypeError) as error:
        raise InputError(f"`{name}` {_trouble(value)}") from error
    return array


def is_tensor(value: object) -> bool:
    """Say whether this is a torch tensor; if torch is not imported, it cannot be one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def on_gpu(value: Any) -> bool:
    """Say whether this is a tensor that lives on a GPU."""
    return is_tensor(value) and bool(value.is_cuda)


def number(value: object, name: str) -> int:
    """Return a whole number that is at least 0.

    Raises:
        InputError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"`{name}` holds {value!r}: pass whole numbers")
    if not 0 <= value < 2**63:
        raise InputError(f"`{name}` holds {value}: pass a number that is not negative and fits 64 bits")
    return int(value)


def choice(value: object, name: str, allowed: tuple[str, ...]) -> str:
    """Return a word that is one of those allowed.

    Raises:
        InputError: It is something else.
    """
    if value not in allowed:
        words = ", ".join(f"`{word}`" for word in allowed)
        raise InputError(f"`{name}` is {value!r}: pass one of {words}")
    return str(value)


def _brain(tensor: Any, name: str) -> NDArray[np.uint16]:
    """Return the bits of a bfloat16 tensor, which NumPy does not know, in place."""
    if tensor.requires_grad:
        raise InputError(f"`{name}` {_trouble(tensor)}")
    try:
        bits: NDArray[np.uint16] = tensor.view(sys.modules["torch"].int16).numpy().view(np.uint16)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"`{name}` {_trouble(tensor)}") from error
    return bits


def _trouble(tensor: Any) -> str:
    """Say why NumPy cannot read the tensor, and what to do about it."""
    device = tensor.device.type
    if device == "meta":
        return "is a meta tensor, which has no values: pass the output of a real forward"
    if device != "cpu":
        return f"is on the device {tensor.device}: call `.cpu()`"
    if tensor.requires_grad:
        return "requires grad, which a meter has no use for: call `.detach()`"
    if str(tensor.layout) != "torch.strided":
        return f"has the layout {tensor.layout}, which NumPy does not have: call `.to_dense()`"
    if tensor.is_neg():
        return "is a view that torch negates when it is read: call `.resolve_neg()`"
    return f"has type {tensor.dtype}, which NumPy does not have: call `.float()`"
