"""An evaluation that can be believed: weighted right, nothing left out in silence, and nothing changed by looking."""

from __future__ import annotations

import json
import math
import random
from dataclasses import FrozenInstanceError
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

import flyball
from flyball.batch import Batch
from flyball.errors import InputError
from flyball.evaluation import Evaluation, evaluate
from flyball.evaluation.result import CLAMP
from flyball.evaluation.tally import Rows, weighted_mean
from flyball.events import Evaluated
from flyball.events.strict_json import decode
from flyball.objective import Linear, StepContext, Task, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N, C = 40, 4
INPUTS = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randint(3, (N,), generator=torch.Generator().manual_seed(1))  # the last class has no sample


def model(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, C))


def loader(size: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(INPUTS[at : at + size], TARGETS[at : at + size]) for at in range(0, N, size)]


def same(scores: torch.Tensor) -> torch.Tensor:
    return scores


@settings(deadline=None)
@given(st.sets(st.integers(1, N - 1)), st.booleans())
def test_the_loss_and_all_counts_do_not_depend_on_the_batches(cuts: set[int], weighted: bool) -> None:  # noqa: FBT001 -- drawn
    """Property 37."""
    net, weight = model(), torch.linspace(0.5, 2.0, N)
    edges = [0, *sorted(cuts), N]
    batches = [Batch(INPUTS[a:b], TARGETS[a:b], weight[a:b] if weighted else None) for a, b in pairwise(edges)]
    found = evaluate(net, batches)
    net.eval()
    with torch.no_grad():
        each = nn.functional.cross_entropy(net(INPUTS), TARGETS, reduction="none").double()
        right = net(INPUTS).argmax(1) == TARGETS
    counts = weight.double() if weighted else torch.ones(N, dtype=torch.float64)
    assert found.loss.value == pytest.approx(float((each * counts).sum() / counts.sum()), rel=1e-6)
    assert found.accuracy is not None
    assert found.accuracy.value == right.double().mean().item()
    assert found.correct is not None
    assert found.correct.tolist() == right.tolist()
    assert (found.samples, found.batches, found.skipped) == (N, len(batches), {})
    assert found.count == pytest.approx(float(counts.sum()))


def test_two_batches_of_nine_and_one_are_weighted_by_their_samples() -> None:
    scores = torch.zeros(10, 2)
    scores[9, 0] = 100.0  # nine samples cost ln 2, one costs 100
    targets = torch.ones(10, dtype=torch.long)
    found = evaluate(same, [(scores[:9], targets[:9]), (scores[9:], targets[9:])])
    assert found.loss.value == pytest.approx((9 * math.log(2) + 100) / 10, rel=1e-6)


def test_accuracy_is_a_share_and_the_classes_add_up_to_it() -> None:
    """Property 36: the sum over classes of accuracy times count is the whole; a class without samples has none."""
    found = evaluate(model(), loader())
    assert found.accuracy is not None
    assert found.per_class_accuracy is not None
    assert found.per_class_counts is not None
    assert 0.0 <= found.accuracy.low <= found.accuracy.value <= found.accuracy.high <= 1.0
    assert found.per_class_accuracy[3] is None
    assert found.per_class_counts[3] == 0
    pairs = zip(found.per_class_accuracy, found.per_class_counts, strict=True)
    assert sum(share.value * count for share, count in pairs if share) == pytest.approx(found.accuracy.value * N)


def test_one_batch_and_a_model_that_is_always_wrong_are_ordinary() -> None:
    scores = nn.functional.one_hot((TARGETS + 1) % C, C).float()
    found = evaluate(same, [(scores, TARGETS)])
    assert found.accuracy is not None
    assert found.accuracy.value == 0.0
    assert (found.loss.low, found.loss.high) == (-math.inf, math.inf)  # one batch says nothing of the spread


@pytest.mark.parametrize("empty", [[], iter(()), DataLoader(TensorDataset(INPUTS[:0], TARGETS[:0]))])
def test_an_empty_loader_is_a_value_error_that_names_it(empty: Any) -> None:
    """Property 35: also one that has no length."""
    net = model().train()
    with pytest.raises(ValueError, match="`validate` gave no batch"):
        evaluate(net, empty, name="validate")
    assert net.training


def test_batches_without_a_sample_that_counts_are_an_error_that_says_why() -> None:
    nothing = (INPUTS, torch.full((N,), -100))
    with pytest.raises(
        ValueError, match=r"2 batches .* 1 because they have no samples, 1 because nothing in them counts"
    ):
        evaluate(model(), [(INPUTS[:0], TARGETS[:0]), nothing])


