"""ResNet-18 (He et al., 2016) for images of 32 x 32: a stem of stride 1, and no pool behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from flyball.errors import ConfigError
from flyball.vision.models.adaptive_cnn import ResidualBlock
from flyball.vision.models.checks import whole
from flyball.vision.models.intermediates import Intermediates, wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ResNetCIFAR(nn.Module):
    """A residual network of basic blocks; with its defaults ResNet-18.

    Args:
        channels: Of the images.
        classes: How many scores come out.
        blocks: How many blocks each stage has.
        widths: How many channels each stage has.

    Raises:
        ConfigError: `blocks` and `widths` differ in length, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        classes: int = 10,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__()
        whole(channels=channels, classes=classes)
        if len(blocks) != len(widths) or not blocks:
            raise ConfigError(f"`blocks` is {blocks!r} and `widths` is {widths!r}: give one width for each stage")
        for count, width in zip(blocks, widths, strict=True):
            whole(blocks=count, widths=width)
        self.conv = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList()
        before = widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            entries = [before] + [width] * (count - 1)
            self.stages.append(
                nn.Sequential(
                    *(ResidualBlock(c, width, s, squeeze=False) for c, s in zip(entries, strides, strict=True))
                )
            )
            before = width
        self.head = nn.Linear(before, classes)
        self.apply(_initialize)

    def cam_layer(self) -> nn.Module:
        """Return the module whose output shows which part of an image speaks for a class."""
        return self.stages[-1]

    @property
    def depth(self) -> int:
        """How many layers `intermediates` can show."""
        return len(self.stages) + 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        maps = functional.relu(self.norm(self.conv(images)))
        for stage in self.stages:
            maps = stage(maps)
        scores: torch.Tensor = self.head(maps.mean((2, 3)))
        return scores

    def intermediates(self, images: torch.Tensor, layers: Iterable[int]) -> Intermediates:
        """Return the scores, and the maps behind some stages: 0 is the stem, the others follow.

        Raises:
            InputError: There is no such stage.
        """
        places = wanted(layers, len(self.stages) + 1)
        behind = [functional.relu(self.norm(self.conv(images)))]
        for stage in self.stages:
            behind.append(stage(behind[-1]))
        return Intermediates(self.head(behind[-1].mean((2, 3))), {layer: behind[at] for layer, at in places.items()})


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)
