"""Stochastic depth (Huang et al., 2016): a residual branch is left out, sample by sample, and only in training."""

from __future__ import annotations

import torch
from torch import nn


class DropPath(nn.Module):
    """Leave out the branch of a sample with probability `rate`, and weigh the others so that the mean stays.

    Args:
        rate: From 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Return the branch, some samples of it zeroed in training."""
        if self.rate == 0.0 or not self.training:
            return branch
        kept = branch.new_empty((branch.shape[0],) + (1,) * (branch.dim() - 1)).bernoulli_(1.0 - self.rate)
        return branch * kept.div_(1.0 - self.rate)

    def extra_repr(self) -> str:
        """Return the rate."""
        return f"{self.rate:g}"


def linear_rates(highest: float, depth: int) -> list[float]:
    """Return a rate for each of the blocks, from 0 at the first to the highest at the last."""
    return [highest * block / max(1, depth - 1) for block in range(depth)]