def test_every_batch_is_counted_and_what_is_left_out_is_told() -> None:
    batches = [*loader(), (INPUTS[:0], TARGETS[:0]), (INPUTS, torch.full((N,), -100))]
    found = evaluate(model(), batches)
    assert found.batches == len(batches)
    assert found.skipped == {"they have no samples": 1, "nothing in them counts": 1}
    assert found.loss.value == evaluate(model(), loader()).loss.value
    assert "1 batches left out: they have no samples" in str(found)


def test_masked_and_ignored_samples_are_in_no_number() -> None:
    mask = torch.arange(N) % 3 > 0
    ignored = TARGETS.clone()
    ignored[::5] = -100
    counts = mask & (ignored != -100)
    found = evaluate(
        model(), [Batch(INPUTS[:9], ignored[:9], mask=mask[:9]), Batch(INPUTS[9:], ignored[9:], mask=mask[9:])]
    )
    rest = evaluate(model(), [(INPUTS[counts], TARGETS[counts])])
    assert found.loss.value == pytest.approx(rest.loss.value, rel=1e-6)
    assert found.accuracy == rest.accuracy
    assert found.correct is not None
    assert rest.correct is not None
    assert found.correct.tolist() == rest.correct.tolist()


def test_scores_that_are_not_finite_are_counted_and_spoil_the_loss_but_not_the_rest() -> None:
    scores = torch.randn(N, C, generator=torch.Generator().manual_seed(3))
    healthy = evaluate(same, [(scores[10:], TARGETS[10:])])
    scores[4:7] = torch.nan
    found = evaluate(same, [(scores[:10], TARGETS[:10]), (scores[10:], TARGETS[10:])])
    assert (found.nonfinite_batches, found.nonfinite_samples) == (1, 3)
    assert math.isnan(found.loss.value)
    assert found.classification is not None
    assert found.classification.samples == N - 3
    assert found.correct is not None
    assert not found.correct[4:7].any()  # no answer is no right answer
    assert healthy.correct is not None
    assert found.correct[10:].tolist() == healthy.correct.tolist()
    assert "3 samples are not finite" in str(found)
    broken = evaluate(same, [(torch.full((N, C), torch.nan), TARGETS)])
    assert broken.accuracy is None
    assert math.isnan(broken.loss.value)


LANGUAGE = Task("language", shift=True)


def tokens(batches: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(4)
    made = []
    for index in range(batches):
        targets = torch.randint(6, (2 + index, 5), generator=generator)
        targets[0, 3:] = -100
        made.append(Batch(torch.randn(2 + index, 5, 6, generator=generator), targets))
    return made


def test_perplexity_is_e_to_the_loss_of_a_token() -> None:
    """Property 38: of all tokens, whatever batch they are in, and whatever the padding."""
    batches = tokens()
    losses, right = [], []
    for batch in batches:
        scores, targets = batch.inputs[:, :-1].reshape(-1, 6), batch.targets[:, 1:].reshape(-1)
        kept = targets != -100
        losses += nn.functional.cross_entropy(scores[kept], targets[kept], reduction="none").tolist()
        right += (scores[kept].argmax(1) == targets[kept]).tolist()
    found = evaluate(same, batches, objective=LANGUAGE)
    assert found.perplexity is not None
    assert found.accuracy is not None
    assert found.loss.value == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert found.perplexity.value == math.exp(found.loss.value)
    assert found.perplexity.low <= found.perplexity.value <= found.perplexity.high
    assert found.accuracy.value == sum(right) / len(right)
    assert found.count == len(right)


@pytest.mark.parametrize(("score", "perplexity"), [(torch.nan, math.nan), (CLAMP + 1.0, math.inf), (1e6, math.inf)])
def test_perplexity_is_infinite_above_the_clamp_and_not_a_number_for_none(score: float, perplexity: float) -> None:
    """Property 38: NaN stays NaN, and is not taken for a large number."""
    scores = torch.zeros(1, 2, 2)
    scores[..., 0] = score
    found = evaluate(same, [(scores, torch.ones(1, 2, dtype=torch.long))], objective=Task("language"))
    assert found.perplexity is not None
    assert repr(found.perplexity.value) == repr(perplexity)
    assert found.nonfinite_batches == math.isnan(score)


class Everything:
    """What looking must not change, as values that compare."""

    def __init__(self, net: nn.Module, data: Any = None) -> None:
        self.modes = {name: part.training for name, part in net.named_modules()}
        self.grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
        self.state = {name: value.clone() for name, value in net.state_dict().items()}
        self.versions = [tensor._version for tensor in (*net.parameters(), *net.buffers())]
        self.python, self.torch = random.getstate(), torch.get_rng_state()
        self.numpy = np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002
        self.order = None if getattr(data, "generator", None) is None else data.generator.get_state()

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Everything)
        return all(_same(value, getattr(other, name)) for name, value in vars(self).items())

    __hash__ = None  # type: ignore[assignment]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


