"""What a governed step costs beside the plain one, and the norm of all gradients beside torch's.

The model is a small MLP, so that the step itself weighs nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from benches.harness import Contest
from flyball import Governor
from flyball.govern.gradients import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = ("torch",)

_BATCHES = 200


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


def contests() -> Iterator[Contest[torch.Tensor]]:
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
    yield Contest(
        work=f"{_BATCHES} steps of a trivial MLP",
        answers={name: partial(first_run, make) for name, make in makers.items()},
        same=torch.testing.assert_close,
        timed={name: make().run for name, make in makers.items()},
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
