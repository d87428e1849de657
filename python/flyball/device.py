"""Where torch is first touched: which device and which precision to compute in.

A device is chosen once, and refused by name when it cannot train: torch accepts `meta`, for one, without a word, and
then trains nothing at all.
"""

from __future__ import annotations

import torch

from flyball.errors import DeviceError

# In the order of preference of "auto". Others exist in torch, but nothing here has ever been run on them.
TRAINABLE = ("cuda", "xpu", "mps", "cpu")

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(request: str | torch.device = "auto") -> torch.device:
    """Return the device to train on: the best one present for "auto", else the one asked for.

    Args:
        request: "auto", a name such as "cpu" or "cuda:1", or a `torch.device`.

    Raises:
        DeviceError: The device has no such name, is not present, or does not train.
    """
    if request == "auto":
        return next(torch.device(kind) for kind in TRAINABLE if _count(kind))
    try:
        device = torch.device(request)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"`device` is {request!r}, which torch does not know: use 'auto' or one of {_listing(TRAINABLE)}"
        ) from error
    if device.type not in TRAINABLE:
        raise DeviceError(
            f"`device` is '{device}', which does not train here: use 'auto' or one of {_listing(TRAINABLE)}"
        )
    present = _count(device.type)
    if (device.index or 0) >= present:
        here = [kind for kind in TRAINABLE if _count(kind)]
        raise DeviceError(
            f"`device` is '{device}', but this machine has {present or 'no'} {device.type} "
            f"device{'' if present == 1 else 's'}: use 'auto' or one of {_listing(here)}"
        )
    return device


def choose_dtype(precision: str = "auto", device: torch.device | None = None) -> torch.dtype:
    """Return the dtype in which to compute the forward pass on `device`.

    "auto" is bfloat16 where the hardware computes in it, else float32. float16 is never chosen
    unasked: it needs a loss scaler.

    Args:
        precision: "auto", "fp32", "bf16" or "fp16".
        device: The device to compute on; by default the one that `choose_device` finds.

    Raises:
        DeviceError: The precision has no such name, or is float16 on the CPU.
    """
    device = choose_device() if device is None else device
    if precision == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if precision not in _PRECISIONS:
        raise DeviceError(
            f"`precision` is {precision!r}, which is not a precision: "
            f"use 'auto' or one of {_listing(tuple(_PRECISIONS))}"
        )
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("`precision` is 'fp16' on 'cpu', where it is slow and overflows: use 'bf16' or 'fp32'")
    return _PRECISIONS[precision]


def _count(kind: str) -> int:
    """Count the devices of a kind that are present."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = torch.cuda if kind == "cuda" else torch.xpu
    return module.device_count() if module.is_available() else 0


def _listing(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