class Drawing(TensorDataset):
    """A data set that draws from every generator, and breaks off when it is told to."""

    breaks = False

    def __getitem__(self, index: Any) -> Any:
        random.random()
        np.random.rand()  # noqa: NPY002 -- as user code does
        torch.rand(1)
        if self.breaks and index > 20:
            raise OSError("the disk is gone")
        return super().__getitem__(index)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("own", [None, torch.Generator().manual_seed(5)], ids=["global", "own"])
@pytest.mark.parametrize("fails", [False, True])
def test_looking_changes_nothing_also_when_it_fails(own: torch.Generator | None, fails: bool) -> None:  # noqa: FBT001
    """Property 39: modes of every submodule, random state, the order of the data, gradients, weights and buffers."""
    net = model()
    net[1].eval()  # a frozen BatchNorm, which must neither be woken nor put to sleep
    net(INPUTS).sum().backward()
    data = Drawing(INPUTS, TARGETS)
    data.breaks = fails
    shuffled = DataLoader(data, batch_size=8, shuffle=True, generator=own)
    before = Everything(net, shuffled)
    if fails:
        with pytest.raises(OSError, match="the disk is gone"):
            evaluate(net, shuffled)
    else:
        evaluate(net, shuffled)
        evaluate(net, loader(), train=shuffled, train_batches=2)
    assert Everything(net, shuffled) == before


def test_the_next_epoch_comes_in_the_order_that_it_would_have_had() -> None:
    def epochs(*, looked: bool) -> list[Any]:
        torch.manual_seed(6)
        shuffled = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=8, shuffle=True)
        orders = []
        for _ in range(3):
            orders.append([targets.tolist() for _, targets in shuffled])
            if looked:
                evaluate(model(), shuffled, train=shuffled)
        return orders

    assert epochs(looked=True) == epochs(looked=False)


