"""ConvNeXt V2 (Woo et al., 2023): depth-wise convolutions, and a norm that lets channels compete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from flyball.errors import ConfigError
from flyball.vision.models.checks import share, whole
from flyball.vision.models.drop_path import DropPath, linear_rates
from flyball.vision.models.intermediates import Intermediates, wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EPS = 1e-6


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of maps (batch, channels, height, width)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps, each pixel normalised."""
        last = maps.permute(0, 2, 3, 1)
        normed = functional.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """x + weight * (x * n) + bias, n the norm of a channel over the image by the mean of all channels'.

    Args:
        channels: How many, in the last dimension.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of shape (batch, height, width, channels)."""
        norm = maps.norm(p=2, dim=(1, 2), keepdim=True)
        norm = norm / (norm.mean(dim=-1, keepdim=True) + _EPS)
        return maps + torch.addcmul(self.bias.view(1, 1, 1, -1), self.weight.view(1, 1, 1, -1), maps * norm)


class Mlp(nn.Module):
    """Four times as wide, with a `GlobalResponseNorm` inside.

    Args:
        channels: How many come in and go out, in the last dimension.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.grn = GlobalResponseNorm(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of shape (batch, height, width, channels)."""
        found: torch.Tensor = self.fc2(self.grn(functional.gelu(self.fc1(maps))))
        return found


class Block(nn.Module):
    """A depth-wise convolution of 7 x 7, a norm and an `Mlp`, beside the shortcut.

    Args:
        channels: How many come in and go out.
        drop_path: How often the branch is left out in training.
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = Mlp(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the block's maps."""
        branch = self.mlp(self.norm(self.conv_dw(maps).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        found: torch.Tensor = self.drop_path(branch) + maps
        return found


class Stage(nn.Module):
    """Half the size, unless it is the first, then blocks.

    Args:
        channels: How many come in.
        out_channels: How many go out.
        rates: How often the branch of each block is left out in training.
        halve: Whether height and width are halved first.
    """

    def __init__(self, channels: int, out_channels: int, rates: Sequence[float], *, halve: bool) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if halve:
            self.downsample = nn.Sequential(ChannelNorm(channels, eps=_EPS), nn.Conv2d(channels, out_channels, 2, 2))
        self.blocks = nn.Sequential(*(Block(out_channels, rate) for rate in rates))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the stage's maps."""
        found: torch.Tensor = self.blocks(self.downsample(maps))
        return found


class Head(nn.Module):
    """The mean over the image, a norm, and the scores.

    Args:
        channels: How many come in.
        classes: How many scores come out.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, eps=_EPS)
        self.fc = nn.Linear(channels, classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        pooled = self.norm(functional.adaptive_avg_pool2d(maps, 1))
        scores: torch.Tensor = self.fc(pooled.flatten(1))
        return scores


class ConvNeXtV2(nn.Module):
    """ConvNeXt V2; with its defaults the tiny one, with a stem for small images.

    The names of its parameters are timm's, so that a checkpoint of `convnextv2_tiny` loads as it is with `stem=4`.

    Args:
        channels: Of the images.
        classes: How many scores come out.
        depths: How many blocks each stage has.
        widths: How many channels each stage has.
        stem: Height and width of the squares that the stem makes one pixel of: 2 for small images, 4 for large ones.
        drop_path: How often the branch of the last block is left out in training; it rises to that from 0.

    Raises:
        ConfigError: `depths` and `widths` differ in length, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        classes: int = 10,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        stem: int = 2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        whole(channels=channels, classes=classes, stem=stem)
        share(drop_path=drop_path)
        if len(depths) != len(widths) or not depths:
            raise ConfigError(f"`depths` is {depths!r} and `widths` is {widths!r}: give one width for each stage")
        for depth, width in zip(depths, widths, strict=True):
            whole(depths=depth, widths=width)
        self.stem = nn.Sequential(nn.Conv2d(channels, widths[0], stem, stem), ChannelNorm(widths[0], eps=_EPS))
        rates = linear_rates(drop_path, sum(depths))
        self.stages = nn.ModuleList()
        before = widths[0]
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            self.stages.append(Stage(before, width, rates[:depth], halve=index > 0))
            rates, before = rates[depth:], width
        self.head = Head(before, classes)
        self.apply(_initialize)

    def cam_layer(self) -> nn.Module:
        """Return the module whose output shows which part of an image speaks for a class."""
        return self.stages[-1]

    @property
    def depth(self) -> int:
        """How many layers `intermediates` can show."""
        return len(self.stages)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        maps = self.stem(images)
        for stage in self.stages:
            maps = stage(maps)
        scores: torch.Tensor = self.head(maps)
        return scores

    def intermediates(self, images: torch.Tensor, layers: Iterable[int]) -> Intermediates:
        """Return the scores, and the maps behind some stages.

        Raises:
            InputError: There is no such stage.
        """
        places = wanted(layers, len(self.stages))
        maps, behind = self.stem(images), []
        for stage in self.stages:
            maps = stage(maps)
            behind.append(maps)
        return Intermediates(self.head(maps), {layer: behind[at] for layer, at in places.items()})


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
