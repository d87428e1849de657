"""The learning rate as a pure function of the step, and what sets it.

    rate = LearningRate(optimizer, Cosine(1.0, 0.01), warmup=0.05, steps=1000)

torch's own schedules multiply the last rate to get the next, so they drift off their formula and depend on how they
were run. This one computes each rate from the step alone; the step is all its state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from flyball.errors import InputError
from flyball.objective.schedule import Constant, Warmup, as_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flyball.objective import Schedule


class LearningRate:
    """Set the learning rates of an optimizer, for each step what a schedule says; `step` after every update.

    Each parameter group keeps its own rate, the one that it was made with, and the schedule multiplies it.

    Args:
        optimizer: Whose rates are set, or several.
        schedule: What the rates are multiplied with: a schedule, a function of the step, or a number.
        warmup: The rates rise over the first so many steps, or this fraction of the training; the schedule runs over
            the rest.
        steps: How many updates there will be, if the schedule depends on it.

    Raises:
        InputError: The schedule needs `steps`, or the optimizer has no rate.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        schedule: float | Schedule | Callable[[int], float] = 1.0,
        *,
        warmup: float = 0,
        steps: int | None = None,
    ) -> None:
        self._optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        self.schedule = as_schedule(schedule, "schedule")
        if warmup:
            self.schedule = Warmup(warmup, self.schedule)
        self.steps = steps
        self._step = 0
        for group in self._groups():
            if "lr" not in group:
                raise InputError("`optimizer` has a parameter group without `lr`, and there is nothing to schedule")
        self._set()

    def factor(self, step: int) -> float:
        """Return what the rates are multiplied with at a step."""
        return self.schedule.at(step, self.steps)

    def at(self, step: int) -> list[float]:
        """Return the rate of each parameter group at a step."""
        return [float(group["initial_lr"]) * self.factor(step) for group in self._groups()]

    def step(self) -> None:
        """Go on to the next step, and set its rates."""
        self._step += 1
        self._set()

    def get_last_lr(self) -> list[float]:
        """Return the rates that are set, as torch's schedulers do."""
        return [float(group["lr"]) for group in self._groups()]

    def state_dict(self) -> dict[str, Any]:
        """Return the step, which is all there is to remember."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a step, and set its rates."""
        step = state["step"]
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise InputError(f"`step` of the state is {step!r}: pass what `state_dict` returned")
        self._step = step
        self._set()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _set(self) -> None:
        factor = self.factor(self._step)
        for group in self._groups():
            # A group that was added since begins with its own rate too.
            rate = float(group.setdefault("initial_lr", _plain(group["lr"]))) * factor
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # a captured graph holds this very tensor
            else:
                group["lr"] = rate

    def __repr__(self) -> str:
        shown = self.schedule.value if isinstance(self.schedule, Constant) else self.schedule
        return f"LearningRate({shown!r}, steps={self.steps}, at step {self._step})"


def _plain(rate: Any) -> float:
    return float(rate)
