"""What a model computed on its way: one forward, no hooks, and layers that are named or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch


@dataclass(frozen=True)
class Intermediates:
    """The output of one forward, and what stood behind some of the layers.

    Attributes:
        output: What `forward` returns.
        layers: For each layer asked for, by the number it was asked for with: maps (batch, channels, height, width) of
            a convolutional network, tokens (batch, patches, width) of a transformer.
        tokens: Of a transformer, the patch tokens after the final norm.
    """

    output: Any
    layers: Mapping[int, torch.Tensor]
    tokens: torch.Tensor | None = None


def wanted(layers: Iterable[int], depth: int) -> dict[int, int]:
    """Return for each layer that is asked for where it is, counting from the end if it is negative.

    Raises:
        InputError: There is no such layer.
    """
    found = {}
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not -depth <= layer < depth:  # type: ignore[redundant-expr]
            raise InputError(
                f"`layers` holds {layer!r}, and the model has the layers 0 to {depth - 1}, or -{depth} to -1"
            )
        found[layer] = layer % depth
    return found