class Fails(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(f"out of memory for {len(inputs)}")


def test_a_model_that_fails_is_left_in_the_mode_it_was_in() -> None:
    net = nn.Sequential(nn.Dropout(), Fails()).train()
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(net, loader())
    assert all(part.training for part in net.modules())


def test_a_term_is_in_evaluation_mode_too_and_computed_whatever_its_frequency() -> None:
    seen = []

    class Watched(Term):
        def forward(self, model: Any, batch: Batch, step: StepContext) -> torch.Tensor:  # noqa: ARG002
            seen.append((self.training, step.training, step.step))
            return step.scores.square().mean()

    objective = Task() + Watched(every=7, weight=Linear(0.0, 2.0))
    found = evaluate(model(), loader(), objective=objective, step=5, steps=11)
    assert seen == [(False, False, 5)] * len(loader())
    assert objective.training
    assert found.loss.value == pytest.approx(found.terms["task"] + 1.0 * found.terms["watched"], rel=1e-6)
    assert "watched" in str(found)


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often a value is read from a device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("batches", [1, 20])
@pytest.mark.parametrize("kind", ["classes", "language"])
def test_the_device_is_waited_for_once_whatever_the_number_of_batches(
    kind: str, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property 40."""
    waits = []
    read = Rows.read

    def counted(rows: Rows) -> list[list[float]]:
        waits.append(1)
        return read(rows)

    monkeypatch.setattr(Rows, "read", counted)
    data: Any = loader(2)[:batches] if kind == "classes" else tokens(batches)
    with Reads() as reads:
        evaluate(model() if kind == "classes" else same, data, objective=Task() if kind == "classes" else LANGUAGE)
    assert waits == [1]
    assert reads.count == 0


def test_rows_beyond_a_block_are_all_read_in_their_order() -> None:
    rows = Rows(torch.device("cpu"))
    for number in range(2500):
        rows.add([torch.tensor(number), float(number) / 2])
    assert rows.read() == [[float(number), number / 2] for number in range(2500)]


def test_a_mean_of_what_is_not_finite_is_not_finite() -> None:
    for values, wanted in (([1.0, math.nan], math.nan), ([math.inf, 1.0], math.inf), ([math.inf, -math.inf], math.nan)):
        assert repr(weighted_mean(values, [1.0, 1.0], 0.95).value) == repr(wanted)


def test_the_interval_of_a_loss_holds_the_truth_as_often_as_it_says() -> None:
    """Over batches of random sizes, and of samples that are alike within a batch."""
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        counts = generator.integers(1, 20, size=60).astype(float)
        values = 3.0 + generator.normal(size=60)
        estimate = weighted_mean(values.tolist(), counts.tolist(), 0.9)
        held += estimate.low <= 3.0 <= estimate.high
    assert 0.86 <= held / 400 <= 0.94


def test_a_regression_has_a_loss_and_nothing_that_is_right_or_wrong() -> None:
    found = evaluate(nn.Linear(3, 1), [(INPUTS, TARGETS.float())], objective=Task("mse"))
    assert set(found.numbers()) == {"loss"}
    nothing = [found.accuracy, found.perplexity, found.classification, found.correct, found.per_class_accuracy]
    assert nothing == [None] * 5


def test_soft_labels_and_images_of_classes_are_measured_too() -> None:
    soft = nn.functional.one_hot(TARGETS, C).float() * 0.9 + 0.1 / C
    hard, found = evaluate(model(), loader()), evaluate(model(), [(INPUTS, soft)])
    assert found.accuracy == hard.accuracy
    scores = torch.randn(2, C, 3, 3, generator=torch.Generator().manual_seed(8))
    targets = torch.randint(C, (2, 3, 3), generator=torch.Generator().manual_seed(9))
    mask = torch.tensor([True, False])
    pixels = evaluate(same, [Batch(scores, targets, mask=mask)])
    assert pixels.accuracy is not None
    assert pixels.accuracy.value == pytest.approx((scores[0].argmax(0) == targets[0]).double().mean().item())


def test_training_data_are_measured_on_the_side_if_that_is_asked_for() -> None:
    found = evaluate(model(), loader(), train=iter(loader(4)), train_batches=3)
    assert found.train is not None
    assert (found.train.batches, found.train.samples, found.train.name) == (3, 12, "train")
    assert found.train.train is None
    assert evaluate(model(), loader()).train is None


def test_the_result_is_frozen_readable_and_strict_json() -> None:
    found = flyball.evaluate(model(), loader(), train=loader(), name="test")
    assert isinstance(found, flyball.Evaluation)
    with pytest.raises(FrozenInstanceError):
        found.samples = 3  # type: ignore[misc]
    again = json.loads(found.to_json())
    assert again["accuracy"]["value"] == found.accuracy.value  # type: ignore[union-attr]
    assert again["train"]["samples"] == N
    assert "test: 40 samples in 6 batches" in str(found)
    assert "balanced accuracy" in str(found)
    event = found.event()
    assert isinstance(event, Evaluated)
    assert event.split == "test"
    assert event.measurements["loss"] == found.loss
    assert event.to_data()
    broken = evaluate(same, [(torch.full((N, C), torch.nan), TARGETS)])
    assert math.isnan(decode(broken.to_json())["loss"]["value"])  # type: ignore[index,call-overload,arg-type]


def test_a_label_that_no_class_has_is_an_error() -> None:
    with pytest.raises(InputError, match=r"the label [5-7], and the model scores 4 classes"):
        evaluate(model(), [(INPUTS, TARGETS + 5)])
    with pytest.raises(InputError, match="scores 1 class, and there is nothing to choose from"):
        evaluate(nn.Linear(3, 1), [(INPUTS, TARGETS * 0)])


@pytest.mark.parametrize(("asked", "value"), [("attacks", ["pgd"]), ("attacks", "pgd"), ("explain", "gradcam")])
def test_what_is_not_known_yet_is_an_error_and_not_left_out(asked: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"`{asked}` is .* knows none yet"):
        evaluate(model(), loader(), **{asked: value})


def test_a_confidence_that_is_none_is_refused_before_the_pass() -> None:
    def forbidden() -> Iterator[Any]:
        yield pytest.fail("the data were touched")

    with pytest.raises(InputError, match=r"`confidence` is 1\.5"):
        evaluate(model(), forbidden(), confidence=1.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_finds_what_the_cpu_finds() -> None:
    here, there = evaluate(model(), loader(3)), evaluate(model().cuda(), loader(3))
    assert here.correct is not None
    assert there.correct is not None
    assert here.correct.tolist() == there.correct.tolist()
    assert here.loss.value == pytest.approx(there.loss.value, rel=1e-5)


def test_the_annotations_of_an_evaluation_name_each_field() -> None:
    told: Callable[[str], bool] = lambda name: f"        {name}: " in (Evaluation.__doc__ or "")  # noqa: E731
    assert all(told(name) for name in Evaluation.__dataclass_fields__ if not name.startswith("_"))
