"""One training step, and an epoch of them, for a loop of your own.

The order, which does not depend on the mode, the scaler or the governor:

    for each part of the batch:  forward, loss, scale, backward
    unscale, measure the gradients, clip, step, update the scale, clear the gradients

With a governor, all after the backward is its `step`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from flyball.batch import Batch, read
from flyball.errors import InputError
from flyball.evaluation.tally import Rows
from flyball.govern.admission import checked_norm
from flyball.govern.update import Update
from flyball.govern.verdict import Action
from flyball.objective import as_objective

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flyball.govern.governor import Governor
    from flyball.objective import Objective, Outcome


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did.

    Args:
        loss: The mean loss of the batch, detached.
        count: Over how many samples, or tokens; a tensor where that lies on a device.
        samples: How many samples the batch has.
        norm: The gradients' norm, before clipping; None with a governor, whose verdict knows it.
        applied: Whether the weights were updated.
        outcome: What the objective said of the last part of the batch.
    """

    loss: torch.Tensor
    count: float | torch.Tensor
    samples: int
    norm: torch.Tensor | None
    applied: bool
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What an epoch did; batches that were served again, in doubt, are in no number.

    Args:
        loss_sum: The sum of the loss over all samples, or tokens, of the steps that were applied.
        count: How many of these there are.
        samples: How many samples came.
        steps: How many steps were applied.
        skipped: How many were not: left out by the governor, or by the scaler.
        norm_mean: The mean norm of the gradients; None if none was measured.
        norm_max: The largest.
    """

    loss_sum: float
    count: float
    samples: int
    steps: int
    skipped: int
    norm_mean: float | None
    norm_max: float | None

    @property
    def loss(self) -> float | None:
        """The mean loss; None if no step was applied."""
        return self.loss_sum / self.count if self.count else None


def train_step(
    model: torch.nn.Module,
    batch: Any,
    loss_fn: Any,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    clip: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
    accumulate: int = 1,
    governor: Governor | None = None,
    step: int = 0,
    steps: int | None = None,
    epoch: int = 0,
) -> StepReport:
    """Make one update from one batch.

    Args:
        model: What is trained.
        batch: The batch, on the model's device.
        loss_fn: What for: an objective, a term, or a function of scores and targets.
        optimizers: Who owns what is trained; the modes of `flyball.train.modes` differ in this alone.
        clip: The norm that gradients are clipped to; with a governor, that is its `max_norm`.
        scaler: The gradient scaler; the governor's, if there is one.
        accumulate: The batch is computed in so many parts, one after another, each weighted by what it counts.
        governor: Who decides whether the update is applied.
        step: How many updates came before, for weights that follow the step.
        steps: How many there will be in all.
        epoch: How many epochs came before.

    Raises:
        InputError: Two optimizers own the same parameter, an argument is out of range, or nothing in the batch counts.
    """
    stepper = _Stepper(model, loss_fn, optimizers, clip=clip, scaler=scaler, accumulate=accumulate, governor=governor)
    return stepper(read(batch), step=step, steps=steps, epoch=epoch)


def train_epoch(
    model: torch.nn.Module,
    loader: Iterable[Any],
    loss_fn: Any,
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    clip: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
    accumulate: int = 1,
    governor: Governor | None = None,
    name: str = "loader",
    step: int = 0,
    steps: int | None = None,
    epoch: int = 0,
) -> EpochReport:
    """Make one update from each batch of a loader; the arguments are those of `train_step`.

    Raises:
        InputError: The loader gave no batch, or a step has raised it.
    """
    stepper = _Stepper(model, loss_fn, optimizers, clip=clip, scaler=scaler, accumulate=accumulate, governor=governor)
    device = next(model.parameters()).device
    model.train()
    rows, samples, seen = Rows(device), 0, 0
    for given in loader if governor is None else governor.feed(loader):
        asked = governor is not None and governor.probing
        report = stepper(read(given).to(device), step=step + seen, steps=steps, epoch=epoch)
        if asked:
            continue
        seen += 1
        samples += report.samples
        norm = torch.nan if report.norm is None else report.norm
        rows.add((report.loss, report.count, norm, float(report.applied)))
    if not seen:
        raise InputError(
            f"`{name}` gave no batch, and an epoch on nothing trains nothing: look whether its data set is empty"
        )
    read_rows = rows.read()
    applied = [(loss, count) for loss, count, _, done in read_rows if done]
    norms = [norm for _, _, norm, _ in read_rows if not math.isnan(norm)]
    return EpochReport(
        loss_sum=sum(loss * count for loss, count in applied),
        count=sum(count for _, count in applied),
        samples=samples,
        steps=len(applied),
        skipped=seen - len(applied),
        norm_mean=sum(norms) / len(norms) if norms else None,
        norm_max=max(norms, default=None),
    )


class _Stepper:
    """The step, with everything checked that stays the same."""

    def __init__(
        self,
        model: torch.nn.Module,
        loss_fn: Any,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        clip: float | None,
        scaler: torch.amp.GradScaler | None,
        accumulate: int,
        governor: Governor | None,
    ) -> None:
        if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:  # type: ignore[redundant-expr]
            raise InputError(f"`accumulate` is {accumulate!r}: pass in how many parts a batch is computed, at least 1")
        if governor is not None and clip is not None:
            raise InputError(
                f"`clip` is {clip!r}, and a governor clips: give it `max_norm={clip!r}` and leave `clip` out"
            )
        self._model = model
        self._objective = as_objective(loss_fn)
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._accumulate = accumulate
        self._governor = governor
        listed = [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else list(optimizers)
        self._free = check_owners(model, self._objective, listed)
        self._update = Update(model, listed, [], scaler=scaler, average=None, max_norm=checked_norm(clip))

    def __call__(self, batch: Batch, **where: Any) -> StepReport:
        parts = batch.split(self._accumulate)
        counts = [self._objective.count(part) for part in parts]
        if len(parts) > 1:
            # Only to weight the parts are the counts needed now; of one, a device is not waited for.
            counts = [float(count) for count in counts]
        total = sum(counts)
        loss: torch.Tensor | None = None
        outcome: Outcome | None = None
        for part, count in zip(parts, counts, strict=True):
            if not isinstance(count, torch.Tensor) and count == 0:
                continue
            outcome = self._objective.measure(self._model, part, **where)
            weighted = outcome.loss if len(parts) == 1 else outcome.loss * (count / total)
            (weighted if self._scaler is None else self._scaler.scale(weighted)).backward()  # type: ignore[no-untyped-call]
            loss = weighted.detach() if loss is None else loss + weighted.detach()
        if loss is None or outcome is None:
            raise InputError("nothing in the batch counts, so its loss is not a number: leave such batches out")
        norm, applied = self._apply(loss)
        for parameter in self._free:
            parameter.grad = None  # else they would grow from step to step
        return StepReport(loss, total, batch.samples, norm, applied, outcome)

    def _apply(self, loss: torch.Tensor) -> tuple[torch.Tensor | None, bool]:
        if self._governor is not None:
            return None, self._governor.step(loss).action is Action.APPLY
        norm = self._update.measure()
        if self._scaler is not None and norm is not None and not math.isfinite(norm.item()):
            self._update.leave_to_the_scaler()
            return norm, False
        self._update.apply(norm, 1.0)
        return norm, True


def check_owners(
    model: torch.nn.Module, objective: Objective, optimizers: Sequence[torch.optim.Optimizer]
) -> list[torch.nn.Parameter]:
    """See to it that no parameter is updated twice, and return the trainable ones that are not updated at all.

    Of those a warning is given, once for the same ones.

    Raises:
        InputError: Two optimizers, or two groups, own the same parameter, or there is no optimizer.
    """
    if not optimizers:
        raise InputError("`optimizers` is empty, and a step without one trains nothing")
    known = {id(p): (name, p) for module in (objective, model) for name, p in module.named_parameters()}
    owned: set[int] = set()
    for parameter in (p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]):
        if id(parameter) in owned:
            name, _ = known.get(id(parameter), ("a parameter", None))
            raise InputError(f"`{name}` is owned by two optimizers and would be updated twice: give it to one")
        owned.add(id(parameter))
    free = {name: p for key, (name, p) in known.items() if key not in owned and p.requires_grad}
    if free:
        more = f" and {len(free) - 1} more" if len(free) > 1 else ""
        warnings.warn(
            f"no optimizer owns `{next(iter(free))}`{more}, and gradients are computed for nothing: "
            "give them to an optimizer, or set `requires_grad_(False)`",
            stacklevel=4,
        )
    return list(free.values())
