"""Terms add up, count when they are said to, share what is costly, and remember nothing."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flyball.batch import Batch
from flyball.errors import ConfigError, InputError
from flyball.events import Journal
from flyball.events import read as read_journal
from flyball.govern.governor import Governor
from flyball.objective import (
    Cosine,
    Delay,
    DynamicWeightAverage,
    Linear,
    Objective,
    ObjectiveMeasured,
    StepContext,
    Task,
    Term,
    Uncertainty,
    as_objective,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Number(Term):
    """A term of a known value, that counts how often it is computed."""

    def __init__(self, value: float, **pace: Any) -> None:
        super().__init__(**pace)
        self.value = value
        self.computed = 0

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        self.computed += 1
        return torch.tensor(self.value, dtype=torch.float64)

    def extra_repr(self) -> str:
        return repr(self.value)


class Penalty(Term):
    """A term with a parameter of its own, and something to tell."""

    def __init__(self, **pace: Any) -> None:
        super().__init__(**pace)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, model: Any, batch: Batch, step: StepContext) -> tuple[torch.Tensor, Mapping[str, Any]]:  # noqa: ARG002
        size = step.scores.square().mean()
        return self.scale * size, {"size": size.detach(), "share": 0.5}


class Counted(nn.Module):
    """A model that counts its forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.forwards = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        out: torch.Tensor = self.linear(inputs)
        return out


def batch(samples: int = 4) -> Batch:
    return Batch(torch.randn(samples, 2), torch.arange(samples) % 3)


def value(objective: Objective | Term, step: int = 0, steps: int | None = 10, **where: Any) -> float:
    return float(as_objective(objective).measure(None, batch(), step=step, steps=steps, **where).loss)


numbers = st.floats(-100, 100).filter(lambda number: abs(number) > 1e-3)


@settings(deadline=None)
@given(a=numbers, b=numbers, c=numbers, x=numbers, y=numbers)
def test_sums_products_and_quotients_are_those_of_numbers(a: float, b: float, c: float, x: float, y: float) -> None:
    found = value(a * Number(x) + (Number(y) * b) / c)
    assert math.isclose(found, a * x + b * y / c, rel_tol=1e-12, abs_tol=1e-9)
    assert math.isclose(value(c * (a * Number(x) + b * Number(y))), c * (a * x + b * y), rel_tol=1e-12, abs_tol=1e-9)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=5))
def test_the_builtin_sum_adds_terms(raw: list[float]) -> None:
    assert math.isclose(value(sum(Number(x) for x in raw)), math.fsum(raw), rel_tol=1e-12, abs_tol=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written",
    [
        "Task()",
        "0.5 * Task() + 0.5 * Number(3.0, weight=Cosine(0.0, 0.5))",
        "Task(smoothing=0.1) + 6.0 * Number(1.0, every=2) + 0.1 * Penalty(warmup=0.1)",
        "Linear(0.0, 1.0) * Task('binary', pos_weight=[1.0, 2.0]) + Uncertainty() * Task('mse', name='depth')",
        "2.0 * Delay(5) * Penalty(delay=3, every=2, phase=1, compensate=True)",
        "0.5 * Linear(0.0, 1.0) * Cosine(1.0, 0.0) * (Uncertainty() * Number(1.0)) + Number(2.0)",
        "Task('language', shift=True, output='logits') + DynamicWeightAverage(3.0) * Task('huber', delta=0.5)",
    ],
)
def test_an_objective_reads_like_its_formula(written: str) -> None:
    kinds = (Task, Number, Penalty, Cosine, Linear, Delay, Uncertainty, DynamicWeightAverage)
    objective = as_objective(eval(written, {kind.__name__: kind for kind in kinds}))  # noqa: S307 -- the texts above
    assert repr(objective) == written


def test_a_formula_does_not_change_what_it_is_made_of() -> None:
    first = Number(1.0) + Number(2.0)
    second = 3 * first + Number(5.0)
    assert repr(first) == "Number(1.0) + Number(2.0)"
    assert value(first) == 3.0
    assert value(second) == 14.0


