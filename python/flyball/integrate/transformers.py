"""The governor as a callback of Hugging Face's `Trainer`.

    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[GovernorCallback(max_norm=1.0)])

It stands where the optimizer's `step` is called. What that `Trainer` makes impossible:

- The data belong to it: no batch is served again, so in doubt nothing is asked, and five refusals in a row are a
  rollback. After a rollback the data go on where they stood.
- The loss is taken from what the model returns, so the model must return one, and a `compute_loss` of your own is not
  seen. Of several batches in a step it is their mean.
- `max_grad_norm` clips before the norm is seen: set it to 0, and give `max_norm` here.
- The scheduler moves on when a batch is left out too; a rollback takes it back.
- Its checkpoints do not hold what the governor remembers; thresholds are learnt anew after a resume.
"""

from __future__ import annotations

from typing import Any

import torch

from flyball.errors import InputError, MissingExtraError
from flyball.govern.governor import Governor
from flyball.integrate.taking_over import TakenOver

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError("transformers", extra="integrations", purpose="governing a Trainer") from error


class GovernorCallback(TrainerCallback):  # type: ignore[misc] # it may not be installed where types are checked
    """Govern the training that it is a callback of.

    Args:
        settings: What `flyball.Governor` takes beside model and optimizer: `policy`, `max_norm`, `journal`, ...

    Attributes:
        governor: The governor; None before training begins.
    """

    def __init__(self, **settings: Any) -> None:
        self.governor: Governor | None = None
        self._settings = settings
        self._taken: TakenOver | None = None
        self._hook: Any = None
        self._losses: list[torch.Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **what: Any) -> None:  # noqa: ARG002 -- as it is called
        """Take the optimizer over, and listen to what the model returns."""
        model, wrapped, scheduler = what["model"], what["optimizer"], what["lr_scheduler"]
        optimizer = getattr(wrapped, "optimizer", wrapped)  # what accelerate puts around it
        extra = {**({} if scheduler is None else {"scheduler": scheduler}), **self._settings.get("extra", {})}
        self.governor = Governor(model, optimizer, **{**self._settings, "extra": extra})
        self._hook = model.register_forward_hook(self._listen)
        self._taken = TakenOver(optimizer, self.governor, self._loss)

    def on_train_end(self, args: Any, state: Any, control: Any, **what: Any) -> None:  # noqa: ARG002 -- likewise
        """Give the optimizer back."""
        if self._taken is not None:
            self._taken.give_back()
            self._hook.remove()
            self._taken = self._hook = None

    def _listen(self, model: torch.nn.Module, given: Any, returned: Any) -> None:  # noqa: ARG002 -- as a hook is called
        if not model.training:
            return
        loss = returned.get("loss") if hasattr(returned, "get") else None
        if loss is not None:
            self._losses.append(loss.detach().mean())

    def _loss(self) -> torch.Tensor:
        losses, self._losses = self._losses, []
        if not losses:
            raise InputError("the model returned no `loss`, which is what is judged: pass labels, or govern by hand")
        return torch.stack(losses).mean()
