"""One update of the weights: what is measured before it, and everything that moves with it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from flyball.govern.gradients import Norm, clip, fetched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Update:
    """Optimizers, schedules, scaler and average, moved together or not at all.

    Args:
        model: Whose weights the average follows.
        optimizers: In the order in which they step.
        schedulers: Stepped after every update.
        scaler: The gradient scaler, or None.
        average: What follows the weights, or None.
        max_norm: The norm that gradients are clipped to, or None.

    Attributes:
        shards: The squared norm of the last gradients that this rank holds a part of, beside what `measure` returned.
    """

    shards = 0.0

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        *,
        scaler: torch.amp.GradScaler | None,
        average: Any,
        max_norm: float | None,
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._schedulers = schedulers
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._average = average
        self._max_norm = max_norm
        self._norm = Norm()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What the optimizers own now; groups may be added to them."""
        owned: list[torch.nn.Parameter] = []
        for one in self._optimizers:
            for group in one.param_groups:
                owned += group["params"]
        return owned

    @property
    def scale(self) -> float | None:
        """The scale of the gradient scaler, where there is one."""
        return None if self._scaler is None else float(self._scaler.get_scale())

    def norm(self, owned: list[torch.nn.Parameter] | None = None) -> float | torch.Tensor | None:
        """Unscale the gradients, and return their norm: a number, or a tensor where it lies on a device; None without.

        Call it, or `measure`, once a step.

        Args:
            owned: `parameters`, where they are at hand.
        """
        if owned is None:
            owned = self.parameters
        if self._scaler is not None and any(one.grad is not None for one in owned):
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
        return self._norm.of_gradients(owned)

    def measure(self) -> torch.Tensor | None:
        """Do what `norm` does, for a loop that does not have to know the number."""
        norm = self.norm()
        return torch.tensor(norm) if isinstance(norm, float) else norm

    def finite(self) -> bool:
        """Say whether every parameter is finite."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters)

    def ratios(self, norm: float | torch.Tensor | None, factor: float) -> list[float]:
        """Do what `apply` does, and return by how much of itself each parameter group has moved.

        Args:
            norm: As for `apply`.
            factor: As for `apply`.
        """
        groups = [list(group["params"]) for one in self._optimizers for group in one.param_groups]
        before = [[parameter.detach().clone() for parameter in group] for group in groups]
        sizes = [self._norm.of(values) for values in before]
        self.apply(norm, factor)
        with torch.no_grad():
            for group, values in zip(groups, before, strict=True):
                if values:
                    torch._foreach_sub_(values, group)
        moves = [self._norm.of(values) for values in before]
        told = [value or 0.0 for value in fetched(*sizes, *moves)]  # an empty group has no norm
        pairs = zip(told[: len(groups)], told[len(groups) :], strict=True)
        return [move / size if size else (math.inf if move else 0.0) for size, move in pairs]

    def apply(self, norm: float | torch.Tensor | None, factor: float) -> None:
        """Move everything by one step.

        Args:
            norm: What `norm` or `measure` returned.
            factor: What the learning rates are multiplied with, for this update alone.
        """
        if self._max_norm is not None and norm is not None:
            self._clip(norm, self._max_norm)
        if factor < 1.0:
            with self._slowed(factor):
                self._step(scaled=norm is not None)
        else:
            self._step(scaled=norm is not None)
        for scheduler in self._schedulers:
            scheduler.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        self._clear()

    def leave_to_the_scaler(self) -> None:
        """Let the scaler skip an overflow of its own, and lower its scale."""
        self._step(scaled=True)
        self._clear()

    def leave_out(self) -> None:
        """Forget the gradients, and that they were unscaled; the scale and its count of good steps stay."""
        self._clear()
        if self._scaler is not None:
            self._scaler.update(new_scale=self._scaler.get_scale())

    def _clip(self, norm: float | torch.Tensor, most: float) -> None:
        if isinstance(norm, torch.Tensor):
            torch.nn.utils.clip_grads_with_norm_(self.parameters, most, norm)
        else:
            clip(self.parameters, norm, most)

    def _step(self, *, scaled: bool) -> None:
        for optimizer in self._optimizers:
            if self._scaler is not None and scaled:
                self._scaler.step(optimizer)
            else:
                optimizer.step()
        if self._scaler is not None and scaled:
            self._scaler.update()

    def _clear(self) -> None:
        for optimizer in self._optimizers:
            if type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad:
                # What it does, without the profiler's mark, which takes as long as an update of a small model.
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = None
            else:
                optimizer.zero_grad()

    @contextmanager
    def _slowed(self, factor: float) -> Iterator[None]:
        """Lower every learning rate for one update, without the schedule noticing."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = group["lr"] * factor
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
