"""One step, whose modes differ in the list of optimizers alone; what is owned changes, and nothing else."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flyball.batch import Batch
from flyball.errors import InputError
from flyball.govern.governor import Governor
from flyball.objective import Task, Term, Uncertainty
from flyball.train.modes import Mode, blend, incubate, optimizers_for, pass_through
from flyball.train.step import train_epoch, train_step

if TYPE_CHECKING:
    from collections.abc import Callable

INPUTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(2, (12,), generator=torch.Generator().manual_seed(1))
DATA = [(INPUTS[at : at + 4], TARGETS[at : at + 4]) for at in range(0, 12, 4)]


class Grown(nn.Module):
    """A host, and a seed inside that is off, in incubation or blended."""

    alpha: torch.Tensor

    def __init__(self, mode: Mode = "normal", alpha: float = 0.5) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
            self.seed = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.mode = mode
        self.register_buffer("alpha", torch.tensor(alpha))
        self.seed.requires_grad_(mode != "normal")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        host = self.first(inputs).relu()
        if self.mode == "incubator":
            host = incubate(host, self.seed)
        elif self.mode == "blended":
            host = blend(host, self.seed(host), self.alpha)
        out: torch.Tensor = self.head(host)
        return out

    def host_parameters(self) -> list[nn.Parameter]:
        return [*self.first.parameters(), *self.head.parameters()]


def sgd(parameters: Any, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr)


CASES = [("normal", False), ("incubator", True), ("blended", True), ("blended", False)]


@pytest.mark.parametrize(("mode", "with_seed"), CASES)
def test_weights_change_in_every_group_that_is_owned_and_only_there(mode: Mode, with_seed: bool) -> None:  # noqa: FBT001 -- a case
    """Property 32."""
    model = Grown(mode)
    if not with_seed:
        model.seed.requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in model.named_parameters()}
    seed = sgd(model.seed.parameters()) if with_seed else None
    train_epoch(model, DATA, Task(), optimizers_for(mode, sgd(model.host_parameters()), seed))
    for name, value in model.named_parameters():
        assert torch.equal(before[name], value) == (name.startswith("seed") and not with_seed), name


def test_in_incubation_output_and_host_gradients_are_those_without_a_seed() -> None:
    """Property 33: bit for bit, while the seed has gradients of its own."""
    alone, incubating = Grown(), Grown("incubator")
    one, other = alone(INPUTS), incubating(INPUTS)
    assert torch.equal(one, other)
    for output in (one, other):
        nn.functional.cross_entropy(output, TARGETS).backward()  # type: ignore[no-untyped-call]
    for mine, its in zip(alone.host_parameters(), incubating.host_parameters(), strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        assert torch.equal(mine.grad, its.grad)
    assert all(p.grad is not None and bool(p.grad.any()) for p in incubating.seed.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_seed_that_is_not_finite_reaches_nothing(value: float) -> None:
    """Property 33."""
    alone, incubating = Grown(), Grown("incubator")
    with torch.no_grad():
        next(incubating.seed.parameters()).fill_(value)
    output = incubating(INPUTS)
    assert torch.equal(output, alone(INPUTS))
    nn.functional.cross_entropy(output, TARGETS).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in incubating.host_parameters())


def test_the_gradient_of_a_pass_through_is_one_for_both() -> None:
    host, seed = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, 3, dtype=torch.float64)
    (pass_through(host, seed) * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert host.grad is not None
    assert torch.equal(host.grad, weight)
    assert seed.grad is not None
    assert torch.equal(seed.grad, weight)


def test_channels_last_features_come_to_a_seed_contiguous() -> None:
    """What once crashed in the backward."""
    host = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    given: list[torch.Tensor] = []

    def seed(features: torch.Tensor) -> torch.Tensor:
        given.append(features)
        return features * torch.ones(1, requires_grad=True)

    incubate(host, seed).sum().backward()  # type: ignore[no-untyped-call]
    assert given[0].is_contiguous()
    assert not given[0].requires_grad


def test_a_seed_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"the seed gave torch.float32 of shape \(2, 4\) on cpu, and the host has"):
        pass_through(torch.ones(2, 3), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("mode", "seed", "message"),
    [
        ("incubator", False, "`seed` is None: pass its optimizer"),
        ("normal", True, "there is no seed"),
        ("frozen", False, "`mode` is 'frozen'"),
    ],
)
def test_a_mode_says_which_optimizers_it_takes(mode: Any, seed: bool, message: str) -> None:  # noqa: FBT001 -- a case
    optimizer = sgd([nn.Parameter(torch.ones(1))])
    with pytest.raises(InputError, match=message):
        optimizers_for(mode, optimizer, optimizer if seed else None)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.05, 0.99))
def test_full_descent_on_a_quadratic_never_raises_the_loss(seed: int, share: float) -> None:
    """Property 34: with a step below 1 / L, where L is the largest curvature."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()
    largest = float(torch.linalg.eigvalsh(2 * x.T @ x / 20)[-1])
    optimizer = sgd(model.parameters(), lr=share / largest)
    losses = [train_step(model, (x, y), Task("mse"), optimizer).loss.item() for _ in range(15)]
    assert all(after <= before + 1e-12 for before, after in pairwise(losses))


