"""Which part of an image speaks for a class: Grad-CAM (Selvaraju et al., 2017), of convolutions and of patches.

CAM = relu(sum over channels of w A), w the mean gradient of the class's score over the map, for each image by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from flyball import outputs
from flyball.errors import InputError
from flyball.vision.analysis.kept import evaluating

if TYPE_CHECKING:
    from torch import nn


def grad_cam(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor | None = None, *, layer: nn.Module | None = None
) -> torch.Tensor:
    """Return how much each pixel speaks for a class, (batch, height, width), the most of each image being 1.

    An image in which nothing speaks for the class is 0 everywhere.

    Args:
        model: The model.
        images: (batch, channels, height, width).
        classes: Which class of each image; by default the one that the model finds.
        layer: The module whose output is looked at: maps (batch, channels, height, width), or tokens of which the
            model's `special` first are no patches of its grid. By default what the model's `cam_layer()` says: the last
            maps, or the norm before the last attention, since no score depends on the patches behind it.

    Raises:
        InputError: The model does not say which layer, or the layer had no part in the scores.
    """
    if layer is None:
        say = getattr(model, "cam_layer", None)
        if say is None:
            raise InputError(f"the model is a {type(model).__name__}, which has no `cam_layer()`: pass `layer=`")
        layer = say()
    seen: list[torch.Tensor] = []

    def see(_: nn.Module, __: Any, found: torch.Tensor) -> torch.Tensor:
        # As its own leaf where nothing before it is trained.
        kept = found if found.requires_grad else found.detach().requires_grad_()
        seen.append(kept)
        return kept

    with evaluating(model), torch.enable_grad():
        handle = layer.register_forward_hook(see)
        try:
            scores = outputs.scores(model(images))
        finally:
            handle.remove()
        if not seen:
            raise InputError(f"the layer is a {type(layer).__name__}, which had no part in the scores: pass another")
        wanted = scores.detach().argmax(1) if classes is None else classes.to(scores.device)
        (slopes,) = torch.autograd.grad(scores.gather(1, wanted[:, None]).sum(), seen[-1])
    maps, slopes = (_as_maps(part.detach().float(), model, images) for part in (seen[-1], slopes))
    cam = (slopes.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    cam = functional.interpolate(cam[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    most = cam.amax((1, 2), keepdim=True)
    return torch.where(most > 0, cam / most, 0.0)


def _as_maps(found: torch.Tensor, model: Any, images: torch.Tensor) -> torch.Tensor:
    if found.dim() == 4:
        return found
    patch, special = getattr(model, "patch_size", None), getattr(model, "special", 0)
    if found.dim() != 3 or patch is None:
        raise InputError(f"the layer gives a tensor of shape {tuple(found.shape)}, which is neither maps nor patches")
    grid = (images.shape[2] // patch[0], images.shape[3] // patch[1])
    return found[:, special:].transpose(1, 2).reshape(len(found), -1, *grid)
