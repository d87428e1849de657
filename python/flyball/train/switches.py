"""Switches of torch that are the whole process's: set while a run trains, and put back as they were."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def switched(*, tf32: bool | None, deterministic: bool) -> Iterator[None]:
    """Set the switches within; afterwards they are as before, come what may.

    Args:
        tf32: Whether products of float32 may be rounded to TF32 on a GPU; None leaves that as it is.
        deterministic: Whether torch refuses what does not give the same numbers twice, and chooses kernels that do.
    """
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if tf32 is not None:
            products.allow_tf32 = convolutions.allow_tf32 = tf32
        if deterministic:
            convolutions.benchmark = False
            torch.use_deterministic_algorithms(mode=True)
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = before
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