def test_a_term_of_weight_zero_is_not_computed() -> None:
    off, late, on = Number(math.nan), Number(math.nan, weight=Cosine(0.0, 0.5)), Number(1.0)
    outcome = (0.0 * off + late + on).measure(None, batch(), step=0, steps=10)
    assert outcome.loss == 1.0
    assert (off.computed, late.computed, on.computed) == (0, 0, 1)
    assert [part.raw is None for part in outcome.parts] == [True, True, False]


def test_with_other_terms_at_zero_a_step_is_plain_training_bit_for_bit() -> None:
    """Value, gradients and BatchNorm's statistics are those of the plain loss, from one forward."""

    def model() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(Counted(), nn.BatchNorm1d(3))

    data = batch()
    plain, ours = model(), model()
    nn.functional.cross_entropy(plain(data.inputs), data.targets).backward()  # type: ignore[no-untyped-call]
    outcome = (Task() + 0.0 * Penalty() + Penalty(delay=5)).measure(ours, data, step=4, steps=10)
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    assert ours[0].forwards == 1
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    for here, there in zip(plain.buffers(), ours.buffers(), strict=True):
        assert torch.equal(here, there)


@settings(deadline=None)
@given(every=st.integers(1, 6), steps=st.integers(1, 30), data=st.data())
def test_a_term_is_active_where_the_step_says_so_and_its_mean_weight_can_be_kept(
    every: int, steps: int, data: st.DataObject
) -> None:
    """A pure function of the step: the pattern is the same on every rank, and after a resume."""
    phase = data.draw(st.integers(0, every - 1))
    term, kept = Number(1.0, every=every, phase=phase), Number(1.0, every=every, phase=phase, compensate=True)
    order = data.draw(st.permutations(range(steps)))
    assert {step for step in order if term.weight_at(step)} == {step for step in range(steps) if step % every == phase}
    whole = range(every * steps)
    assert sum(kept.weight_at(step) for step in whole) == len(whole)
    assert kept.weight_at(phase + 1, training=False) == 1.0  # where it is only measured it is always computed


def test_delay_warmup_and_schedule_follow_each_other() -> None:
    term = Number(1.0, delay=2, warmup=4, weight=Linear(8.0, 0.0))
    assert [term.weight_at(step, 11) for step in range(11)] == [0, 0, 2, 4, 6, 8, 8, 6, 4, 2, 0]


def test_terms_share_the_forward_and_whatever_else_is_costly() -> None:
    made: list[int] = []

    class Costly(Term):
        def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:
            other: torch.Tensor = model.linear(step.share("attack", lambda: attacked(batch)))
            return (step.scores.mean() - other.mean()).abs()

    def attacked(batch: Batch) -> torch.Tensor:
        made.append(1)
        moved: torch.Tensor = batch.inputs + 1
        return moved

    model = Counted()
    outcome = (Task() + Costly() + Costly() + Penalty()).measure(model, batch(), step=0)
    assert model.forwards == 1
    assert made == [1]
    assert isinstance(outcome.outputs, torch.Tensor)
    (Task() + Costly()).measure(model, batch(), step=1)
    assert made == [1, 1]  # and only within a step


def test_an_objective_whose_terms_need_no_outputs_makes_no_forward() -> None:
    model = Counted()
    assert as_objective(Number(1.0)).measure(model, batch()).outputs is None
    assert model.forwards == 0


def test_weighted_parts_add_up_to_the_loss() -> None:
    objective = 0.3 * Task() + 2.0 * Penalty(weight=Linear(0.0, 1.0)) + Uncertainty(0.5) * Penalty()
    for step in range(5):
        outcome = objective.measure(Counted(), batch(), step=step, steps=5)
        added = sum(part.weighted.item() for part in outcome.parts if part.weighted is not None)
        assert added == pytest.approx(outcome.loss.item(), rel=1e-6)


