"""An optimizer whose `step` asks a governor first: how a loop that cannot be changed is governed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyball.govern.governor import Governor


class TakenOver:
    """Put a governor where an optimizer's own `step` stands, until `give_back`.

    Args:
        optimizer: The optimizer of torch; wrappers of a framework around it call its `step`.
        governor: Made with this optimizer.
        loss: Called where the loop passes no closure: the loss of the step whose gradients are there.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, governor: Governor, loss: Callable[[], torch.Tensor] | None = None
    ) -> None:
        self._optimizer, self._governor, self._loss = optimizer, governor, loss
        self._own = optimizer.step
        self._inside = False
        taken: Any = self._step
        # A scheduler of torch looks for this mark, and warns where it is gone.
        if hasattr(self._own, "_wrapped_by_lr_sched"):

            def marked(*arguments: Any, **more: Any) -> Any:
                return self._step(*arguments, **more)

            marked._wrapped_by_lr_sched = True  # type: ignore[attr-defined] # noqa: SLF001 -- torch's own mark
            taken = marked
        optimizer.step = taken  # type: ignore[method-assign]

    def give_back(self) -> None:
        """Let the optimizer step as it did."""
        with suppress(AttributeError):
            del self._optimizer.step
        if self._optimizer.step != self._own:
            self._optimizer.step = self._own  # type: ignore[method-assign]

    def _step(self, closure: Callable[[], Any] | None = None, **more: Any) -> Any:
        if self._inside:  # the governor applies the update
            return self._own(**more)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        elif self._loss is not None:
            loss = self._loss()
        if loss is None:  # the loop skipped this batch itself, and has no gradients to apply
            return None
        self._inside = True
        try:
            self._governor.step(loss.detach() if isinstance(loss, torch.Tensor) else float(loss))
        finally:
            self._inside = False
        return loss
