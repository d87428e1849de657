"""What each row of logits says, computed by torch where the logits are.

This is the seam for a kernel: one that fills the same columns takes the place of `outcomes`. The results are those of
the Rust core up to rounding (double precision here; there, single precision for single logits), with the same order
of ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flyball.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def outcomes(
    logits: torch.Tensor, targets: Any, classes: int, *, leave_out: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Return target, prediction and rank; loss, odds against and Brier score; and how many rows are left out.

    The logits stay where they are; three integers and three doubles for each row are copied to the CPU.

    Raises:
        InputError: A tensor has the wrong type, shape or values.
    """
    labels = _checked(logits, targets, classes)
    wide = logits.double()
    finite = wide.isfinite().all(1)
    first_bad = int((~finite).int().argmax()) if len(finite) else 0
    if not leave_out and len(finite) and not bool(finite[first_bad]):
        column = int((~wide[first_bad].isfinite()).int().argmax())
        raise InputError(
            f"`logits` holds {float(wide[first_bad, column])} in row {first_bad}, column {column}: a logit must be "
            "finite; look for the step that made it, or leave the row out"
        )
    wide, labels = wide[finite], labels[finite]
    own = wide.gather(1, labels[:, None])
    top = wide.amax(1, keepdim=True)
    places = torch.arange(classes, device=wide.device)
    before = (wide > own) | ((wide == own) & (places < labels[:, None]))
    predicted = torch.where(wide == top, places, classes).amin(1, keepdim=True)
    exp = (wide - top).exp().scatter(1, predicted, 0.0)
    against = exp.sum(1, keepdim=True)
    total = 1.0 + against
    shares = exp.scatter(1, predicted, 1.0) / total
    hit = predicted == labels[:, None]
    miss = torch.where(hit, against / total, 1.0 - shares.gather(1, labels[:, None]))
    brier = miss.square() + shares.scatter(1, labels[:, None], 0.0).square().sum(1, keepdim=True)
    nll = (top - own) + against.log1p()
    whole = torch.cat([labels[:, None], predicted, before.sum(1, keepdim=True)], 1)
    real = torch.cat([nll, against, brier.clamp(max=2.0)], 1)
    return whole.cpu().numpy(), real.cpu().numpy(), len(finite) - len(wide)


def _checked(logits: torch.Tensor, targets: Any, classes: int) -> torch.Tensor:
    if logits.requires_grad:
        raise InputError("`logits` requires grad, which a meter has no use for: call `.detach()`")
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise InputError(
            f"`logits` has shape {tuple(logits.shape)}: pass a row for each sample and {classes} columns, one for "
            "each class"
        )
    if not logits.is_floating_point():
        raise InputError(f"`logits` has type {logits.dtype}: pass floats; `.float()` converts")
    if isinstance(targets, np.ndarray):
        targets = torch.from_numpy(targets)
    if not isinstance(targets, torch.Tensor):
        raise InputError(f"`targets` is a {type(targets).__name__}: pass a NumPy array or a torch tensor")
    if targets.ndim != 1 or len(targets) != len(logits):
        raise InputError(
            f"`targets` has shape {tuple(targets.shape)}, but `logits` has {len(logits)} rows: pass one class index "
            "for each row"
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise InputError(f"`targets` has type {targets.dtype}: pass class indices as integers; `.long()` converts")
    labels = targets.to(logits.device, torch.int64)
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        row = int(outside.int().argmax())
        raise InputError(
            f"`targets` holds {int(labels[row])} in row {row}: with {classes} classes a target must be between 0 and "
            f"{classes - 1}; leave out rows without a label"
        )
    return labels