def test_a_step_is_one_event_with_each_term_raw_weighted_and_its_weight(tmp_path: Path) -> None:
    objective = 0.5 * Task() + 2.0 * Penalty(every=2) + Penalty(name="other")
    outcome = objective.measure(Counted(), batch(), step=1, steps=10)
    with Journal(tmp_path / "events.jsonl", run="r") as journal:
        journal.write(outcome.record(1))
    found = next(iter(read_journal(tmp_path / "events.jsonl"))).event
    assert isinstance(found, ObjectiveMeasured)
    assert list(found.terms) == ["task", "penalty", "other"] == list(objective.names)
    task, off, other = found.terms.values()
    assert task.weight == 0.5
    assert task.raw is not None
    assert task.weighted == pytest.approx(task.raw / 2)
    assert (off.raw, off.weight, off.weighted, off.measured) == (None, 0.0, None, {})
    assert other.measured["share"] == 0.5
    assert found.loss == pytest.approx(outcome.loss.item())


def test_an_event_tells_a_loss_that_is_not_a_number() -> None:
    event = as_objective(Number(math.nan)).measure(None, batch()).record(3)
    assert math.isnan(event.loss)
    assert event.terms["number"].raw is not None
    assert math.isnan(event.terms["number"].raw)


def test_parameters_of_terms_and_weights_reach_optimizer_and_checkpoint() -> None:
    objective = Task() + Penalty() + Uncertainty() * Penalty()
    names = dict(objective.named_parameters())
    assert set(names) == {"terms.penalty.scale", "terms.penalty_2.scale", "weights.penalty_2.log_variance"}
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    objective.measure(Counted(), batch()).loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert names["weights.penalty_2.log_variance"].item() != 0.0
    stream = io.BytesIO()
    torch.save(objective.state_dict(), stream)
    stream.seek(0)
    again = Task() + Penalty() + Uncertainty() * Penalty()
    again.load_state_dict(torch.load(stream, weights_only=True))
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, names[name])


def test_a_module_of_model_and_objective_holds_the_parameters_of_both() -> None:
    objective, model = Task() + Penalty(), Counted()
    bound = objective.bound_to(model)
    assert set(dict(bound.named_parameters())) == {
        "model.linear.weight",
        "model.linear.bias",
        "objective.terms.penalty.scale",
    }
    data = batch()
    assert torch.equal(bound(data, step=3).loss, objective.measure(model, data, step=3).loss)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])  # noqa: S301
def test_a_copy_is_an_objective_of_its_own(again: Callable[[Objective], Objective]) -> None:
    objective = 0.5 * Task(smoothing=0.1) + 2.0 * Penalty(weight=Cosine(1.0, 0.0))
    other = again(objective)
    assert repr(other) == repr(objective)
    model, data = Counted(), batch()
    assert torch.equal(other.measure(model, data, steps=9).loss, objective.measure(model, data, steps=9).loss)
    with torch.no_grad():
        next(other.parameters()).fill_(100.0)
    assert next(objective.parameters()).item() == 2.0


def test_a_step_that_would_train_nothing_is_an_error_not_a_loss_of_zero() -> None:
    objective = Number(1.0, weight=Cosine(0.0, 0.5)) + Number(1.0, every=2, phase=1)
    with pytest.raises(InputError, match=r"every term of .* has weight 0 at step 0"):
        objective.measure(None, batch(), step=0, steps=10)


def test_a_schedule_over_an_unknown_length_names_itself() -> None:
    with pytest.raises(InputError, match=r"`Cosine\(0.0, 0.5\)` needs to know how many steps"):
        as_objective(Number(1.0, weight=Cosine(0.0, 0.5))).measure(None, batch(), step=3)


class Rows(Term):
    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
        return torch.zeros(3)


class Nothing(Term):
    def forward(self, model: Any, batch: Batch, step: StepContext) -> Any:
        pass


