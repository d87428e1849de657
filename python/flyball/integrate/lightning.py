"""The governor as a callback of Lightning.

    trainer = Trainer(callbacks=[GovernorCallback(journal=journal)])

It stands where the optimizer's `step` is called, so automatic optimization, every precision and every logger of
Lightning work as before. What Lightning makes impossible:

- The data belong to Lightning: no batch is served again, so in doubt nothing is asked, and five refusals in a row are a
  rollback. After a rollback the data go on where they stood; a loop cannot be rewound from a callback.
- Lightning steps its schedulers by batches, so one moves on when a batch is left out too; a rollback takes it back.
- With `accumulate_grad_batches` the loss that is judged is that of the last batch of a step. The norm is that of all.
- Clip with `max_norm` here rather than with `gradient_clip_val`, which clips before the norm is seen.
- One optimizer, of automatic optimization; in manual optimization call a `flyball.Governor` yourself.
"""

from __future__ import annotations

from typing import Any

from flyball.errors import InputError, MissingExtraError
from flyball.govern.governor import Governor
from flyball.integrate.taking_over import TakenOver

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise MissingExtraError("lightning", extra="integrations", purpose="governing a run of Lightning") from error


class GovernorCallback(Callback):  # type: ignore[misc] # it may not be installed where types are checked
    """Govern the fit that it is a callback of.

    Args:
        settings: What `flyball.Governor` takes beside model and optimizer: `policy`, `max_norm`, `journal`, ...

    Attributes:
        governor: The governor; None before training begins.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.governor: Governor | None = None
        self._settings = settings
        self._taken: TakenOver | None = None
        self._state: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take the optimizer over, as it stands after a checkpoint was put back.

        Raises:
            InputError: There is not exactly one optimizer.
        """
        if len(trainer.optimizers) != 1 or not pl_module.automatic_optimization:
            raise InputError(
                f"the module has {len(trainer.optimizers)} optimizers or steps them by hand: this callback governs one "
                "in automatic optimization; call a `flyball.Governor` yourself"
            )
        schedulers = {f"scheduler.{n}": one.scheduler for n, one in enumerate(trainer.lr_scheduler_configs)}
        extra = {**schedulers, **self._settings.get("extra", {})}
        optimizer = trainer.optimizers[0]
        self.governor = Governor(pl_module, optimizer, **{**self._settings, "extra": extra})
        if self._state is not None:
            self.governor.load_state_dict(self._state)
        self._taken = TakenOver(optimizer, self.governor)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002 -- as Lightning calls it
        """Give the optimizer back."""
        self._give_back()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002 -- likewise
        """Give the optimizer back."""
        self._give_back()

    def state_dict(self) -> dict[str, Any]:
        """Return what the governor remembers, for Lightning's checkpoint."""
        return {} if self.governor is None else self.governor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what the governor remembered until training begins."""
        self._state = state_dict or None

    def _give_back(self) -> None:
        if self._taken is not None:
            self._taken.give_back()
            self._taken = None
