"""What may look on while a run trains, and when it is called.

    fit_begins(trainer)
    for each epoch:
        epoch_begins(trainer, epoch)
        for each step:
            step_ends(trainer, step)            after the update was applied or left out; before a checkpoint
        epoch_ends(trainer, epoch)              after validation; before the checkpoint of the epoch
    fit_ends(trainer, history)                  also where early stopping or a signal ends the run; not after an error

A batch that the governor serves again, in doubt, is no step. What a callback raises ends the run. One that has
`state_dict` and `load_state_dict` is part of every checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from flyball.govern.verdict import Verdict
    from flyball.train.history import Epoch, History


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was made.

    Args:
        number: Its number in the run, from 1.
        epoch: The number of its epoch, from 1.
        loss: Its loss, detached.
        weight: How many samples, or tokens, it saw.
        verdict: What was done with the update, and why.
        learning_rate: The rate of the first parameter group, before the update.
    """

    number: int
    epoch: int
    loss: torch.Tensor
    weight: float
    verdict: Verdict
    learning_rate: float


class Callback:
    """Look on while a run trains: override what is needed; what is not overridden does nothing.

    `trainer` is the `Trainer`: its `model`, `objective`, `average`, `history`, `step` and `epoch` are there to be read.
    """

    def fit_begins(self, trainer: Any) -> None:
        """Before the first step, and after a checkpoint was put back."""

    def epoch_begins(self, trainer: Any, epoch: int) -> None:
        """Before the first batch of an epoch, or of the rest of one that is resumed."""

    def step_ends(self, trainer: Any, step: Step) -> None:
        """After a step."""

    def epoch_ends(self, trainer: Any, epoch: Epoch) -> None:
        """After an epoch and its validation."""

    def fit_ends(self, trainer: Any, history: History) -> None:
        """After the last step."""
