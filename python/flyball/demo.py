"""`flyball demo`: real data, a small model, a loop one can read, and what came of it.

The loop is written out because it is what a user's own looks like. Everything around it is a part of the package:
data, meter, journal, views.
"""

from __future__ import annotations

import math
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from flyball import run_folder
from flyball.config import Config, Range, save, to_mapping
from flyball.errors import TrainingDiverged
from flyball.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from flyball.data import Split, Splits
    from flyball.events import Estimate, Event
    from flyball.measure import ClassificationResult


@dataclass(frozen=True)
class Data(Config):
    """How the digits are cut."""

    validation: Annotated[float, Range(above=0.0, below=1.0)] = 0.2
    test: Annotated[float, Range(above=0.0, below=1.0)] = 0.2

    def conflicts(self) -> Iterator[str]:
        """Training needs some of the images, too."""
        if self.validation + self.test >= 1.0:
            yield (
                f"`validation` is {self.validation} and `test` is {self.test}, which leaves nothing to train on: "
                "lower one of them"
            )


@dataclass(frozen=True)
class Training(Config):
    """How long and how fast to train."""

    epochs: Annotated[int, Range(low=1)] = 15
    batch_size: Annotated[int, Range(low=1)] = 64
    learning_rate: Annotated[float, Range(above=0.0)] = 3e-3
    weight_decay: Annotated[float, Range(low=0.0)] = 1e-2


@dataclass(frozen=True)
class DemoConfig(Config):
    """Everything that `flyball demo` can be told."""

    name: str = "digits"
    seed: Annotated[int, Range(low=0, high=2**64 - 1)] = 0
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = "auto"
    data: Data = Data()
    training: Training = Training()

    def conflicts(self) -> Iterator[str]:
        """The name becomes a folder, and must not lead to another one."""
        if not re.fullmatch(r"\w[\w.-]{0,99}", self.name):
            yield f"`name` is {self.name!r}: use up to 100 letters, digits, `-`, `_` and `.`, and begin with a letter"


@dataclass(frozen=True)
class Outcome:
    """What a demo run leaves: the numbers of the test split, and where the files lie."""

    result: ClassificationResult
    folder: Path
    picture: Path


def run(config: DemoConfig, folder: Path | None, show: Callable[[Event], None]) -> Outcome:
    """Train on the digits, evaluate on the test split, and leave a run folder.

    Args:
        config: What to do.
        folder: Where the run goes; it must not hold one. By default a new folder under `runs`.
        show: Called with every event as it happens, after the journal has it.

    Raises:
        MissingExtraError: Scikit-learn or matplotlib is not installed.
        DeviceError: The device is not present.
        RunFolderError: The folder cannot be created, or holds a run already.
        WriteError: A file cannot be written.
        TrainingDiverged: The loss stopped being a number.
    """
    # Whatever can fail for want of a package or a folder fails here, before any work is done.
    from safetensors.torch import save as tensors_to_bytes

    from flyball import data, events
    from flyball.device import choose_device
    from flyball.observe import plots

    device = choose_device(config.device)
    splits = data.digits(validation=config.data.validation, test=config.data.test, seed=config.seed)
    folder = run_folder.create_fresh(Path("runs"), config.name) if folder is None else run_folder.create(folder)
    picture = folder / "training.png"
    started = time.monotonic()
    with events.Journal(folder / run_folder.JOURNAL, run=folder.resolve().name or config.name) as journal:

        def emit(event: Event) -> None:
            journal.write(event)
            show(event)

        try:
            save(config, folder / run_folder.CONFIG)
            emit(_start(config, device))
            model = train(splits, config, device, emit)
            result = evaluate(model, splits.test, device)
            emit(events.Evaluated(split="test", measurements=_measurements(result)))
            weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
            write_whole(folder / run_folder.CHECKPOINTS / "final.safetensors", tensors_to_bytes(weights))
            journal.flush()
            plots.save(plots.training(events.read(folder / run_folder.JOURNAL)), picture)
            emit(events.RunFinished(reason="completed", seconds=time.monotonic() - started))
        except BaseException as error:  # an interrupt is an end as well, and the journal says which
            emit(events.RunFailed(error=type(error).__name__, message=str(error)))
            raise
    return Outcome(result, folder, picture)


def train(splits: Splits, config: DemoConfig, device: torch.device, emit: Callable[[Event], None]) -> torch.nn.Module:
    """Train the model, and report every step and every epoch."""
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader

    from flyball.events import EpochFinished, StepSample

    settings = config.training
    order = torch.Generator().manual_seed(config.seed)
    loader = DataLoader(splits.train, batch_size=settings.batch_size, shuffle=True, generator=order)
    model = build_model(config.seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    step = 0
    for epoch in range(1, settings.epochs + 1):
        started, loss_sum = time.monotonic(), 0.0
        model.train()
        for inputs, targets in loader:
            loss = functional.cross_entropy(model(inputs.to(device)), targets.to(device))
            if not math.isfinite(value := loss.item()):
                raise TrainingDiverged(
                    f"`loss` is {value} at step {step + 1}: lower `training.learning_rate`, "
                    f"which is {settings.learning_rate}"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rate = float(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
            step += 1
            loss_sum += value * len(targets)
            emit(StepSample(step=step, epoch=epoch, loss=value, learning_rate=rate))
        validation = evaluate(model, splits.validation, device)
        emit(
            EpochFinished(
                epoch=epoch,
                step=step,
                train_loss=loss_sum / len(splits.train),
                seconds=time.monotonic() - started,
                validation={"accuracy": validation.accuracy.value, "nll": validation.nll.value},
            )
        )
    return model


def evaluate(model: torch.nn.Module, split: Split, device: torch.device) -> ClassificationResult:
    """Measure the model on one part of the data, in evaluation mode and without gradients."""
    import torch
    from torch.utils.data import DataLoader

    from flyball.measure import Classification

    meter = Classification(classes=10, topk=(1, 3))
    model.eval()
    # Without a generator of its own, even a loader that does not shuffle draws from the global one.
    with torch.inference_mode():
        for inputs, targets in DataLoader(split, batch_size=256, generator=torch.Generator()):
            meter.update(model(inputs.to(device)).cpu(), targets)
    return meter.compute()


def build_model(seed: int) -> torch.nn.Module:
    """Build a small convolutional network for 8 by 8 images, with weights drawn from `seed` alone."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *block(1, 32), *block(32, 32), nn.MaxPool2d(2),
            *block(32, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64 * 4, 10),
        )  # fmt: skip


def _start(config: DemoConfig, device: torch.device) -> Event:
    import numpy as np
    import torch

    from flyball._native import __version__
    from flyball.events import RunStarted

    versions = {
        "flyball": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return RunStarted(
        name=config.name,
        seed=config.seed,
        device=str(device),
        versions=versions,
        config=to_mapping(config),
    )


def _measurements(result: ClassificationResult) -> dict[str, Estimate | float]:
    """Choose what a person reads first, each number before the one it must beat."""
    return {
        "accuracy": result.accuracy,
        "commonest class": result.majority_rate,
        "top-3 accuracy": result.topk[3],
        "balanced accuracy": result.balanced_accuracy,
        "macro F1": result.macro_f1,
        "NLL": result.nll,
        "NLL of class shares": result.prior_entropy,
    }
