"""The governor in a loop of accelerate, which stays yours.

    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    governor = govern(accelerator, model, optimizer, scheduler=scheduler, max_norm=1.0)
    for inputs, targets in governor.feed(loader):
        loss = criterion(model(inputs), targets)
        accelerator.backward(loss)
        governor.step(loss)                     # in the place of optimizer.step(), scheduler.step() and zero_grad()

Everything works that works elsewhere: the feed serves batches again, and can rewind. What accelerate makes impossible:
`accelerator.accumulate`, since the feed must know how many batches make a step: pass `accumulate=` to `governor.feed`
and divide the loss. Precision "fp16" is refused by the scaler's own bookkeeping: train in bf16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.errors import InputError
from flyball.govern.governor import Governor

if TYPE_CHECKING:
    from accelerate import Accelerator


def govern(accelerator: Accelerator, model: Any, optimizer: Any, *, scheduler: Any = None, **settings: Any) -> Governor:
    """Return the governor of what `accelerator.prepare` returned.

    Args:
        accelerator: What prepared them.
        model: The prepared model.
        optimizer: The prepared optimizer.
        scheduler: The prepared scheduler, stepped after every update.
        settings: What else `flyball.Governor` takes.

    Raises:
        InputError: The accelerator scales gradients, or accumulates them.
    """
    if getattr(accelerator, "scaler", None) is not None:
        raise InputError(f"`mixed_precision` is {accelerator.mixed_precision!r}, which scales gradients: use 'bf16'")
    if accelerator.gradient_accumulation_steps != 1:
        raise InputError(
            f"`gradient_accumulation_steps` is {accelerator.gradient_accumulation_steps}: leave it at 1, and pass "
            "`accumulate=` to `governor.feed`"
        )
    plain = getattr(scheduler, "scheduler", scheduler)
    return Governor(model, getattr(optimizer, "optimizer", optimizer), scheduler=plain, **settings)
