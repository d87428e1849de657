"""Images mixed with each other, batch by batch: MixUp, CutMix, and Cutout, as their papers write them.

    mix = Mix(MixUp(0.8), CutMix(1.0), classes=10, seed=0)
    for images, targets in loader:
        images, targets = mix(images, targets)  # probabilities of the classes

One number is drawn a batch, and each image is mixed with the one before it in the batch. A teacher who is given the
mixed images sees what the student sees. The draws come from the seed and the step alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.nn import functional

from flyball.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Mixing(Protocol):
    """A way to mix images."""

    def mix(self, images: torch.Tensor, generator: np.random.Generator) -> tuple[torch.Tensor, float]:
        """Return mixed images, and the share of each that is its own."""
        ...


@dataclass(frozen=True)
class MixUp:
    """lam x + (1 - lam) y, lam from Beta(alpha, alpha) (Zhang et al., 2018).

    Args:
        alpha: At 0 nothing is mixed; at 1 every share is as likely.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _at_least_0("alpha", self.alpha)

    def mix(self, images: torch.Tensor, generator: np.random.Generator) -> tuple[torch.Tensor, float]:
        """Return mixed images, and the share of each that is its own."""
        share = _beta(self.alpha, generator)
        return (images if share == 1.0 else images.roll(1, 0).lerp(images, share)), share


@dataclass(frozen=True)
class CutMix:
    """A box of another image, each side sqrt(1 - lam) of the image's, lam from Beta(alpha, alpha) (Yun et al., 2019).

    Its centre is anywhere, and what lies outside of the image is cut off; the share is then counted in pixels.

    Args:
        alpha: At 0 nothing is mixed; at 1 every share is as likely.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _at_least_0("alpha", self.alpha)

    def mix(self, images: torch.Tensor, generator: np.random.Generator) -> tuple[torch.Tensor, float]:
        """Return mixed images, and the share of each that is its own."""
        share = _beta(self.alpha, generator)
        height, width = images.shape[-2:]
        side = (1.0 - share) ** 0.5
        (top, bottom), (left, right) = (_side(length, round(side * length), generator) for length in (height, width))
        area = (bottom - top) * (right - left)
        if area == 0:
            return images, 1.0
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
        return mixed, 1.0 - area / (height * width)


@dataclass(frozen=True)
class Cutout:
    """Squares of exactly `length` pixels, centred anywhere, cut off at the borders and filled (DeVries & Taylor, 2017).

    The targets stay as they are. Each image has boxes of its own.

    Args:
        length: The side of a square, in pixels.
        holes: How many squares an image has.
        fill: What is in them: 0 is the mean of images that were normalised.
    """

    length: int = 16
    holes: int = 1
    fill: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("length", self.length), ("holes", self.holes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:  # type: ignore[redundant-expr]
                raise ConfigError(f"`{name}` of `Cutout` is {value!r}: pass a whole number, at least 1")

    def cut(self, images: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Return images with squares cut out."""
        height, width = images.shape[-2:]
        gone = torch.zeros(len(images), height, width, dtype=torch.bool)
        for image in gone:
            for _ in range(self.holes):
                (top, bottom), (left, right) = (_side(length, self.length, generator) for length in (height, width))
                image[top:bottom, left:right] = True
        return images.masked_fill(gone[:, None].to(images.device), self.fill)


class Mix:
    """Mix each batch in one of several ways.

    Args:
        ways: `MixUp`, `CutMix` or your own; for each batch one of them is drawn, each as likely.
        classes: How many there are: targets become probabilities.
        probability: How many of the batches are mixed.
        seed: Decides everything: batch `step` of a seed is mixed alike on every machine, and in a resumed run.

    Raises:
        ConfigError: There is no way to mix, or a number is out of its range.
    """

    def __init__(self, *ways: Mixing, classes: int, probability: float = 1.0, seed: int = 0) -> None:
        if not ways:
            raise ConfigError("`Mix` is given no way to mix: pass `MixUp()`, `CutMix()` or both")
        if not 0 <= probability <= 1:
            raise ConfigError(f"`probability` of `Mix` is {probability!r}: pass a number from 0 to 1")
        if classes < 2:
            raise ConfigError(f"`classes` of `Mix` is {classes!r}: pass at least 2")
        self.ways: Sequence[Mixing] = ways
        self.classes, self.probability, self.seed = classes, probability, seed
        self.step = 0

    def __call__(
        self, images: torch.Tensor, targets: torch.Tensor, step: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch, mixed, with targets that are probabilities of the classes.

        Args:
            images: (batch, channels, height, width).
            targets: Class indices, or probabilities already.
            step: Which batch this is; by default one more than the last.

        Raises:
            InputError: Images and targets are not as many, or a target is no class.
        """
        at = self.step if step is None else step
        self.step = at + 1
        if images.dim() != 4 or len(images) != len(targets):
            raise InputError(
                f"`images` has shape {tuple(images.shape)} and `targets` {tuple(targets.shape)}: "
                "pass (batch, channels, height, width), and a target for each image"
            )
        wanted = self._probabilities(targets).to(images.dtype)
        generator = np.random.default_rng((self.seed, at))
        if generator.random() >= self.probability:
            return images, wanted
        way = self.ways[int(generator.integers(len(self.ways)))]
        mixed, share = way.mix(images, generator)
        return mixed, wanted.roll(1, 0).lerp(wanted, share)

    def _probabilities(self, targets: torch.Tensor) -> torch.Tensor:
        if targets.is_floating_point():
            return targets
        if targets.is_cpu and len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self.classes:
            held = f"classes from {int(targets.min())} to {int(targets.max())}"
            raise InputError(f"`targets` holds {held}, and `classes` of `Mix` is {self.classes}")
        return functional.one_hot(targets.long(), self.classes)

    def state_dict(self) -> dict[str, int]:
        """Return which batch comes next."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the batch of a state."""
        self.step = int(state["step"])


def _beta(alpha: float, generator: np.random.Generator) -> float:
    return float(generator.beta(alpha, alpha)) if alpha > 0 else 1.0


def _side(length: int, wanted: int, generator: np.random.Generator) -> tuple[int, int]:
    """Return where a box of a wanted length begins and ends on a side, its middle on any pixel, cut off at the ends."""
    begin = int(generator.integers(length)) - wanted // 2
    return max(0, begin), min(length, begin + wanted)


def _at_least_0(name: str, value: float) -> None:
    if not value >= 0:
        raise ConfigError(f"`{name}` is {value!r}: pass 0 or more")
