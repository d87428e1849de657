"""The losses of a task, as functions of scores and targets: one value for each sample or token, and their mean.

The mean over elements with weights w and a mask m is sum(w m l) / sum(w m). All of it is computed in float32 at least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


def counted(weight: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return how much each element counts; None if all count alike."""
    if mask is None:
        return None if weight is None else weight.float()
    return mask.float() if weight is None else mask * weight.float()


def spread(counts: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Return the counts of samples as those of each of their elements."""
    if counts is None or counts.dim() >= len(shape):
        return counts
    return counts.reshape(*counts.shape, *(1,) * (len(shape) - counts.dim())).expand(shape)


def mean_of(values: Tensor, counts: Tensor | None, divisor: Tensor | None = None) -> Tensor:
    """Return the weighted mean; not a number if nothing counts.

    Args:
        values: One value for each element; dimensions that `counts` lacks are averaged first.
        counts: How much each element counts.
        divisor: What to divide by the sum of, where that is not `counts`.
    """
    if counts is None:
        return values.mean()
    if values.dim() > counts.dim():
        values = values.flatten(counts.dim()).mean(-1)
    # What does not count may be anything, also not a number, which would survive being multiplied with 0.
    return torch.where(counts != 0, values * counts, 0.0).sum() / (counts if divisor is None else divisor).sum()


def cross_entropy(
    scores: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = IGNORED,
    gamma: float = 0.0,
    counts: Tensor | None = None,
) -> Tensor:
    """Return the mean of -sum q log p, where q is the target's distribution, smoothed.

    Args:
        scores: Logits, the classes in dimension 1.
        targets: Class indices, or probabilities in the shape of `scores`.
        smoothing: s in q = (1 - s) onehot + s / C.
        class_weight: How much each class counts; the mean divides by the sum of those used.
        ignore_index: The class index that does not count.
        gamma: Above 0, the focal loss: each element is multiplied with (1 - p)^gamma, p being the target's probability
            (Lin et al., 2017); its mean is over the elements, whatever their class counts.
        counts: How much each element counts.
    """
    if gamma == 0.0 and counts is None:
        return functional.cross_entropy(
            scores, targets, class_weight, ignore_index=ignore_index, label_smoothing=smoothing
        )

    def each(of_class: Tensor | None, reduction: str) -> Tensor:
        return functional.cross_entropy(
            scores, targets, of_class, ignore_index=ignore_index, label_smoothing=smoothing, reduction=reduction
        )

    values, divisor = each(class_weight, "none"), None
    counts = spread(counts, values.shape)
    if not targets.is_floating_point():
        used = targets != ignore_index
        counts = used.float() if counts is None else counts * used
        if class_weight is not None and not gamma:
            divisor = counts * class_weight[torch.where(used, targets, 0)]
    if gamma:
        values = values * (-torch.expm1(-each(None, "none"))) ** gamma
    return mean_of(values, counts, divisor)


def binary(
    scores: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    pos_weight: Tensor | None = None,
    gamma: float = 0.0,
    counts: Tensor | None = None,
) -> Tensor:
    """Return the mean of the cross-entropy of independent yes-or-no labels.

    Args:
        scores: Logits.
        targets: The probability of yes, in the shape of `scores`.
        smoothing: s in y (1 - s) + s / 2.
        pos_weight: How much a yes counts, for each label or all.
        gamma: Above 0, the focal loss: yes and no are each multiplied with (1 - p)^gamma, p being their probability.
        counts: How much each sample, or label, counts.
    """
    targets = targets.to(scores.dtype)
    if smoothing:
        targets = targets * (1.0 - smoothing) + smoothing / 2.0
    if gamma:
        yes = -functional.logsigmoid(scores) * torch.sigmoid(-scores) ** gamma
        no = -functional.logsigmoid(-scores) * torch.sigmoid(scores) ** gamma
        values = targets * yes * (1.0 if pos_weight is None else pos_weight) + (1.0 - targets) * no
        return mean_of(values, counts)
    reduction = "mean" if counts is None else "none"
    values = functional.binary_cross_entropy_with_logits(scores, targets, pos_weight=pos_weight, reduction=reduction)
    return values if counts is None else mean_of(values, counts)


def regression(
    scores: Tensor, targets: Tensor, kind: str, *, delta: float = 1.0, counts: Tensor | None = None
) -> Tensor:
    """Return the mean squared, absolute or Huber's error.

    Args:
        scores: What was predicted.
        targets: What is true, in the same shape.
        kind: "mse", "l1" or "huber".
        delta: Where Huber's error goes over from a square to a straight line.
        counts: How much each sample, or element, counts.
    """
    targets = targets.to(scores.dtype)
    reduction = "mean" if counts is None else "none"
    if kind == "mse":
        values = functional.mse_loss(scores, targets, reduction=reduction)
    elif kind == "l1":
        values = functional.l1_loss(scores, targets, reduction=reduction)
    else:
        values = functional.huber_loss(scores, targets, reduction=reduction, delta=delta)
    return values if counts is None else mean_of(values, counts)


def class_weights(counts: Tensor) -> Tensor:
    """Return weights N / (C N_c), under which every class counts alike.

    Args:
        counts: How many samples each class has; a class without any gets the weight 0.
    """
    counts = counts.double()
    weights = counts.sum() / (len(counts) * counts)
    return torch.where(counts > 0, weights, 0.0).float()


def positive_weights(rates: Tensor) -> Tensor:
    """Return weights (1 - r) / r for the yes of each label, kept between 0.1 and 100.

    Args:
        rates: How often each label is yes.
    """
    return ((1.0 - rates.double()) / rates.double()).clamp(0.1, 100.0).float()
