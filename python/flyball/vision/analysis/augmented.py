"""What a model says of an image and of images that mean the same: the mean of its probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from flyball import outputs
from flyball.errors import InputError
from flyball.vision.analysis.kept import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    View = Callable[[torch.Tensor], torch.Tensor]


def augmented_probabilities(model: nn.Module, images: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
    """Return the mean of the probabilities over the images as they are and each view of them.

    Args:
        model: The model.
        images: (batch, channels, height, width).
        views: What else shows the same, such as `shifts()`; at least one, or nothing would be augmented.

    Raises:
        InputError: There are no views.
    """
    if not views:
        raise InputError("`views` is empty, which would be the model's own answer: pass some, such as `shifts()`")
    with evaluating(model), torch.no_grad():
        found = [outputs.scores(model(view(images))).float().softmax(1) for view in (lambda same: same, *views)]
    return torch.stack(found).mean(0)


def shifts(pixels: int = 1, *, flip: bool = False) -> list[View]:
    """Return views shifted in the eight directions, the border repeated; for photographs, mirrored ones too.

    Args:
        pixels: How far.
        flip: Whether left and right can be exchanged: in photographs, not in writing.

    Raises:
        InputError: `pixels` is below 1.
    """
    if pixels < 1:
        raise InputError(f"`pixels` is {pixels}: pass at least 1")
    steps = [(down, right) for down in (-pixels, 0, pixels) for right in (-pixels, 0, pixels) if down or right]
    views: list[View] = [_shifted(down, right, pixels) for down, right in steps]
    return [*views, lambda images: images.flip(-1)] if flip else views


def _shifted(down: int, right: int, pixels: int) -> View:
    def view(images: torch.Tensor) -> torch.Tensor:
        wide = torch.nn.functional.pad(images, (pixels,) * 4, mode="replicate")
        height, width = images.shape[-2:]
        return wide[..., pixels - down : pixels - down + height, pixels - right : pixels - right + width]

    return view
