"""Averages of the weights: models of their own, to evaluate and to save beside the one that is trained.

    average = EMA(model, decay=0.999)
    governor = Governor(model, optimizer, average=average)     # a step that is refused never enters
    ...
    average.refresh(loader)                                    # where the model has BatchNorm
    print(evaluate(average.module, loader))

Something enters only with `update_parameters`, which a governor calls after an update that it let through, and takes
back with a rollback.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flyball import outputs
from flyball.batch import read
from flyball.errors import ConfigError, InputError
from flyball.evaluation.undisturbed import undisturbed
from flyball.objective.schedule import resolved

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
else:
    from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


class Average(nn.Module, ABC):
    """An average of the weights that a model had; see `EMA` and `SWA`.

    Attributes:
        module: The averaged model, in evaluation mode.
        updates: How many states are in the average; with none, `module` is a copy of the model as it was.
        seen: How many updates of the model were offered.
    """

    follows = False
    """Whether the average stays close to the model, and so do the statistics of the two."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self.updates = 0
        self.seen = 0
        self._refreshed = 0
        self.train(mode=False)

    @property
    def ready(self) -> bool:
        """Whether anything has entered yet."""
        return self.updates > 0

    @property
    def current(self) -> bool:
        """Whether `module` can be measured as it is: something has entered, and BatchNorm's statistics are its own.

        Those that an exponential average takes over from the model are close to its own; those of a plain mean over
        a long way are not, until `refresh`.
        """
        fits = self.follows or self._refreshed == self.updates or not _normalised(self.module)
        return self.ready and fits

    @abstractmethod
    def share(self) -> float | None:
        """Return the share that the next state gets in the average; None if it does not enter."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Offer the weights as they are after an update; buffers, such as BatchNorm's statistics, are copied.

        Raises:
            InputError: The model is not built like the one that is averaged.
        """
        share = self.share()
        self.seen += 1
        if share is None:
            return
        here, there = list(self.module.parameters()), list(model.parameters())
        kept, given = list(self.module.buffers()), list(model.buffers())
        if [p.shape for p in (*here, *kept)] != [p.shape for p in (*there, *given)]:
            raise InputError(
                "`model` has other parameters or buffers than the one that is averaged: average it from the start, "
                "with a new average"
            )
        for dtype in {p.dtype for p in here}:
            averaged = [p.detach() for p in here if p.dtype is dtype]
            latest = [q.detach() for p, q in zip(here, there, strict=True) if p.dtype is dtype]
            if share == 1.0 or not (dtype.is_floating_point or dtype.is_complex):
                torch._foreach_copy_(averaged, latest)
            else:
                torch._foreach_lerp_(averaged, latest, share)
        for mine, its in zip(kept, given, strict=True):
            mine.copy_(its)
        self.updates += 1

    def refresh(self, loader: Iterable[Any], *, batches: int | None = None) -> int:
        """Measure BatchNorm's statistics anew under the averaged weights, and return how many layers have some.

        They are means over the batches, each weighted by its samples; on all ranks together, where there are several.
        All else is in evaluation mode, and random state and the order of the loader are as before.

        Args:
            loader: Training data, as the model sees them.
            batches: How many of its batches are taken; all by default.

        Raises:
            InputError: The loader gave no batch.
        """
        layers = _normalised(self.module)
        if not layers:
            return 0
        momenta = [layer.momentum for layer in layers]
        home = next(self.module.parameters(), torch.empty(0)).device
        samples = 0
        with undisturbed([self.module], loader):
            try:
                for layer in layers:
                    layer.reset_running_stats()
                    layer.training = True
                for number, given in enumerate(loader):
                    if number == batches:
                        break
                    batch = read(given).to(home)
                    samples += batch.samples
                    for layer in layers:
                        layer.momentum = batch.samples / samples
                    outputs.forward(self.module, batch.inputs)
            finally:
                for layer, momentum in zip(layers, momenta, strict=True):
                    layer.momentum = momentum
        if samples == 0:
            raise InputError("`loader` gave no batch, and BatchNorm cannot be measured on nothing: pass training data")
        _reduce(layers, samples)
        self._refreshed = self.updates
        return len(layers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged model."""
        return self.module(*args, **kwargs)

    def get_extra_state(self) -> dict[str, int]:
        """Return how much is in the average."""
        return {"updates": self.updates, "seen": self.seen, "refreshed": self._refreshed}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take back how much was in the average."""
        self.updates, self.seen, self._refreshed = state["updates"], state["seen"], state["refreshed"]

    def train(self, mode: bool = True) -> Average:  # noqa: FBT001, FBT002, ARG002 -- as `Module.train` has it
        """Stay in evaluation mode: an average is not trained."""
        return super().train(mode=False)


class EMA(Average):
    """The exponential moving average of the weights (Polyak and Juditsky, 1992): each update lets go of a little.

    Args:
        model: What is averaged; it is copied.
        decay: How much of the average stays at an update.
        warmup: Whether the decay is at most (1 + n) / (10 + n) after n updates, so that the first weights, which know
            nothing yet, are forgotten early.

    Raises:
        ConfigError: `decay` is not between 0 and 1.
    """

    follows = True

    def __init__(self, model: nn.Module, decay: float = 0.999, *, warmup: bool = True) -> None:
        if not 0.0 < decay < 1.0:
            raise ConfigError(f"`decay` of `EMA` is {decay}: pass a number between 0 and 1, such as 0.999")
        super().__init__(model)
        self.decay = decay
        self.warmup = warmup

    def share(self) -> float:
        """Return 1 minus the decay; the first state is the average."""
        if self.updates == 0:
            return 1.0
        return 1.0 - (min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay)


class SWA(Average):
    """The plain mean of the weights late in training (Izmailov et al., 2018).

    Args:
        model: What is averaged; it is copied.
        start: From which update on, or after which fraction of them.
        steps: How many updates there will be, if `start` is a fraction.
        every: One state enters in so many updates; that of an epoch takes the weights once in an epoch.

    Raises:
        ConfigError: `every` or `start` is out of range.
        InputError: `start` is a fraction, and `steps` is not given.
    """

    def __init__(self, model: nn.Module, start: float = 0.75, *, steps: int | None = None, every: int = 1) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:  # type: ignore[redundant-expr]
            raise ConfigError(f"`every` of `SWA` is {every!r}: pass a whole number of updates, at least 1")
        if not (isinstance(start, int) and start >= 0) and not 0.0 <= start < 1.0:
            raise ConfigError(f"`start` of `SWA` is {start!r}: pass a number of updates, or a fraction below 1.0")
        super().__init__(model)
        self.start = resolved(start, steps, self)
        self.every = every

    def share(self) -> float | None:
        """Return 1 / (n + 1) for one state in `every`, from the start on."""
        late = self.seen - self.start
        return 1.0 / (self.updates + 1) if late >= 0 and late % self.every == 0 else None


def _normalised(module: nn.Module) -> list[BatchNorm]:
    """Return the layers that keep running statistics."""
    return [part for part in module.modules() if isinstance(part, BatchNorm) and part.running_mean is not None]


def _reduce(layers: list[BatchNorm], samples: int) -> None:
    """Make the statistics of all ranks one, each weighted by its samples."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    device = layers[0].running_mean.device  # type: ignore[union-attr] # those without were left out
    total = torch.tensor(float(samples), device=device)
    torch.distributed.all_reduce(total)
    for layer in layers:
        for statistic in (layer.running_mean, layer.running_var):
            if statistic is not None:
                statistic.mul_(samples / total)
                torch.distributed.all_reduce(statistic)