@pytest.mark.parametrize(
    ("term", "said"), [(Rows(), r"`Rows\(\)` returned a tensor of shape \(3,\)"), (Nothing(), "returned a NoneType")]
)
def test_a_term_that_returns_no_number_is_named(term: Term, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_objective(term).measure(None, batch())


def test_a_term_without_a_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="`Term` is a term without a `forward`"):
        as_objective(Term()).measure(None, batch())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Number(1.0, every=0), "`every` of `Number` is 0"),
        (lambda: Number(1.0, every=2.0), "`every` of `Number` is 2.0"),
        (lambda: Number(1.0, every=2, phase=2), "`phase` of `Number` is 2"),
        (lambda: Number(1.0, warmup=1.5), "`length` of `Warmup` is 1.5"),
        (lambda: Number(1.0, weight="half"), "`weight` is 'half'"),
        (lambda: Number(1.0, name="a.b"), "`name` of `Number` is 'a.b'"),
        (lambda: Objective([]), "no terms"),
        (lambda: as_objective(3), "`objective` is a int"),
        (lambda: as_objective(nn.CrossEntropyLoss), "`objective` is a type"),
        (lambda: Uncertainty() * (Uncertainty() * Number(1.0)), "has the dynamic weight"),
        (lambda: DynamicWeightAverage(0.0), "`temperature` of `DynamicWeightAverage` is 0.0"),
        (lambda: Uncertainty(math.nan), "`initial` of `Uncertainty` is nan"),
    ],
)
def test_an_invalid_formula_fails_where_it_is_written(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: Task() + 1,
        lambda: Task() * "2",  # type: ignore[operator]
        lambda: Task() / Task(),  # type: ignore[operator]
        lambda: Task() * Task(),
        lambda: True * Task(),
        lambda: 3 + (Task() + Task()),
    ],
)
def test_what_is_no_formula_is_a_type_error(nonsense: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ConfigError)):
        nonsense()


def test_a_plain_loss_function_is_an_objective() -> None:
    model, data = Counted(), batch()
    objective = as_objective(nn.CrossEntropyLoss(label_smoothing=0.1))
    wanted = nn.functional.cross_entropy(model(data.inputs), data.targets, label_smoothing=0.1)
    assert torch.equal(objective.measure(model, data).loss, wanted)
    assert repr(objective) == "Task(CrossEntropyLoss())"


def test_a_weight_learnt_from_uncertainty_is_the_formula_and_finds_its_optimum() -> None:
    """exp(-s) L + s is least at s = log L, where the weight is 1 / L."""
    objective = Uncertainty() * Number(4.0)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.2)
    outcome = objective.measure(None, batch())
    for _ in range(300):
        outcome = objective.measure(None, batch())
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert next(objective.parameters()).item() == pytest.approx(math.log(4.0), abs=1e-5)
    part = outcome.parts[0]
    assert torch.as_tensor(part.weight).item() == pytest.approx(0.25, abs=1e-5)
    assert outcome.loss.item() == pytest.approx(1.0 + math.log(4.0), abs=1e-5)


def by_hand(before: list[float], last: list[float], temperature: float) -> list[float]:
    ratios = [math.exp(b / a / temperature) for a, b in zip(before, last, strict=True)]
    return [len(ratios) * ratio / sum(ratios) for ratio in ratios]


def test_weights_of_falling_losses_follow_the_last_two_epochs() -> None:
    balance = DynamicWeightAverage(temperature=2.0)
    first, second = Number(0.0), Number(0.0)
    objective = balance * first + balance * second
    epochs = [([1.0, 3.0], [4.0, 4.0]), ([1.0, 1.0], [2.0, 4.0]), ([0.5, 0.5], [3.0, 3.0]), ([9.0], [9.0])]
    found = []
    for epoch, losses in enumerate(epochs):
        weights: list[float] = []
        for a, b in zip(*losses, strict=True):
            first.value, second.value = a, b
            outcome = objective.measure(None, batch(), epoch=epoch)
            weights = [torch.as_tensor(part.weight).item() for part in outcome.parts]
        found.append(weights)
    assert found[0] == found[1] == [1.0, 1.0]
    assert found[2] == pytest.approx(by_hand([2.0, 4.0], [1.0, 3.0], 2.0), rel=1e-6)
    assert found[3] == pytest.approx(by_hand([1.0, 3.0], [0.5, 3.0], 2.0), rel=1e-6)


