"""Three ways of training a host with a seed inside; the step is the same, only the list of optimizers differs.

normal       the host alone
incubator    both: the seed learns from the host's gradient, and what it computes does not reach the output
blended      the host, and the seed if it still learns; the seed's output is mixed in
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

Mode = Literal["normal", "incubator", "blended"]


def optimizers_for(
    mode: Mode, host: torch.optim.Optimizer, seed: torch.optim.Optimizer | None = None
) -> list[torch.optim.Optimizer]:
    """Return the optimizers that a mode steps, for `train_step` and `train_epoch`.

    Raises:
        InputError: The mode is not known, needs the seed's optimizer, or has no use for one.
    """
    if mode not in {"normal", "incubator", "blended"}:
        raise InputError(f"`mode` is {mode!r}: use 'normal', 'incubator' or 'blended'")
    if mode == "incubator" and seed is None:
        raise InputError("`mode` is 'incubator', in which the seed learns, and `seed` is None: pass its optimizer")
    if mode == "normal" and seed is not None:
        raise InputError("`mode` is 'normal', in which there is no seed, and `seed` is an optimizer: leave it out")
    return [host] if seed is None else [host, seed]


class _PassThrough(torch.autograd.Function):
    """The host's values, and its gradient to both."""

    @staticmethod
    def forward(host: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:  # noqa: ARG004 -- that is the point
        return host.view_as(host)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG004
        return gradient, gradient


def pass_through(host: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """Return the host's values bit for bit; in the backward both get the gradient.

    There is no arithmetic on the seed's values, so a seed that is not finite reaches nothing.

    Raises:
        InputError: They differ in shape, type or device.
    """
    if host.shape != seed.shape or host.dtype is not seed.dtype or host.device != seed.device:
        raise InputError(
            f"the seed gave {_shown(seed)}, and the host has {_shown(host)}: a seed keeps the shape, the type and the "
            "device that it is given"
        )
    passed: torch.Tensor = _PassThrough.apply(host, seed)
    return passed


def incubate(host: torch.Tensor, seed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Let a seed learn on the host's features without touching them: output and host gradients are as without it."""
    # Contiguous: torch has crashed in the backward of features that were detached in channels-last.
    return pass_through(host, seed(host.detach().contiguous()))


def blend(host: torch.Tensor, seed: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Return host + alpha (seed - host).

    Args:
        host: The host's features.
        seed: The seed's.
        alpha: A tensor, so that a compiled step is not compiled anew when it changes.
    """
    return torch.lerp(host, seed, alpha.to(host.dtype))


def _shown(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
