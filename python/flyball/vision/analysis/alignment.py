"""What layers have in common: centred kernel alignment of every layer with every other, in one pass over the data.

The Gram matrix of a layer over all samples would have to be kept; of batches it is small, and the debiased HSIC of
batches adds up to an unbiased estimate of the whole (Nguyen et al., 2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from flyball.batch import read
from flyball.errors import InputError
from flyball.vision.analysis.kept import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn


@dataclass(frozen=True)
class Alignment:
    """How alike layers are.

    Attributes:
        rows: The layers of the first model.
        columns: The layers of the second, or of the first again.
        values: One for each pair; not a number where a layer does not vary.
        samples: How many images were looked at.
        own: Whether a model was compared with itself, so that the diagonal is 1 by construction.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    samples: int
    own: bool

    @property
    def diversity(self) -> float:
        """1 - the mean alignment of different layers of one model; not a number for one of two models."""
        if not self.own or len(self.rows) < 2:
            return math.nan
        off = [value for i, row in enumerate(self.values) for j, value in enumerate(row) if i != j]
        return 1.0 - sum(off) / len(off)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "rows": list(self.rows),
            "columns": list(self.columns),
            "values": [list(row) for row in self.values],
            "samples": self.samples,
            "own": self.own,
            "diversity": self.diversity,
        }


def alignment(
    model: nn.Module,
    loader: Iterable[Any],
    other: nn.Module | None = None,
    *,
    layers: Sequence[int] | None = None,
    other_layers: Sequence[int] | None = None,
    samples: int = 512,
) -> Alignment:
    """Return how alike layers are, of one model or of two, from the mean over the patches of each image.

    Args:
        model: A model of `flyball.vision.models`, or one with `depth` and `intermediates` as they have.
        loader: Batches of at least 4 images, of which the first ones are used.
        other: Another model, asked about the same images; by default the same.
        layers: Which layers of the first; all by default.
        other_layers: Which layers of the second; all by default.
        samples: About how many images; the pass ends with the batch that reaches it.

    Raises:
        InputError: The loader has no batch of at least 4 images, or a model cannot tell what stands behind its layers.
    """
    rows = _layers(model, layers)
    columns = rows if other is None else _layers(other, other_layers)
    cross = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    first, second = torch.zeros(len(rows), dtype=torch.float64), torch.zeros(len(columns), dtype=torch.float64)
    seen = 0
    with evaluating(*([model] if other is None else [model, other])), torch.no_grad():
        for given in loader:
            images = read(given).inputs
            if len(images) < 4:
                continue
            one = _grams(model, images, rows)
            two = one if other is None else _grams(other, images, columns)
            weight = len(images)
            cross += weight * _hsic(one, two)
            first += weight * _hsic(one, one).diagonal()
            second += weight * _hsic(two, two).diagonal()
            seen += weight
            if seen >= samples:
                break
    if not seen:
        raise InputError("`loader` has no batch of at least 4 images: alignment needs that many at once")
    # A layer that does not vary has no alignment, which is not the same as 0.
    scale = (first[:, None] * second[None]).clamp_min(0.0).sqrt()
    values = torch.where(scale > 0, cross / scale, math.nan)
    return Alignment(rows, columns, tuple(tuple(row) for row in values.tolist()), seen, own=other is None)


def _layers(model: nn.Module, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is not None:
        return tuple(layers)
    depth = getattr(model, "depth", None)
    if not isinstance(depth, int):
        raise InputError(f"the model is a {type(model).__name__}, which has no `depth`: say which `layers`")
    return tuple(range(depth))


def _grams(model: Any, images: torch.Tensor, layers: tuple[int, ...]) -> torch.Tensor:
    """Return for each layer its Gram matrix, without the diagonal and flattened to one row."""
    found = model.intermediates(images, layers).layers
    grams = []
    for layer in layers:
        pooled = found[layer].double()
        pooled = pooled.mean((2, 3)) if pooled.dim() == 4 else pooled.mean(1)
        pooled = pooled - pooled.mean(0)
        gram = pooled @ pooled.T
        # By the largest entry: alignment does not depend on scale, and tiny activations would underflow.
        largest = gram.abs().max()
        gram = gram / largest if largest > 0 else gram
        grams.append(gram.fill_diagonal_(0.0))
    return torch.stack(grams).cpu()


def _hsic(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Return the debiased HSIC of each of the first with each of the second, as one product of matrices."""
    n = one.shape[-1]
    rows, columns = one.sum(-1), two.sum(-1)
    trace = one.flatten(1) @ two.flatten(1).T
    sums = rows.sum(-1)[:, None] * columns.sum(-1)[None] / ((n - 1) * (n - 2))
    return (trace + sums - 2.0 / (n - 2) * (rows @ columns.T)) / (n * (n - 3))
