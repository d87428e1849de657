"""What an objective, an average and an evaluation cost beside the same written by hand: small models, so it shows."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benches.harness import Contest
from flyball.evaluation import evaluate
from flyball.objective import Cosine, Objective, Task, Term, as_objective
from flyball.train.average import EMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PACKAGES = ("torch",)

_CALLS = 200


class _Square(Term):
    """The mean square of the scores."""

    def forward(self, model: Any, batch: Any, step: Any) -> torch.Tensor:  # noqa: ARG002
        value: torch.Tensor = step.scores.square().mean()
        return value


def contests() -> Iterator[Contest[torch.Tensor]]:
    """Yield one contest for each; a run of the first three is 200 calls."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Linear(8, 10)
    inputs, targets = torch.randn(32, 8), torch.randint(10, (32,))

    def repeated(call: Callable[[], torch.Tensor]) -> torch.Tensor:
        result = call()
        for _ in range(_CALLS - 1):
            result = call()
        return result

    def ours(objective: Objective) -> torch.Tensor:
        return objective.measure(model, (inputs, targets), step=3, steps=10).loss

    def plain() -> torch.Tensor:
        return functional.cross_entropy(model(inputs), targets)

    factor = Cosine(0.0, 0.5).at(3, 10)

    def plain_sum() -> torch.Tensor:
        scores: torch.Tensor = model(inputs)
        total: torch.Tensor = functional.cross_entropy(scores, targets) + factor * scores.square().mean()
        return total

    yield _contest(
        f"{_CALLS} losses of a linear model",
        {"Task()": partial(repeated, partial(ours, as_objective(Task()))), "the loss alone": partial(repeated, plain)},
    )
    yield _contest(
        f"{_CALLS} sums of two terms",
        {
            "Task() + Cosine * Square()": partial(repeated, partial(ours, Task() + Cosine(0.0, 0.5) * _Square())),
            "written by hand": partial(repeated, plain_sum),
        },
    )
    yield from _averages()
    yield from _evaluations()


def _averages() -> Iterator[Contest[torch.Tensor]]:
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(20)))
    kept = copy.deepcopy(model)
    ours = EMA(kept, decay=0.99, warmup=False)
    theirs = AveragedModel(kept, multi_avg_fn=get_ema_multi_avg_fn(0.99))  # type: ignore[no-untyped-call]

    def run(average: EMA | AveragedModel) -> torch.Tensor:
        for _ in range(_CALLS):
            average.update_parameters(model)
        weight: torch.Tensor = next(average.module.parameters())
        return weight.detach().clone()

    yield _contest(
        f"{_CALLS} updates of an average of 40 tensors",
        {"EMA": partial(run, ours), "torch's AveragedModel": partial(run, theirs)},
    )


def _evaluations() -> Iterator[Contest[torch.Tensor]]:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    inputs, targets = torch.randn(4096, 64), torch.randint(10, (4096,))
    batches = list(zip(inputs.split(128), targets.split(128), strict=True))  # type: ignore[no-untyped-call]

    def ours() -> torch.Tensor:
        found = evaluate(model, batches)
        return torch.tensor([found.loss.value, found.numbers()["accuracy"].value])

    def by_hand() -> torch.Tensor:
        loss, right, samples = 0.0, 0, 0
        model.eval()
        with torch.no_grad():
            for x, y in batches:
                scores = model(x)
                loss += functional.cross_entropy(scores, y, reduction="sum").item()
                right += int((scores.argmax(1) == y).sum().item())
                samples += len(y)
        model.train()
        return torch.tensor([loss / samples, right / samples])

    yield _contest("loss and accuracy of 32 batches", {"evaluate": ours, "a loop of loss and accuracy": by_hand})


def _contest(work: str, contestants: dict[str, Callable[[], torch.Tensor]]) -> Contest[torch.Tensor]:
    return Contest(work=work, answers=contestants, same=torch.testing.assert_close, timed=contestants)
