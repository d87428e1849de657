"""Positions of a transformer, carried over to another grid of patches."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from flyball.errors import InputError


def interpolate_positions(
    positions: torch.Tensor,
    grid: tuple[int, int],
    *,
    special: int = 1,
    source: tuple[int, int] | None = None,
    antialias: bool = False,
) -> torch.Tensor:
    """Return positions for a grid of patches, from those of another: bicubic, the special tokens as they are.

    Equal grids give the same object back.

    Args:
        positions: (1, special + patches, width).
        grid: Rows and columns of the new patches.
        special: How many tokens stand before the patches.
        source: Rows and columns of the old patches; by default they are a square.
        antialias: Whether a smaller grid is smoothed first, as timm does.

    Raises:
        InputError: The old patches are no square, or not `source`.
    """
    patches = positions.shape[1] - special
    if source is None:
        side = math.isqrt(max(0, patches))
        if side * side != patches:
            raise InputError(
                f"`positions` has {patches} patches behind {special} special tokens, which is no square: "
                "say `source=(rows, columns)`"
            )
        source = (side, side)
    if source[0] * source[1] != patches:
        raise InputError(f"`source` is {source}, and `positions` has {patches} patches: name the grid that they lie on")
    if source == tuple(grid):
        return positions
    before, field = positions[:, :special], positions[:, special:]
    field = field.reshape(1, *source, -1).permute(0, 3, 1, 2)
    # Bicubic needs float32; half precision would be refused on a CPU, and rounded on a GPU.
    found = functional.interpolate(field.float(), size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    field = found.to(positions.dtype).permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
    return torch.cat([before, field], dim=1)
