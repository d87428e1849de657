"""From a group of batches to gradients: one forward and one backward each, and the loss of the group as one number.

The batches of a group are weighted by what they count, samples or tokens, so that the gradient is that of one large
batch, also where the last group of an epoch has fewer or smaller ones.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel

from flyball.batch import Batch
from flyball.batch import read as read_batch
from flyball.errors import InputError
from flyball.govern.agreement import is_sharded
from flyball.govern.before import BeforeForward
from flyball.nested import is_container, rebuilt
from flyball.train.distributed import average_over_ranks, world

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from flyball.govern.feed import Feed
    from flyball.objective import Objective, Outcome

_LOG = logging.getLogger("flyball.train")

OnOutOfMemory = Literal["raise", "skip", "split"]


class Learned(NamedTuple):
    """What a group of batches gave, beside the gradients that it left.

    Attributes:
        loss: The mean loss of the group, detached.
        weight: How many samples, or tokens, it holds.
        outcome: What the objective said of its last batch, term by term.
    """

    loss: torch.Tensor
    weight: float
    outcome: Outcome


class Where(NamedTuple):
    """Where training stands.

    Attributes:
        step: How many steps came before.
        steps: How many there will be in all, None if that is not known.
        epoch: How many epochs came before.
    """

    step: int
    steps: int | None
    epoch: int


def groups(feed: Feed[Any], size: int) -> Iterator[Iterable[Any]]:
    """Yield the batches of one step at a time, each drawn when it is asked for; the last group may have fewer.

    What is served again comes as the step that it was.
    """
    batches = iter(feed)
    for batch in batches:
        kept = feed.probe
        more = (size if kept is None else len(kept.batches)) - 1
        yield chain((batch,), islice(batches, more)) if more else (batch,)


class Learner:
    """Turn a group of batches into gradients.

    Args:
        model: What is trained.
        objective: What it is trained for.
        device: Where the batches go.
        dtype: What the forward computes in.
        scaler: The gradient scaler, where there is one.
        size: How many batches a whole group has.
        on_oom: What is done with a batch for which the memory is too small.
        modules: Whose buffers a batch that is left out must not have changed.
        channels_last: Whether images come to the model with their channels last in memory.

    Attributes:
        precision: What a forward is entered with, to compute in the type that was asked for.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        *,
        device: torch.device,
        dtype: torch.dtype,
        scaler: torch.amp.GradScaler | None,
        size: int,
        on_oom: OnOutOfMemory,
        modules: Sequence[torch.nn.Module],
        channels_last: bool = False,
    ) -> None:
        self._model = model
        self._objective = objective
        self._device = device
        self._scaler = scaler
        self._size = size
        self._on_oom = on_oom
        self._modules = modules
        self._channels_last = channels_last
        # Of several ranks: whose gradients are averaged once a step, and whether they are at every backward.
        self._replica = model if isinstance(model, DistributedDataParallel) else None
        self._reduces_at_once = world()[1] > 1 and any(map(is_sharded, model.parameters()))
        self._before = BeforeForward(modules)
        self._whole = dtype is torch.float32
        self.precision: AbstractContextManager[Any] = (
            nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)
        )

    def __call__(self, group: Iterable[Any], where: Where) -> Learned | None:
        """Leave the gradients of a group; None if it is left out: for want of memory, or as nothing in it counts."""
        if self._size == 1 and self._on_oom == "raise":
            (batch,) = group
            return self._learn_one(read_batch(batch), where)
        if self._on_oom == "raise":
            return self._learn(map(read_batch, group), self._size, where)
        again = list(map(read_batch, group))
        self._before.remember(chance=True, everything=False)
        while True:
            try:
                return self._learn(again, max(self._size, len(again)), where)
            except torch.OutOfMemoryError as error:
                said = str(error).splitlines()[0]
            # Here the error is gone, and with it the frames that held the memory.
            self._forget()
            halves = [half for batch in again for half in halved(batch)] if self._on_oom == "split" else again
            if len(halves) == len(again):
                _LOG.error("step %d: out of memory (%s); its batches are left out", where.step + 1, said)
                return None
            _LOG.warning("step %d: out of memory (%s); its batches are halved", where.step + 1, said)
            again = halves

    def _learn_one(self, batch: Batch, where: Where) -> Learned | None:
        """Leave the gradients of one batch, which needs no weight among others."""
        weight = self._count(batch)
        if not weight:
            return self._nothing(where)
        outcome = self._measure(self._there(batch), where)
        loss = outcome.loss
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        return Learned(loss.detach(), weight, outcome)

    def _learn(self, batches: Iterable[Batch], size: int, where: Where) -> Learned | None:
        """Weight each batch as if all of the group were like the first, and put that right where they were not.

        So a batch is used before the next one is drawn, and of equal batches nothing has to be put right.
        """
        total = whole = 0.0
        learned: Learned | None = None
        for batch in batches:
            weight = self._count(batch)
            if not weight:
                continue
            total += weight
            whole = whole or weight * size
            # What the other ranks have in their groups is not known here, so the mean over them is taken at the end.
            with nullcontext() if size == 1 or self._replica is None else self._replica.no_sync():
                outcome = self._measure(self._there(batch), where)
                loss = outcome.loss if size == 1 else outcome.loss * (weight / whole)
                (loss if self._scaler is None else self._scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            so_far = loss.detach() if learned is None else learned.loss + loss.detach()
            learned = Learned(so_far, total, outcome)
        if learned is None:
            return self._nothing(where)
        if total != whole:
            learned = self._put_right(learned, whole / total)
        if size > 1 and self._replica is not None:
            average_over_ranks([p.grad for p in self._replica.parameters() if p.grad is not None])
        return learned

    def _put_right(self, learned: Learned, factor: float) -> Learned:
        """Weight what the batches of a group have left so far by what the group has turned out to hold."""
        if self._reduces_at_once:
            raise InputError(
                "the batches of a step count unlike many samples, or tokens, and a sharded model has taken the mean of "
                "each over the ranks already: give the loader batches alike, or leave `accumulate` at 1"
            )
        gradients = [p.grad for module in self._modules for p in module.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
        return learned._replace(loss=learned.loss * factor)

    @staticmethod
    def _nothing(where: Where) -> None:
        _LOG.error("step %d: no sample, or token, of its batches counts; they are left out", where.step + 1)

    def _there(self, batch: Batch) -> Batch:
        """Return the batch where the model is, and as it likes it."""
        batch = batch.to(self._device)
        return batch._replace(inputs=channels_last(batch.inputs)) if self._channels_last else batch

    def _measure(self, batch: Batch, where: Where) -> Outcome:
        step, steps, epoch = where
        if self._whole:
            return self._objective.measure(self._model, batch, step=step, steps=steps, epoch=epoch)
        with self.precision:
            return self._objective.measure(self._model, batch, step=step, steps=steps, epoch=epoch)

    def _count(self, batch: Batch) -> float:
        return float(self._objective.count(batch))

    def _forget(self) -> None:
        """Make it as if the group had not been seen."""
        for module in self._modules:
            module.zero_grad(set_to_none=True)
        self._before.put_back()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def channels_last(inputs: Any) -> Any:
    """Return inputs with every tensor of four dimensions laid out with its second one, the channels, last."""
    if isinstance(inputs, torch.Tensor):
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs
    return rebuilt(inputs, channels_last) if is_container(inputs) else inputs


def halved(batch: Batch) -> list[Batch]:
    """Return the two halves of a batch, or the batch alone where it has one sample or cannot be cut."""
    samples = batch.samples
    if samples < 2:
        return [batch]
    half = samples // 2

    def cut(part: slice) -> Batch:
        def of(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value[part] if value.dim() and len(value) == samples else value
            return rebuilt(value, of) if is_container(value) else value

        return Batch(*(of(value) for value in batch))

    return [cut(slice(None, half)), cut(slice(half, None))]
