"""What the trainer costs beside the plain loop and beside other trainers, and what a checkpoint costs beside a file.

The step is trivial, so that it weighs nothing, and the times are those of one step. Every contestant trains the same
model on the same batches, reads the loss at every step as a loop that logs does, and must end with the same weights.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from benches.harness import Contest, cpu_seconds
from benches.snapshot import Run as State
from flyball import Policy, Trainer
from flyball.govern.snapshot import TrainingState
from flyball.govern.snapshot import spill as disk
from flyball.measure import Classification
from flyball.objective import Task
from flyball.train import Callback, Step
from flyball.train.checkpoint import Checkpoints, found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# What is not installed is left out: `pip install '.[rivals]'` brings them.
RIVALS = {"lightning_fabric": "lightning-fabric", "accelerate": "accelerate"}
PACKAGES = ("torch", "safetensors", *(package for module, package in RIVALS.items() if find_spec(module)))

_STEPS = 400


class Plain:
    """The loop as everyone writes it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        inputs = torch.randn(_STEPS, 8, 8)
        self.batches = [(one, (one.sum(dim=1) > 0).long()) for one in inputs]

    def run(self) -> torch.Tensor:
        """Train on every batch, and return a weight."""
        for inputs, targets in self.batches:
            loss = functional.cross_entropy(self.model(inputs), targets)
            self.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()
        return next(self.model.parameters()).detach().clone()

    def backward(self, loss: torch.Tensor) -> None:
        """Take the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]


class Ours(Plain):
    """The trainer, without a run folder."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.trainer = Trainer(self.model, Task(), self.optimizer, precision="fp32", **more)

    def run(self) -> torch.Tensor:
        """Train on every batch, and return a weight."""
        self.trainer.fit(self.batches, epochs=1)
        return next(self.model.parameters()).detach().clone()


class Meter(Callback):
    """Measures accuracy and loss while it trains, from the scores that are there anyway."""

    def __init__(self) -> None:
        self.meter = Classification(4, topk=(1,))
        self.scores = torch.empty(0)

    def watch(self, model: nn.Module) -> None:
        """Keep what the model says last."""
        model.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: object, outputs: torch.Tensor) -> None:
        self.scores = outputs.detach()

    def step_ends(self, trainer: Trainer, step: Step) -> None:  # noqa: ARG002
        self.meter.update(self.scores.numpy(), _TARGETS)


_TARGETS = torch.arange(8).remainder(4).numpy()


class Metered(Ours):
    """The trainer with a governor and a meter."""

    def __init__(self) -> None:
        super().__init__(policy=Policy(), callbacks=[meter := Meter()])
        meter.watch(self.model)


class Fabric(Plain):
    """Lightning Fabric around the plain loop."""

    def __init__(self) -> None:
        super().__init__()
        from lightning_fabric import Fabric as Made

        self.fabric = Made(accelerator="cpu", devices=1)
        self.model, self.optimizer = self.fabric.setup(self.model, self.optimizer)

    def backward(self, loss: torch.Tensor) -> None:
        """Take the gradients as Fabric does."""
        self.fabric.backward(loss)


class Accelerate(Plain):
    """Accelerate around the plain loop."""

    def __init__(self) -> None:
        super().__init__()
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=True)
        self.model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)

    def backward(self, loss: torch.Tensor) -> None:
        """Take the gradients as Accelerate does."""
        self.accelerator.backward(loss)


def contests() -> Iterator[Contest[Any]]:
    """Yield the cost of a step, bare and governed, and that of a checkpoint."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield _steps({"flyball, bare": Ours, "plain loop": Plain, **_installed()})
        yield _steps({"flyball, governor and meter": Metered, "plain loop": Plain})
        with tempfile.TemporaryDirectory(dir=os.environ.get("FLYBALL_BENCH_FOLDER")) as folder:
            yield from _checkpoints(Path(folder))
    finally:
        torch.set_num_threads(threads)


def _installed() -> dict[str, Callable[[], Plain]]:
    rivals = {"lightning_fabric": ("Fabric", Fabric), "accelerate": ("Accelerate", Accelerate)}
    return {name: make for module, (name, make) in rivals.items() if find_spec(module)}


def _steps(makers: dict[str, Any]) -> Contest[Any]:
    def first_run(make: Callable[[], Plain]) -> torch.Tensor:
        return make().run()

    return Contest(
        work="a trivial step",
        answers={name: partial(first_run, make) for name, make in makers.items()},
        same=torch.testing.assert_close,
        timed={name: make().run for name, make in makers.items()},
        timer=lambda work: cpu_seconds(work, least=0.05) / _STEPS,
    )


def _checkpoints(folder: Path) -> Iterator[Contest[Any]]:
    run = State()
    checkpoints = Checkpoints(folder / "checkpoints", TrainingState(run.model, run.optimizer), keep=1)
    tensors = {str(number): tensor for number, tensor in enumerate(run.tensors)}

    def ours() -> None:
        checkpoints.save(1)
        checkpoints.wait()

    def theirs(*, durable: bool) -> None:
        save_file(tensors, folder / "tensors.safetensors")
        if durable:
            _flush(folder / "tensors.safetensors")

    def pickled() -> None:
        torch.save(tensors, folder / "tensors.pt")

    def back() -> None:
        run.capture()
        run.restore()

    def after(work: Callable[[], None], answer: Callable[[], list[str]]) -> list[str]:
        work()
        return answer()

    size = f"{len(run.flat) / 1e6:.0f} MB"
    yield Contest(
        work=f"a checkpoint of {size} on the disk",
        answers={
            "flyball": lambda: after(ours, lambda: _held(found(checkpoints.folder)[-1].path / disk.TENSORS)),
            "safetensors, flushed": lambda: after(
                partial(theirs, durable=True), lambda: _held(folder / "tensors.safetensors")
            ),
            "safetensors, not flushed": lambda: after(
                partial(theirs, durable=False), lambda: _held(folder / "tensors.safetensors")
            ),
            "torch.save": lambda: after(pickled, lambda: _digests(torch.load(folder / "tensors.pt").values())),
        },
        same=_agree,
        timed={
            "flyball": ours,
            "safetensors, flushed": partial(theirs, durable=True),
            "safetensors, not flushed": partial(theirs, durable=False),
            "torch.save": pickled,
        },
        timer=_wall,
    )

    def held_up(work: Callable[[], object]) -> float:
        spent = _wall(work)
        checkpoints.wait()
        return spent

    yield Contest(
        work=f"held up by a checkpoint of {size}",
        answers={
            "flyball": lambda: after(ours, lambda: _held(found(checkpoints.folder)[-1].path / disk.TENSORS)),
            "snapshot in memory": lambda: after(back, lambda: _digests(run.tensors)),
        },
        same=_agree,
        timed={"flyball": partial(checkpoints.save, 1), "snapshot in memory": run.capture},
        timer=held_up,
    )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wall(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _digests(tensors: Iterable[torch.Tensor]) -> list[str]:
    """Name what tensors hold, whatever they are called and in whatever order they come."""
    return sorted(hashlib.blake2b(tensor.detach().numpy().tobytes()).hexdigest() for tensor in tensors)


def _held(path: Path) -> list[str]:
    return _digests(load_file(path).values())


def _agree(ours: list[str], theirs: list[str]) -> None:
    assert ours == theirs