@pytest.mark.parametrize("empty", [[], iter(())])
@pytest.mark.parametrize(("mode", "with_seed"), CASES)
def test_an_empty_loader_is_an_error_that_names_it_in_every_mode(mode: Mode, with_seed: bool, empty: Any) -> None:  # noqa: FBT001
    """Property 35."""
    model = Grown("incubator")
    seed = sgd(model.seed.parameters())
    if not with_seed:
        model.seed.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="`train` gave no batch"):
        train_epoch(
            model,
            empty,
            Task(),
            optimizers_for(mode, sgd(model.host_parameters()), seed if with_seed else None),
            name="train",
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 5, 12, 50])
def test_a_batch_in_parts_gives_the_step_of_the_whole(parts: int, weighted: bool) -> None:  # noqa: FBT001 -- a case
    """The parts are of different sizes and weights, each counts for what it holds."""
    weight = torch.linspace(0.1, 2.0, 12) if weighted else None
    mask = torch.arange(12) > 4
    whole, cut = Grown(), Grown()
    batch = Batch(INPUTS, TARGETS, weight, mask)
    one = train_step(whole, batch, Task(), sgd(whole.host_parameters()))
    other = train_step(cut, batch, Task(), sgd(cut.host_parameters()), accumulate=parts)
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.norm, other.norm)
    assert one.count == pytest.approx(other.count)
    for mine, its in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


def test_a_batch_is_split_evenly_and_what_is_no_sample_goes_into_each_part() -> None:
    table = torch.ones(7, 2)
    parts = Batch({"x": INPUTS, "table": table, "name": "n"}, [TARGETS]).split(5)
    assert [part.samples for part in parts] == [2, 2, 3, 2, 3]
    assert torch.equal(torch.cat([part.inputs["x"] for part in parts]), INPUTS)
    assert torch.equal(torch.cat([part.targets[0] for part in parts]), TARGETS)
    assert all(part.inputs["table"] is table for part in parts)
    names = Batch(INPUTS, [f"image {number}" for number in range(12)]).split(2)
    assert names[1].targets[0] == "image 6"
    whole = Batch(INPUTS[:1], TARGETS[:1])
    assert whole.split(4) == [whole]


