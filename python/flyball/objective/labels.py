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


def explain_range(scores: Tensor, targets: Tensor, ignore_index: int) -> InputError:
    """Say which label is out of range."""
    wrong = targets[classes_out_of_range(scores, targets, ignore_index)]
    classes = scores.shape[1]
    return InputError(
        f"`targets` holds the label {int(wrong[0])}, and the model scores {classes} classes, 0 to {classes - 1}: "
        f"mend the labels or the last layer; a label that does not count is {ignore_index} (`ignore_index`)"
    )


def explain_sums(targets: Tensor) -> InputError:
    """Say which row of probabilities does not sum to 1."""
    sums = targets.detach().sum(1).flatten()
    worst = float(sums[(sums - 1.0).abs().nan_to_num(torch.inf).argmax()])
    return InputError(
        f"`targets` holds probabilities that sum to {worst:.4g}, and one class of several is right: "
        "several labels at once are `Task('binary')`; for class indices, pass integers"
    )


def explain_probabilities(targets: Tensor) -> InputError:
    """Say which yes-or-no target is no probability."""
    low, high = (float(end) for end in targets.detach().aminmax())
    return InputError(
        f"`targets` goes from {low:.4g} to {high:.4g}, and each label is 0 for no, 1 for yes, or between: "
        "one class of several, as an index, is `Task()`"
    )


def trouble(scores: Tensor, targets: Tensor, *, ignore_index: int) -> InputError | None:
    """Return why classes and scores do not fit, after torch has refused them; None if they do."""
    if targets.is_floating_point() or scores.dim() < 2 or targets.shape != scores.shape[:1] + scores.shape[2:]:
        return wrong_shapes(
            scores, targets, "one class index for each row, or probabilities in the shape of the scores"
        )
    if bool(classes_out_of_range(scores, targets, ignore_index).any()):
        return explain_range(scores, targets, ignore_index)
    return None


def wrong_shapes(scores: Tensor, targets: Tensor, wanted: str) -> InputError:
    """Say that the shapes of scores and targets do not fit."""
    return InputError(
        f"`targets` is {_shown(targets)} and the scores are {_shown(scores)}: pass {wanted}, "
        "or say with `output=` which part of the model's outputs is the scores"
    )


def _shown(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
