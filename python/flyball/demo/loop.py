"""The loop of the demo: what a user's own looks like, and the lines that govern it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from flyball.demo.faults import Faults
from flyball.evaluation import evaluate as evaluate_model
from flyball.events import EpochFinished, StepSample
from flyball.govern import Action, Policy
from flyball.govern.governor import Governor
from flyball.measure import Classification

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyball.data import Split, Splits
    from flyball.demo.settings import DemoConfig
    from flyball.evaluation import Evaluation
    from flyball.events import Event
    from flyball.govern.records import Sink
    from flyball.measure import ClassificationResult


def train(
    splits: Splits,
    config: DemoConfig,
    device: torch.device,
    emit: Callable[[Event], None],
    journal: Sink | None,
) -> nn.Sequential:
    """Train the model, governed if there is a journal for the governor; report every step and every epoch."""
    settings = config.training
    order = torch.Generator().manual_seed(config.seed)
    loader = DataLoader(splits.train, batch_size=settings.batch_size, shuffle=True, generator=order)
    model = build_model(config.seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    faults = Faults(steps) if config.faults else None
    governor = None
    if journal is not None:
        policy = Policy(snapshot_every=25)  # the run is short
        governor = Governor(model, optimizer, scheduler=scheduler, policy=policy, journal=journal)

    step = 0
    for epoch in range(1, settings.epochs + 1):
        started, losses = time.monotonic(), []
        model.train()
        feed = loader if governor is None else governor.feed(loader)
        for inputs, targets in feed:
            asked = governor is not None and governor.probing  # a batch from before is served again, untrained
            if faults is not None and not asked:
                inputs, targets = faults.spoil(step, inputs, targets)  # noqa: PLW2901 -- this is the demonstration
            loss = functional.cross_entropy(model(inputs.to(device)), targets.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            rate, value = float(scheduler.get_last_lr()[0]), loss.item()
            if governor is not None:
                applied = governor.step(loss).action is Action.APPLY
            else:
                applied = True
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if asked:
                continue
            if applied:
                losses.append(value)
            emit(StepSample(step=step, epoch=epoch, loss=value, learning_rate=rate))
            if faults is not None:
                faults.harm(step, model[-1])
            step += 1
        validation = evaluate(model, splits.validation, device)
        emit(
            EpochFinished(
                epoch=epoch,
                step=step - 1,
                train_loss=math.fsum(losses) / len(losses) if losses else None,
                seconds=time.monotonic() - started,
                validation={} if validation is None else {"accuracy": validation.accuracy.value},
            )
        )
    return model


def evaluate(model: nn.Module, split: Split, device: torch.device) -> ClassificationResult | None:
    """Measure the model on one part of the data; None if what it says is not a number."""
    meter = Classification(classes=10, topk=(1, 3))
    model.eval()
    with torch.inference_mode():
        for inputs, targets in _in_order(split):
            logits = model(inputs.to(device)).cpu()
            if not bool(torch.isfinite(logits).all()):
                return None
            meter.update(logits, targets)
    return meter.compute()


def examine(model: nn.Module, split: Split, device: torch.device) -> Evaluation:
    """Ask everything of the model at the end: also which samples are right, and what declining to answer is worth."""
    return evaluate_model(
        model, _in_order(split), topk=(1, 3), selective="probability", device=device, name="test split"
    )


def _in_order(split: Split) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    # Without a generator of its own, even a loader that does not shuffle draws from the global one.
    return DataLoader(split, batch_size=256, generator=torch.Generator())  # type: ignore[arg-type] # as sequences are data


def build_model(seed: int) -> nn.Sequential:
    """Build a small convolutional network for 8 by 8 images, with weights drawn from `seed` alone."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *block(1, 32), *block(32, 32), nn.MaxPool2d(2),
            *block(32, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64 * 4, 10),
        )  # fmt: skip
