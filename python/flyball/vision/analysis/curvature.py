"""How sharp the loss is about the weights: the trace of its Hessian, by Hutchinson's estimator (1990).

For z of random signs E[z' H z] = tr H. The estimate comes with its standard error, which falls with the root of the
number of probes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flyball.batch import read
from flyball.errors import InputError
from flyball.vision.analysis.kept import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Trace:
    """The trace of a Hessian, estimated.

    Attributes:
        value: The estimate.
        error: Its standard error.
        probes: How many random vectors it was estimated with.
        parameters: How many weights the Hessian has rows for.
    """

    value: float
    error: float
    probes: int
    parameters: int

    def __str__(self) -> str:
        return f"trace {self.value:.4g} ± {self.error:.2g} ({self.probes} probes, {self.parameters:,} weights)"


def hessian_trace(
    model: nn.Module,
    batch: Any,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
    *,
    probes: int = 32,
    seed: int = 0,
) -> Trace:
    """Return the trace of the Hessian of the loss with respect to all trainable weights.

    The model is in evaluation mode and full precision, and attention is computed by the kernel that can be
    differentiated twice.

    Args:
        model: The model.
        batch: One batch, as a loader gives it.
        loss: A function of model and batch; by default the cross-entropy of the targets.
        probes: How many random vectors; at least 2, or there is no error to tell.
        seed: Of the vectors.

    Raises:
        InputError: Nothing is trainable, too few probes, or the loss is no finite number.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not weights or probes < 2:
        raise InputError(
            f"`model` has {len(weights)} trainable tensors and `probes` is {probes}: at least 1 and 2 are needed"
        )
    batch = read(batch)
    measure = _cross_entropy if loss is None else loss
    generator = torch.Generator().manual_seed(seed)
    found = []
    with (
        evaluating(model),
        torch.enable_grad(),
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
        torch.autocast(weights[0].device.type, enabled=False),
    ):
        value = measure(model, batch)
        if not value.isfinite():
            raise InputError(f"the loss is {value.item()}: there is no curvature to measure")
        gradients: Any = torch.autograd.grad(value, weights, create_graph=True, allow_unused=True)
        used = [(weight, grad) for weight, grad in zip(weights, gradients, strict=True) if grad is not None]
        for probe in range(probes):
            signs = [torch.randint(0, 2, grad.shape, generator=generator).to(grad).mul_(2).sub_(1) for _, grad in used]
            along = sum(((grad * sign).sum() for (_, grad), sign in zip(used, signs, strict=True)), value.new_zeros(()))
            products: Any = (
                torch.autograd.grad(
                    along, [weight for weight, _ in used], retain_graph=probe < probes - 1, allow_unused=True
                )
                if along.requires_grad
                else [None] * len(used)
            )
            found.append(
                sum(
                    float((sign.double() * product.double()).sum())
                    for sign, product in zip(signs, products, strict=True)
                    if product is not None
                )
            )
    mean = sum(found) / probes
    variance = sum((one - mean) ** 2 for one in found) / (probes - 1)
    return Trace(mean, math.sqrt(variance / probes), probes, sum(weight.numel() for weight in weights))


def _cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch.inputs), batch.targets)
