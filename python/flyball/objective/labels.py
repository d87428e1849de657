"""Targets that cannot be what they are said to be, found out without waiting for a device.

On the CPU they are refused at once. On another device reading an answer would stall every step, and a label out of
range would end the process with an assertion. So the answer stays there: it makes the loss not a number, which nobody
mistakes for a good one, and whoever reads that can have it explained by `Outcome.verify`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from flyball.objective.context import StepContext


def look(broken: Tensor, explain: Callable[[], InputError], step: StepContext) -> Tensor | None:
    """Refuse a batch at once where that is free; else return what to multiply its loss with.

    Raises:
        InputError: It is broken, and the answer was at hand.
    """
    if not at_hand(broken):
        step.check(broken, explain)
        return torch.where(broken, torch.nan, 1.0)
    if bool(broken):
        raise explain()
    return None


def at_hand(tensor: Tensor) -> bool:
    """Say whether a value can be read without waiting for a device."""
    return tensor.is_cpu


def classes_out_of_range(scores: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Return which class indices the scores have no class for."""
    return ((targets < 0) | (targets >= scores.shape[1])) & (targets != ignore_index)


def range_check(scores: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Callable[[], InputError]]:
    """Return which labels are out of range, whether any is, and what says so.

    What says so holds two numbers and not the batch, because many of them may be kept until somebody reads the device.
    """
    wrong = classes_out_of_range(scores, targets, ignore_index)
    low, high = torch.where(wrong, targets, 0).aminmax()
    classes = scores.shape[1]
    return (
        wrong,
        wrong.any(),
        lambda: explain_range(int(high) if int(high) >= classes else int(low), classes, ignore_index),
    )


def explain_range(label: int, classes: int, ignore_index: int) -> InputError:
    """Say which label is out of range."""
    return InputError(
        f"`targets` holds the label {label}, and the model scores {classes} classes, 0 to {classes - 1}: "
        f"mend the labels or the last layer; a label that does not count is {ignore_index} (`ignore_index`)"
    )


def sums_check(targets: Tensor, tolerance: float) -> tuple[Tensor, Callable[[], InputError]]:
    """Return whether a row of probabilities does not sum to 1, and what says so."""
    sums = targets.detach().sum(1).flatten()
    off = (sums - 1.0).abs()
    worst = sums[off.nan_to_num(torch.inf).argmax()]
    return ~(off <= tolerance).all(), lambda: InputError(
        f"`targets` holds probabilities that sum to {float(worst):.4g}, and one class of several is right: "
        "several labels at once are `Task('binary')`; for class indices, pass integers"
    )


def probabilities_check(targets: Tensor) -> tuple[Tensor, Callable[[], InputError]]:
    """Return whether a yes-or-no target is no probability, and what says so."""
    low, high = targets.detach().aminmax()
    return ~((low >= 0) & (high <= 1)), lambda: InputError(
        f"`targets` goes from {float(low):.4g} to {float(high):.4g}, and each label is 0 for no, 1 for yes, or "
        "between: one class of several, as an index, is `Task()`"
    )


def trouble(scores: Tensor, targets: Tensor, *, ignore_index: int) -> InputError | None:
    """Return why classes and scores do not fit, after torch has refused them; None if they do."""
    if targets.is_floating_point() or scores.dim() < 2 or targets.shape != scores.shape[:1] + scores.shape[2:]:
        return wrong_shapes(
            scores, targets, "one class index for each row, or probabilities in the shape of the scores"
        )
    wrong = targets[classes_out_of_range(scores, targets, ignore_index)]
    if len(wrong):
        return explain_range(int(wrong[0]), scores.shape[1], ignore_index)
    return None


def wrong_shapes(scores: Tensor, targets: Tensor, wanted: str) -> InputError:
    """Say that the shapes of scores and targets do not fit."""
    return InputError(
        f"`targets` is {_shown(targets)} and the scores are {_shown(scores)}: pass {wanted}, "
        "or say with `output=` which part of the model's outputs is the scores"
    )


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