def test_what_dynamic_weights_remember_is_in_the_state_and_measuring_does_not_touch_it() -> None:
    def made() -> Objective:
        balance = DynamicWeightAverage()
        return balance * Number(1.0) + balance * Number(2.0, weight=Linear(2.0, 1.0, over=50))

    whole, halves = made(), made()
    for step in range(12):
        if step == 7:
            state = halves.state_dict()
            halves = made()
            halves.load_state_dict(state)
        halves.measure(None, batch(), step=step, epoch=99, training=False)
        one, other = (o.measure(None, batch(), step=step, epoch=step // 3) for o in (whole, halves))
        assert torch.equal(one.loss, other.loss)
    for name, kept in whole.state_dict().items():
        assert torch.equal(kept, halves.state_dict()[name])


def test_a_context_is_read_and_not_changed_by_asking_twice() -> None:
    context = StepContext(Counted(), batch(), step=1)
    assert context.forwarded() is None
    assert context.outputs is context.outputs
    assert context.forwarded() is context.outputs


def test_a_batch_that_a_governor_refuses_leaves_no_trace_in_dynamic_weights() -> None:
    """Their memory is part of the run: given as `extra`, it goes back with the rest."""

    def run(steps: list[int]) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Counted()
        balance = DynamicWeightAverage()
        objective = balance * Task() + balance * Penalty()
        optimizer = torch.optim.SGD([*model.parameters(), *objective.parameters()], lr=0.01)
        governor = Governor(model, optimizer, extra={"objective": objective})
        for step in steps:
            bad = math.nan if step < 0 else 1.0
            data = Batch(torch.ones(6, 2) * bad, torch.arange(6) % 3)
            outcome = objective.measure(model, data, step=abs(step), epoch=abs(step) // 4)
            outcome.loss.backward()  # type: ignore[no-untyped-call]
            governor.step(outcome.loss)
        return objective.state_dict()

    healthy = run(list(range(14)))
    faulty = run([*range(8), -8, *range(8, 14)])  # the bad one is the first of an epoch
    assert bool(healthy["weights.task.full"] >= 2)
    for name, value in healthy.items():
        assert torch.equal(value, faulty[name]), name


class GradCAM:
    def __repr__(self) -> str:
        return "GradCAM()"


class Attacking(Term):
    """What later terms look like: they share one costly adversarial batch, and the forward on it."""

    attacks = 0

    def adversarial(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:
        def attack() -> torch.Tensor:
            Attacking.attacks += 1
            found: torch.Tensor = model(batch.inputs + 0.1)
            return found

        return step.share("pgd, eps 8/255", attack)


class Trades(Attacking):
    def __init__(self, eps: float, steps: int, **pace: Any) -> None:
        super().__init__(**pace)
        self.said = f"eps={eps:.4f}, steps={steps}"

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:
        return (step.scores - self.adversarial(model, batch, step)).square().mean()

    def extra_repr(self) -> str:
        return self.said


class Stable(Attacking):
    def __init__(self, explainer: GradCAM, **pace: Any) -> None:
        super().__init__(**pace)
        self.explainer = explainer

    def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:
        return (step.scores.relu() - self.adversarial(model, batch, step).relu()).abs().mean()

    def extra_repr(self) -> str:
        return repr(self.explainer)


def test_robustness_and_explanation_cost_one_adversarial_batch_and_not_two() -> None:
    objective = Task() + 6.0 * Trades(eps=8 / 255, steps=10, every=2) + 0.1 * Stable(GradCAM(), warmup=0.1)
    shown = "Task() + 6.0 * Trades(eps=0.0314, steps=10, every=2) + 0.1 * Stable(GradCAM(), warmup=0.1)"
    assert repr(objective) == shown
    for step in range(4):
        model, Attacking.attacks = Counted(), 0
        outcome = objective.measure(model, batch(), step=step, steps=20)
        assert (model.forwards, Attacking.attacks) == (2, 1)
        weights = [part.weight for part in outcome.parts]
        assert weights == pytest.approx([1.0, 6.0 if step % 2 == 0 else 0.0, 0.1 * min(1.0, (step + 1) / 2)])
