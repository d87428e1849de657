"""Where a transformer looks: how far, how widely, and whether that is more than looking everywhere alike.

A head that looks everywhere alike looks far: 4.14 patches on a grid of 8 x 8. So each distance is given beside that of
uniform attention, and beside the entropy of the rows, by which what is global and what says nothing can be told apart.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from flyball.errors import InputError
from flyball.vision.analysis.kept import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flyball.vision.models.vit import VisionTransformer


@dataclass(frozen=True)
class HeadStatistics:
    """One layer, head by head; every figure is a mean over samples and rows.

    Attributes:
        distance: How far a patch looks, in patches.
        uniform: How far it would, if it looked everywhere alike.
        entropy: Of what it looks at, in nats: at most `most`, that of looking everywhere alike.
        most: The logarithm of the number of patches.
        cls_spread: How far what the class token looks at lies from its own middle: the mean square distance.
        cls_self: How much the class token looks at itself.
    """

    distance: tuple[float, ...]
    uniform: float
    entropy: tuple[float, ...]
    most: float
    cls_spread: tuple[float, ...]
    cls_self: tuple[float, ...]

    @property
    def relative(self) -> tuple[float, ...]:
        """Each head's distance by that of uniform attention."""
        return tuple(distance / self.uniform if self.uniform else math.nan for distance in self.distance)


@dataclass(frozen=True)
class AttentionReport:
    """All layers of a model.

    Attributes:
        grid: Rows and columns of the patches.
        samples: How many images were looked at.
        layers: What was found in each layer.
    """

    grid: tuple[int, int]
    samples: int
    layers: dict[int, HeadStatistics]

    @property
    def local(self) -> float:
        """The share of heads that look less than half as far as uniform attention."""
        heads = [relative for layer in self.layers.values() for relative in layer.relative]
        return sum(relative < 0.5 for relative in heads) / len(heads)

    @property
    def cls_collapsed(self) -> float:
        """The share of heads whose class token looks at itself with more than 0.9 of its weight."""
        heads = [weight for layer in self.layers.values() for weight in layer.cls_self]
        return sum(weight > 0.9 for weight in heads) / len(heads)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**asdict(self), "local": self.local, "cls_collapsed": self.cls_collapsed}

    def __str__(self) -> str:
        rows = [f"{'layer':>5} {'distance':>9} {'of uniform':>10} {'entropy':>8} {'of most':>8}"]
        for layer, found in self.layers.items():
            distance, entropy = _mean(found.distance), _mean(found.entropy)
            rows.append(
                f"{layer:>5} {distance:>9.2f} {_mean(found.relative):>10.2f} {entropy:>8.2f} "
                f"{entropy / found.most if found.most else math.nan:>8.2f}"
            )
        return "\n".join(rows)


def distances(grid: tuple[int, int]) -> torch.Tensor:
    """Return how far each patch of a grid lies from each other, in patches."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    return (places[:, None] - places[None]).square().sum(-1).sqrt()


def head_statistics(weights: torch.Tensor, grid: tuple[int, int], *, special: int = 1) -> HeadStatistics:
    """Return what the heads of one layer look at.

    Rows are taken over patches alone, made to add up to 1 again.

    Args:
        weights: (samples, heads, tokens, tokens), as `VisionTransformer.attention` gives them.
        grid: Rows and columns of the patches.
        special: How many tokens stand before the patches.

    Raises:
        InputError: There are not as many tokens as the grid has patches, and special ones.
    """
    patches = grid[0] * grid[1]
    if weights.dim() != 4 or weights.shape[-1] != patches + special or weights.shape[-2] != patches + special:
        raise InputError(
            f"`weights` has shape {tuple(weights.shape)}, and a grid of {grid[0]} x {grid[1]} with {special} special "
            f"tokens has {patches + special} tokens: pass (samples, heads, tokens, tokens)"
        )
    weights = weights.detach().double().cpu()
    among = weights[..., special:, special:]
    among = among / among.sum(-1, keepdim=True)
    apart = distances(grid)
    entropy = torch.special.entr(among).sum(-1)
    seen = weights[..., 0, special:]
    seen = seen / seen.sum(-1, keepdim=True)
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    spread = seen @ places.square().sum(-1) - (seen @ places).square().sum(-1)
    return HeadStatistics(
        distance=_by_head((among * apart).sum(-1).mean(-1)),
        uniform=float(apart.mean()),
        entropy=_by_head(entropy.mean(-1)),
        most=math.log(patches),
        cls_spread=_by_head(spread),
        cls_self=_by_head(weights[..., 0, 0]),
    )


def attention_report(
    model: VisionTransformer, images: torch.Tensor, layers: Iterable[int] | None = None
) -> AttentionReport:
    """Return where a transformer looks in some images, layer by layer and head by head.

    Args:
        model: The transformer.
        images: The images, as it was trained on them.
        layers: Which of its blocks; all by default.

    Raises:
        InputError: There is no such block, or the images are not what the model was made for.
    """
    if not len(images):
        raise InputError("`images` is empty: there is nothing to look at")
    with evaluating(model), torch.no_grad():
        found = model.attention(images, layers)
    patch = model.patch_size
    grid = (images.shape[2] // patch[0], images.shape[3] // patch[1])
    return AttentionReport(
        grid, len(images), {layer: head_statistics(w, grid, special=model.special) for layer, w in found.items()}
    )


def _by_head(figures: torch.Tensor) -> tuple[float, ...]:
    return tuple(figures.mean(0).tolist())


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
