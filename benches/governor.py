"""What a governed step costs beside the plain one, one observation, and the norm of all gradients beside torch's.

The model is a small MLP, so that the step itself weighs nothing; and then models of a size that trains, where what the
governor adds to a step is measured (snapshots, batches served again and all) and set beside a step of 100 ms.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from benches.harness import Contest
from flyball import Governor, Vitals
from flyball.govern.gradients import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = ("torch",)

_BATCHES = 200
_CADENCE = 100  # updates between two snapshots, by default
_STEP = 0.1  # seconds


class Plain:
    """The loop as everyone writes it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        inputs = torch.randn(_BATCHES, 8, 8)
        self.batches = [(one, (one.sum(dim=1) > 0).long()) for one in inputs]

    def run(self) -> torch.Tensor:
        """Train on every batch, and return a weight."""
        for inputs, targets in self.batches:
            loss = functional.cross_entropy(self.model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()  # every loop that logs reads it
        return next(self.model.parameters()).detach().clone()


class Governed(Plain):
    """The same under a governor."""

    def __init__(self, *, fed: bool) -> None:
        super().__init__()
        self.governor = Governor(self.model, self.optimizer)
        self.fed = fed

    def run(self) -> torch.Tensor:
        """Train on every batch, and return a weight."""
        for inputs, targets in self.governor.feed(self.batches) if self.fed else self.batches:
            loss = functional.cross_entropy(self.model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.governor.step(loss)
        return next(self.model.parameters()).detach().clone()


def contests() -> Iterator[Contest[Any]]:
    """Yield the norm and the loop; a run of it is 200 steps."""
    torch.set_num_threads(1)
    makers: dict[str, Callable[[], Plain]] = {
        "flyball, with a feed": partial(Governed, fed=True),
        "flyball, without a feed": partial(Governed, fed=False),
        "plain loop": Plain,
    }

    def first_run(make: Callable[[], Plain]) -> torch.Tensor:
        return make().run()

    yield norm_contest()
    yield observation_contest()
    yield Contest(
        work=f"{_BATCHES} steps of a trivial MLP",
        answers={name: partial(first_run, make) for name, make in makers.items()},
        same=torch.testing.assert_close,
        timed={name: make().run for name, make in makers.items()},
    )
    yield long_step_contest(width=316, clip=None)
    yield long_step_contest(width=1000, clip=1.0)


class Realistic:
    """A deep MLP under SGD with momentum, as large as a model that takes 100 ms a step may be."""

    def __init__(self, width: int, clip: float | None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(*[part for _ in range(10) for part in (nn.Linear(width, width), nn.ReLU())])
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
        self.clip = clip
        inputs = torch.randn(_CADENCE, 8, width)
        self.batches = [(one, one.roll(1, dims=1)) for one in inputs]

    def backward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss, with the gradients taken."""
        loss = functional.mse_loss(self.model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def weights(self) -> torch.Tensor:
        """Return a copy of the first of them."""
        return next(self.model.parameters()).detach().clone()


class RealisticPlain(Realistic):
    """In a loop that logs its loss, and clips if it is told to."""

    def seconds(self) -> float:
        """Train for a hundred steps, and return the CPU seconds of a step besides forward and backward."""
        spent = 0.0
        for inputs, targets in self.batches:
            loss = self.backward(inputs, targets)
            started = time.process_time()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()
            spent += time.process_time() - started
        return spent / _CADENCE


class RealisticGoverned(Realistic):
    """Under a governor, with a feed."""

    def __init__(self, width: int, clip: float | None) -> None:
        super().__init__(width, clip)
        self.governor = Governor(self.model, self.optimizer, max_norm=clip)

    def seconds(self) -> float:
        """Do the same; the whole of a batch that is served again counts."""
        spent, started = 0.0, time.process_time()
        for inputs, targets in self.governor.feed(self.batches):
            again = self.governor.probing
            if not again:
                spent += time.process_time() - started
            loss = self.backward(inputs, targets)
            if not again:
                started = time.process_time()
            self.governor.step(loss)
            spent += time.process_time() - started
            started = time.process_time()
        return spent / _CADENCE


def long_step_contest(*, width: int, clip: float | None) -> Contest[torch.Tensor]:
    """Return the contest of a step of 100 ms: what the plain loop takes, with what the governor added to its rest."""
    kinds: dict[str, type[RealisticPlain | RealisticGoverned]] = {
        "flyball": RealisticGoverned,
        "plain loop": RealisticPlain,
    }
    runs = {name: kind(width, clip) for name, kind in kinds.items()}

    def answer(kind: type[RealisticPlain | RealisticGoverned]) -> torch.Tensor:
        run = kind(64, clip)
        run.seconds()
        return run.weights()

    plain: list[float] = []

    def beside() -> float:
        plain.append(runs["plain loop"].seconds())
        return _STEP

    def governed() -> float:
        spent = runs["flyball"].seconds()
        return _STEP + spent - (statistics.median(plain[-5:]) if plain else spent)

    parameters = sum(one.numel() for one in runs["plain loop"].model.parameters())
    return Contest(
        work=f"a step of 100 ms, {parameters / 1e6:.0f}M parameters{', clipped' if clip is not None else ''}",
        answers={name: partial(answer, kind) for name, kind in kinds.items()},
        same=torch.testing.assert_close,
        timed={"flyball": governed, "plain loop": beside},
        timer=lambda work: float(work()),  # type: ignore[arg-type] # these two say their seconds
    )


class Window:
    """The rule that many loops have: a loss above mean + 6 deviations of the last twenty."""

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=20)

    def bad(self, loss: float) -> bool:
        """Judge one loss."""
        losses = self.losses
        if len(losses) > 2:
            mean = sum(losses) / len(losses)
            deviation = (sum((one - mean) ** 2 for one in losses) / len(losses)) ** 0.5
            if not loss <= mean + 6.0 * deviation + 1e-6:
                return True
        losses.append(loss)
        return False


def observation_contest() -> Contest[list[bool]]:
    """Return the contest of one observation through Python; `cargo bench --bench vitals` has the compiled half."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(512, generator=generator).add(1.0).tolist()
    vitals, window = Vitals(), Window()

    def ours(vitals: Vitals) -> list[bool]:
        return [vitals.observe(loss, loss).action != "apply" for loss in losses]

    def rival(window: Window) -> list[bool]:
        return [window.bad(loss) for loss in losses]

    def same(one: list[bool], other: list[bool]) -> None:
        assert one == other

    def observe_all() -> None:
        for loss in losses:
            vitals.observe(loss, loss)

    def judge_all() -> None:
        for loss in losses:
            window.bad(loss)

    return Contest(
        work="512 observations of loss and norm, nothing wrong",
        answers={"flyball": lambda: ours(Vitals()), "window of 20, Python": lambda: rival(Window())},
        same=same,
        timed={"flyball": observe_all, "window of 20, Python": judge_all},
    )


def norm_contest() -> Contest[torch.Tensor]:
    """Return the contest of the norm of ten million gradients; one read of their memory is the bound."""
    parameters = [nn.Parameter(torch.zeros(1000, 1000)) for _ in range(10)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    norm = Norm()

    def gradients() -> list[torch.Tensor]:
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def ours() -> torch.Tensor:
        return torch.as_tensor(norm.of_gradients(parameters), dtype=torch.float32)

    return Contest(
        work="norm of 10M gradients in 10 tensors",
        answers={
            "flyball": ours,
            "torch foreach": lambda: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients()))).cpu(),  # noqa: SLF001 -- the rival
            "torch get_total_norm": lambda: torch.nn.utils.get_total_norm(gradients()),
        },
        # Torch adds a million squares in single precision, and is off by a hundred-thousandth; ours is not.
        same=partial(torch.testing.assert_close, rtol=1e-4, atol=0.0),
    )