class Recorder:
    """Notes in which order things happen to gradients and weights."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(name)
            return call(*args, **kwargs)

        return noted


def test_the_order_is_scale_unscale_measure_clip_step_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Property 41: and the clipped norm is that of the true gradients, not of the scaled ones."""
    model, recorder = Grown(), Recorder()
    optimizer = sgd(model.host_parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for name in ("scale", "unscale_", "step", "update"):
        monkeypatch.setattr(scaler, name, recorder.note(name, getattr(scaler, name)))
    clip = torch.nn.utils.clip_grads_with_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grads_with_norm_", recorder.note("clip", clip))
    before = [p.detach().clone() for p in model.host_parameters()]
    report = train_step(model, DATA[0], Task(), optimizer, clip=0.01, scaler=scaler, accumulate=2)
    assert recorder.seen == ["scale", "scale", "unscale_", "clip", "step", "update"]
    plain = Grown()
    wanted = train_step(plain, DATA[0], Task(), sgd(plain.host_parameters()))
    torch.testing.assert_close(report.norm, wanted.norm)
    torch.testing.assert_close(report.loss, wanted.loss)
    moved = torch.sqrt(sum((p - q).square().sum() for p, q in zip(model.host_parameters(), before, strict=True)))  # type: ignore[arg-type]
    assert moved.item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_a_step_that_the_scaler_skips_is_counted_and_changes_nothing() -> None:
    """Property 41."""
    model = Grown()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    spoiled = [DATA[0], (INPUTS[:4] * math.inf, TARGETS[:4]), DATA[2]]
    before = scaler.get_scale()
    report = train_epoch(model, spoiled, Task(), sgd(model.host_parameters()), scaler=scaler)
    assert (report.steps, report.skipped, report.samples, report.count) == (2, 1, 12, 8.0)
    assert scaler.get_scale() < before
    assert report.loss is not None
    assert math.isfinite(report.loss)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_an_epoch_with_a_governor_counts_what_it_leaves_out_and_not_what_it_asks_again() -> None:
    model = Grown()
    optimizer = sgd(model.host_parameters())
    governor = Governor(model, optimizer, max_norm=1.0)
    data = [DATA[number % 3] for number in range(40)]
    data[30] = (INPUTS[:4] * math.nan, TARGETS[:4])
    report = train_epoch(model, data, Task(), optimizer, governor=governor)
    assert (report.steps, report.skipped, report.samples) == (39, 1, 160)
    assert report.norm_mean is None
    assert report.loss is not None
    assert math.isfinite(report.loss)


def test_an_epoch_reports_its_sums_and_norms() -> None:
    model = Grown()
    optimizer = sgd(model.host_parameters(), lr=0.0)
    report = train_epoch(model, [(INPUTS[:9], TARGETS[:9]), (INPUTS[9:], TARGETS[9:])], Task(), optimizer)
    whole = nn.functional.cross_entropy(model(INPUTS), TARGETS, reduction="sum").item()
    assert report.loss_sum == pytest.approx(whole, rel=1e-6)
    assert report.loss == pytest.approx(whole / 12, rel=1e-6)
    assert (report.count, report.samples, report.steps, report.skipped) == (12.0, 12, 2, 0)
    assert report.norm_mean is not None
    assert report.norm_max is not None
    assert 0.0 < report.norm_mean <= report.norm_max


def test_a_parameter_of_two_optimizers_is_an_error_that_names_it() -> None:
    """Property 42."""
    model = Grown()
    optimizers = [sgd(model.host_parameters()), sgd(model.head.parameters())]
    with pytest.raises(InputError, match=r"`head\.weight` is owned by two optimizers"):
        train_step(model, DATA[0], Task(), optimizers)
    with pytest.raises(InputError, match="`optimizers` is empty"):
        train_step(model, DATA[0], Task(), [])


def test_a_trainable_parameter_of_no_optimizer_is_told_and_its_gradient_does_not_grow() -> None:
    model = Grown("blended")
    optimizer = sgd(model.host_parameters())
    with pytest.warns(UserWarning, match=r"no optimizer owns `seed\.0\.weight` and 1 more"):
        train_step(model, DATA[0], Task(), optimizer)
    assert all(parameter.grad is None for parameter in model.seed.parameters())


def test_parameters_of_the_objective_are_known_too() -> None:
    model, objective = Grown(), Uncertainty() * Task()
    with pytest.warns(UserWarning, match=r"no optimizer owns `weights\.task\.log_variance`"):
        train_step(model, DATA[0], objective, sgd(model.host_parameters()))
    before = [p.detach().clone() for p in objective.parameters()]
    train_step(model, DATA[0], objective, sgd([*model.host_parameters(), *objective.parameters()]))
    assert not torch.equal(before[0], next(objective.parameters()))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"accumulate": 0}, "`accumulate` is 0"),
        ({"accumulate": 1.5}, "`accumulate` is 1.5"),
        ({"clip": -1.0}, "`max_norm` is -1.0"),
    ],
)
def test_an_argument_out_of_range_is_refused(more: dict[str, Any], message: str) -> None:
    model = Grown()
    with pytest.raises(InputError, match=message):
        train_step(model, DATA[0], Task(), sgd(model.host_parameters()), **more)


def test_clipping_is_the_governors_where_there_is_one() -> None:
    model = Grown()
    optimizer = sgd(model.host_parameters())
    with pytest.raises(InputError, match=r"a governor clips: give it `max_norm=1\.0`"):
        train_step(model, DATA[0], Task(), optimizer, clip=1.0, governor=Governor(model, optimizer))


def test_a_batch_in_which_nothing_counts_is_an_error() -> None:
    model = Grown()
    with pytest.raises(InputError, match="nothing in the batch counts"):
        train_step(model, (INPUTS, torch.full((12,), -100)), Task(), sgd(model.host_parameters()))


def test_the_step_number_reaches_the_terms() -> None:
    seen: list[tuple[int, int | None, int]] = []

    class Watched(Term):
        def forward(self, model: Any, batch: Batch, step: Any) -> torch.Tensor:  # noqa: ARG002
            seen.append((step.step, step.steps, step.epoch))
            out: torch.Tensor = step.scores.square().mean()
            return out

    model = Grown()
    train_epoch(model, DATA, Watched(), sgd(model.host_parameters()), step=6, steps=20, epoch=2)
    assert seen == [(6, 20, 2), (7, 20, 2), (8, 20, 2)]


@pytest.mark.parametrize("mode", ["incubator", "blended"])
def test_a_compiled_step_is_not_compiled_anew_when_alpha_changes(mode: Literal["incubator", "blended"]) -> None:
    """Property 53, as far as a step goes: one graph, whatever the blend."""
    model, graphs = Grown(mode), []

    def counted(graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=counted, fullgraph=True)
    for alpha in (0.0, 0.3, 1.0):
        model.alpha.fill_(alpha)
        assert torch.equal(compiled(INPUTS), model(INPUTS))
    assert len(graphs) == 1
