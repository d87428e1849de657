"""Models for images, from a thousand parameters up.

    model = create("vit", variant="tiny", image_size=32, patch_size=4, classes=10)
    logits = model(images)

What lies inside is asked for by layer, in the same forward and without hooks:

    found = model.intermediates(images, layers=(5, -1))
    found.output, found.layers[5]
"""

from __future__ import annotations

from flyball.vision.models.adaptive_cnn import AdaptiveCNN as AdaptiveCNN
from flyball.vision.models.convnext import ConvNeXtV2 as ConvNeXtV2
from flyball.vision.models.intermediates import Intermediates as Intermediates
from flyball.vision.models.positions import interpolate_positions as interpolate_positions
from flyball.vision.models.registry import create as create
from flyball.vision.models.registry import names as names
from flyball.vision.models.registry import register as register
from flyball.vision.models.resnet import ResNetCIFAR as ResNetCIFAR
from flyball.vision.models.vit import VisionTransformer as VisionTransformer

__all__ = [
    "AdaptiveCNN",
    "ConvNeXtV2",
    "Intermediates",
    "ResNetCIFAR",
    "VisionTransformer",
    "create",
    "interpolate_positions",
    "names",
    "register",
]
