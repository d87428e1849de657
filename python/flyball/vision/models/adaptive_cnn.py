"""A residual network with squeeze-and-excitation gates (Hu et al., 2018), built from a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from flyball.errors import ConfigError
from flyball.vision.models.checks import share, whole
from flyball.vision.models.intermediates import Intermediates, wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Stage:
    """One entry of a plan.

    Attributes:
        type: "conv" for a convolution, norm and ReLU; "residual" for a residual block.
        out_channels: How many channels come out.
        kernel_size: Of the convolution; a residual block has 3.
        stride: How many pixels become one, in each direction.
        padding: Of the convolution; by default half of the kernel.
        pool: Whether a max-pool by 2 follows the convolution.
    """

    type: Literal["conv", "residual"]
    out_channels: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    pool: bool = False

    def __post_init__(self) -> None:
        if self.type not in ("conv", "residual"):
            raise ConfigError(f"`type` of a stage is {self.type!r}: use 'conv' or 'residual'")
        whole(out_channels=self.out_channels, kernel_size=self.kernel_size, stride=self.stride)
        if self.type == "residual" and (self.kernel_size != 3 or self.padding not in (None, 1) or self.pool):
            raise ConfigError("a residual stage has kernels of 3, padding 1 and no pool: use a 'conv' stage for others")
        if self.padding is not None and self.padding < 0:
            raise ConfigError(f"`padding` of a stage is {self.padding}: pass 0 or more")


_MNIST = (Stage("conv", 32, pool=True), *(Stage("residual", c, stride=s) for c, s in
          ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1))))  # fmt: skip
_CIFAR = (Stage("conv", 64), *(Stage("residual", c, stride=s) for c, s in
          ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1),
           (512, 2), (512, 1), (512, 1))))  # fmt: skip
PLANS: Mapping[str, tuple[tuple[Stage, ...], tuple[int, ...]]] = {
    "mnist": (_MNIST, (64,)),
    "cifar": (_CIFAR, (256,)),
}


class SqueezeExcite(nn.Module):
    """y = x * sigmoid(W2 relu(W1 mean(x))): each channel weighed by what the whole image shows.

    Args:
        channels: How many come in and go out.
        reduction: How many channels one hidden unit stands for; there is always at least one unit.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        whole(channels=channels, reduction=reduction)
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def gate(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the weight of each channel, between 0 and 1."""
        return torch.sigmoid(self.excite(functional.relu(self.squeeze(maps.mean((2, 3))))))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps, weighed."""
        return maps * self.gate(maps)[:, :, None, None]


class ResidualBlock(nn.Module):
    """relu(SE(BN(conv(relu(BN(conv x))))) + shortcut x); the ReLU between the convolutions is part of it.

    Args:
        channels: How many come in.
        out_channels: How many go out.
        stride: Of the first convolution, and of the shortcut.
        squeeze: Whether a `SqueezeExcite` weighs the branch before the sum.
    """

    def __init__(self, channels: int, out_channels: int, stride: int = 1, *, squeeze: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.squeeze = SqueezeExcite(out_channels) if squeeze else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the block's maps."""
        branch = functional.relu(self.norm1(self.conv1(maps)))
        branch = self.squeeze(self.norm2(self.conv2(branch)))
        return functional.relu(branch + self.shortcut(maps))


class AdaptiveCNN(nn.Module):
    """A convolutional network from a plan: for 28 x 28 digits, for 32 x 32 photographs, or one of your own.

    Args:
        plan: "mnist", "cifar", or the stages one after the other: each a `Stage`, or a mapping of its fields.
        channels: Of the images.
        classes: How many scores come out.
        dropout: Before each linear layer but the first.
        squeeze: Whether residual blocks have a `SqueezeExcite`.
        hidden: The widths of the linear layers before the last; by default those of the plan, none for one of your own.

    Raises:
        ConfigError: The plan is empty or unknown, or a number is out of its range.
    """

    def __init__(
        self,
        plan: str | Sequence[Stage | Mapping[str, object]] = "mnist",
        *,
        channels: int = 1,
        classes: int = 10,
        dropout: float = 0.3,
        squeeze: bool = True,
        hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        whole(channels=channels, classes=classes)
        share(dropout=dropout)
        stages, widths = _read(plan)
        widths = widths if hidden is None else tuple(hidden)
        self.features = nn.ModuleList()
        width = channels
        for stage in stages:
            self.features.append(_made(stage, width, squeeze=squeeze))
            width = stage.out_channels
        layers: list[nn.Module] = []
        for out in widths:
            whole(hidden=out)
            layers += [nn.Linear(width, out), nn.ReLU(), nn.Dropout(dropout)]
            width = out
        self.head = nn.Sequential(*layers, nn.Linear(width, classes))
        self.apply(_initialize)

    def cam_layer(self) -> nn.Module:
        """Return the module whose output shows which part of an image speaks for a class."""
        return self.features[-1]

    @property
    def depth(self) -> int:
        """How many layers `intermediates` can show."""
        return len(self.features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        maps = images
        for stage in self.features:
            maps = stage(maps)
        scores: torch.Tensor = self.head(maps.mean((2, 3)))
        return scores

    def intermediates(self, images: torch.Tensor, layers: Iterable[int]) -> Intermediates:
        """Return the scores, and the maps behind some stages of the plan.

        Raises:
            InputError: There is no such stage.
        """
        places = wanted(layers, len(self.features))
        maps, behind = images, {}
        for index, stage in enumerate(self.features):
            maps = stage(maps)
            behind[index] = maps
        return Intermediates(self.head(maps.mean((2, 3))), {layer: behind[at] for layer, at in places.items()})


def _read(plan: str | Sequence[Stage | Mapping[str, object]]) -> tuple[tuple[Stage, ...], tuple[int, ...]]:
    if isinstance(plan, str):
        if plan not in PLANS:
            raise ConfigError(f"`plan` is {plan!r}: use {', '.join(map(repr, PLANS))}, or a list of stages")
        return PLANS[plan]
    stages = []
    for place, stage in enumerate(plan):
        try:
            stages.append(stage if isinstance(stage, Stage) else Stage(**stage))  # type: ignore[arg-type]
        except TypeError as error:
            raise ConfigError(f"stage {place} of `plan` is {stage!r}: {error}; see `Stage`") from error
    if not stages:
        raise ConfigError("`plan` has no stages: the images would go to the last layer as they are; name at least one")
    return tuple(stages), ()


def _made(stage: Stage, channels: int, *, squeeze: bool) -> nn.Module:
    if stage.type == "residual":
        return ResidualBlock(channels, stage.out_channels, stage.stride, squeeze=squeeze)
    padding = stage.kernel_size // 2 if stage.padding is None else stage.padding
    layers: list[nn.Module] = [
        nn.Conv2d(channels, stage.out_channels, stage.kernel_size, stage.stride, padding, bias=False),
        nn.BatchNorm2d(stage.out_channels),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.MaxPool2d(2)) if stage.pool else nn.Sequential(*layers)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
