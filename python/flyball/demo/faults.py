"""What goes wrong in the demo, and when: the same for the run with a governor and the one without."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

_BURST = 10


class Faults:
    """Faults at fixed shares of the run, counted in batches that are new.

    Args:
        steps: How many batches the run serves.
    """

    def __init__(self, steps: int) -> None:
        start, zeroed, poisoned = (int(share * steps) for share in (0.4, 0.65, 0.85))
        self.mislabelled = frozenset(range(start, start + 2 * _BURST, 2))
        self.zeroed = zeroed
        self.poisoned = poisoned

    @property
    def names(self) -> dict[int, str]:
        """What happens at which step, for a picture; of the burst, its first."""
        return {
            min(self.mislabelled): f"{_BURST} batches with wrong labels",
            self.zeroed: "last layer zeroed",
            self.poisoned: "a batch of NaN",
        }

    def spoil(self, step: int, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step as it reaches the model."""
        if step in self.mislabelled:
            return inputs, (targets + 1) % 10
        if step == self.poisoned:
            return torch.full_like(inputs, math.nan), targets
        return inputs, targets

    def harm(self, step: int, last: nn.Module) -> None:
        """Damage the last layer after a step: a stand-in for whatever ruins weights between two updates."""
        if step == self.zeroed:
            with torch.no_grad():
                for parameter in last.parameters():
                    parameter.zero_()
