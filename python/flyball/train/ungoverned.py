"""The verbs of a governor with nothing behind them: the plain loop, for runs without a policy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flyball.govern.admission import admit, checked_norm
from flyball.govern.feed import Feed
from flyball.govern.update import Update
from flyball.govern.verdict import Action, Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch


class Ungoverned:
    """Do what a plain loop does: unscale, clip, update, schedule, average, clear. Nothing is judged.

    A gradient scaler that finds an overflow skips its step, and the schedule and the average with it.
    """

    probing = False

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        scheduler: Sequence[Any],
        scaler: torch.amp.GradScaler | None,
        average: Any,
        max_norm: float | None,
        modules: Sequence[torch.nn.Module] = (),
    ) -> None:
        admit([model, *modules], optimizers, scheduler)
        self._model, self._optimizers, self._schedulers, self._average = model, optimizers, scheduler, average
        self._update = Update(
            model, optimizers, scheduler, scaler=scaler, average=average, max_norm=checked_norm(max_norm)
        )
        self._scales = scaler is not None and scaler.is_enabled()
        self._measures = self._scales or max_norm is not None
        self._steps = 0

    def feed(self, loader: Iterable[Any], *, accumulate: int = 1) -> Feed[Any]:
        """Return the loader as something that knows where its data stand."""
        return Feed(loader, keep=0, accumulate=accumulate)

    def step(self, loss: torch.Tensor) -> Verdict:  # noqa: ARG002 -- as a governor's
        """Apply the update."""
        step, self._steps = self._steps, self._steps + 1
        if not self._measures:
            for optimizer in self._optimizers:
                optimizer.step()
            for scheduler in self._schedulers:
                scheduler.step()
            if self._average is not None:
                self._average.update_parameters(self._model)
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            return Verdict(step, "train")
        norm = self._update.measure()
        if self._scales and norm is not None and not math.isfinite(norm.item()):
            self._update.leave_to_the_scaler()
            return Verdict(step, "train", Level.OK, Action.SKIP, ("amp-skip",))
        self._update.apply(norm, 1.0)
        return Verdict(step, "train")

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were made."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._steps = state["steps"]
