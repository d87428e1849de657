"""The task term: each loss is its formula under all weights and masks; what does not fit is one clear message."""

from __future__ import annotations

import gc
import math
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flyball.batch import Batch
from flyball.errors import ConfigError, InputError
from flyball.objective import Outcome, Task, Term, as_objective, class_weights, labels, losses, positive_weights

if TYPE_CHECKING:
    from collections.abc import Callable

N, C, T = 7, 4, 5


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def indices(*shape: int, high: int = C, seed: int = 1) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


SCORES, LABELS = draw(N, C), indices(N)
WEIGHT = draw(N, seed=2).abs().float()
MASK = torch.tensor([True, True, False, True, False, True, True])


def measured(task: Term, scores: Any, targets: Any, **more: Any) -> Outcome:
    return as_objective(task).measure(lambda _: scores, Batch(torch.zeros(len(targets)), targets, **more))


def value(task: Term, scores: Any, targets: Any, **more: Any) -> float:
    return measured(task, scores, targets, **more).loss.item()


def weighted_mean(rows: list[float], counts: list[float]) -> float:
    return sum(r * c for r, c in zip(rows, counts, strict=True)) / sum(counts)


def cross_entropy_rows(scores: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> list[float]:
    """Written out, one row at a time, in plain arithmetic."""
    rows = []
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(x) for x in row))
        wanted = [smoothing / len(row)] * len(row)
        wanted[target] += 1.0 - smoothing
        rows.append(sum(q * (log_sum - x) for q, x in zip(wanted, row, strict=True)))
    return rows


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_formula_smoothed_to_the_mean_of_all_classes(smoothing: float) -> None:
    """Property C29."""
    rows = cross_entropy_rows(SCORES, LABELS, smoothing)
    assert value(Task(smoothing=smoothing), SCORES, LABELS) == pytest.approx(sum(rows) / N, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_as_probabilities_give_what_indices_give(smoothing: float) -> None:
    """Property C30."""
    one_hot = nn.functional.one_hot(LABELS, C).double()
    assert value(Task(smoothing=smoothing), SCORES, one_hot) == pytest.approx(
        value(Task(smoothing=smoothing), SCORES, LABELS), rel=1e-12
    )


def test_soft_targets_are_smoothed_only_if_that_is_wanted() -> None:
    soft = draw(N, C, seed=3).softmax(1)
    plain = -(soft * SCORES.log_softmax(1)).sum(1).mean().item()
    assert value(Task(smoothing=0.2, smooth_soft_targets=False), SCORES, soft) == pytest.approx(plain, rel=1e-12)
    assert value(Task(smoothing=0.2), SCORES, soft) != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("mask", [None, MASK])
def test_weight_and_mask_make_the_mean_a_weighted_one(weight: torch.Tensor | None, mask: torch.Tensor | None) -> None:
    counts = torch.ones(N) if weight is None else weight
    counts = counts if mask is None else counts * mask
    found = value(Task(), SCORES, LABELS, weight=weight, mask=mask)
    assert found == pytest.approx(weighted_mean(cross_entropy_rows(SCORES, LABELS), counts.tolist()), rel=1e-6)


def test_what_is_masked_does_not_count_even_if_it_is_not_a_number() -> None:
    scores = SCORES.masked_fill(~MASK[:, None], torch.nan)
    assert value(Task(), scores, LABELS, mask=MASK) == pytest.approx(value(Task(), SCORES, LABELS, mask=MASK))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.ones(N)])
def test_class_weights_divide_by_the_sum_of_those_used(smoothing: float, weight: torch.Tensor | None) -> None:
    """With weights of 1 for the samples, which take another path, nothing changes."""
    of_class = [0.5, 2.0, 1.0, 0.0]
    wanted = nn.functional.cross_entropy(
        SCORES, LABELS, torch.tensor(of_class, dtype=torch.float64), label_smoothing=smoothing
    ).item()
    task = Task(smoothing=smoothing, class_weight=of_class).double()
    assert value(task, SCORES, LABELS, weight=weight) == pytest.approx(wanted, rel=1e-6)


def test_an_ignored_target_does_not_count_with_and_without_weights() -> None:
    targets = LABELS.clone()
    targets[:3] = -1
    rest = weighted_mean(cross_entropy_rows(SCORES[3:], LABELS[3:]), [1.0] * 4)
    task = Task(ignore_index=-1)
    assert value(task, SCORES, targets) == pytest.approx(rest, rel=1e-12)
    assert value(task, SCORES, targets, weight=torch.ones(N)) == pytest.approx(rest, rel=1e-6)


def test_a_loss_of_nothing_is_not_a_number() -> None:
    nothing = torch.zeros(N, dtype=torch.bool)
    assert math.isnan(value(Task(), SCORES, LABELS, mask=nothing))
    assert math.isnan(value(Task(), SCORES, torch.full((N,), -100)))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_its_formula(gamma: float) -> None:
    alpha = [0.5, 2.0, 1.0, 3.0]
    rows = [
        alpha[y] * (1.0 - math.exp(-row)) ** gamma * row
        for row, y in zip(cross_entropy_rows(SCORES, LABELS), LABELS.tolist(), strict=True)
    ]
    task = Task("focal", gamma=gamma, class_weight=alpha).double()
    assert value(task, SCORES, LABELS) == pytest.approx(sum(rows) / N, rel=1e-9)


def test_focal_without_gamma_and_alpha_is_cross_entropy() -> None:
    assert value(Task("focal", gamma=0.0), SCORES, LABELS) == value(Task(), SCORES, LABELS)


def bernoulli(score: float, yes: float) -> tuple[float, float]:
    """The two parts of the cross-entropy of a yes-or-no label, in plain arithmetic."""
    return yes * math.log1p(math.exp(-score)), (1.0 - yes) * math.log1p(math.exp(score))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_is_its_formula(gamma: float, smoothing: float) -> None:
    targets = (draw(N, C, seed=4) > 0).double()
    pos = [1.0, 2.0, 0.5, 3.0]
    total = 0.0
    for row, wanted in zip(SCORES.tolist(), targets.tolist(), strict=True):
        for score, y, w in zip(row, wanted, pos, strict=True):
            yes, no = bernoulli(score, y * (1.0 - smoothing) + smoothing / 2.0)
            p = 1.0 / (1.0 + math.exp(-score))
            total += w * yes * (1.0 - p) ** gamma + no * p**gamma
    task = Task("binary", pos_weight=pos, smoothing=smoothing, gamma=gamma).double()
    assert value(task, SCORES, targets) == pytest.approx(total / (N * C), rel=1e-9)


@settings(deadline=None)
@given(st.floats(-80, 80), st.booleans(), st.sampled_from([0.0, 2.0]))
def test_binary_is_finite_and_its_gradient_does_not_vanish_where_it_is_wrong(
    score: float,
    yes: bool,  # noqa: FBT001 -- drawn, not passed
    gamma: float,
) -> None:
    scores = torch.tensor([[score]], requires_grad=True)
    outcome = measured(Task("binary", gamma=gamma), scores, torch.tensor([[float(yes)]]))
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(outcome.loss.item())
    assert scores.grad is not None
    assert bool(torch.isfinite(scores.grad).all())
    wrong = score < -1 if yes else score > 1
    assert not wrong or bool((scores.grad != 0).all())


@pytest.mark.parametrize(
    ("task", "each"),
    [
        (Task("mse"), lambda d: d * d),
        (Task("l1"), abs),
        (Task("huber"), lambda d: d * d / 2 if abs(d) <= 1 else abs(d) - 0.5),
        (Task("huber", delta=0.3), lambda d: d * d / 2 if abs(d) <= 0.3 else 0.3 * (abs(d) - 0.15)),
    ],
)
def test_regression_is_its_formula(task: Task, each: Callable[[float], float]) -> None:
    targets = draw(N, C, seed=5)
    errors = [[each(d) for d in row] for row in (SCORES - targets).tolist()]
    rows = [sum(row) / C for row in errors]
    assert value(task, SCORES, targets) == pytest.approx(sum(rows) / N, rel=1e-12)
    found = value(task, SCORES, targets, weight=WEIGHT, mask=MASK)
    assert found == pytest.approx(weighted_mean(rows, (WEIGHT * MASK).tolist()), rel=1e-6)
    each_counts = torch.stack([WEIGHT] * C, 1) * torch.arange(C)  # a weight for each element
    flat = weighted_mean([error for row in errors for error in row], each_counts.flatten().tolist())
    assert value(task, SCORES, targets, weight=each_counts) == pytest.approx(flat, rel=1e-6)


@pytest.mark.parametrize("kind", ["mse", "l1", "huber", "binary"])
def test_a_column_of_scores_is_the_row_of_targets_and_is_never_spread(kind: Any) -> None:
    scores, targets = draw(N, 1), (draw(N, seed=6) > 0).double()
    assert value(Task(kind), scores, targets) == value(Task(kind), scores[:, 0], targets)
    with pytest.raises(InputError, match="shape of the scores"):
        measured(Task(kind), scores[:, 0], targets[:, None])


def test_language_is_cross_entropy_of_every_token_that_counts() -> None:
    scores, tokens = draw(3, T, C), indices(3, T)
    tokens[0, 3:] = -100
    mask = torch.ones(3, T, dtype=torch.bool)
    mask[2, 0] = False
    rows, counted = [], []
    for i in range(3):
        for t in range(T):
            ignored = int(tokens[i, t]) == -100
            rows.append(0.0 if ignored else cross_entropy_rows(scores[i, t][None], tokens[i, t][None])[0])
            counted.append(0.0 if ignored or not mask[i, t] else 1.0)
    task = Task("language")
    assert value(task, scores, tokens, mask=mask) == pytest.approx(weighted_mean(rows, counted), rel=1e-6)
    assert float(task.count(Batch(tokens, tokens, mask=mask))) == sum(counted)


def test_language_with_shift_compares_each_score_with_the_token_that_follows() -> None:
    scores, tokens = draw(3, T, C), indices(3, T)
    weight = draw(3, seed=8).abs().float()
    shifted = Task("language", shift=True)
    by_hand = value(Task("language"), scores[:, :-1], tokens[:, 1:], weight=weight)
    assert value(shifted, scores, tokens, weight=weight) == pytest.approx(by_hand, rel=1e-12)
    assert float(shifted.count(Batch(tokens, tokens))) == 3 * (T - 1)


def test_language_takes_scores_whose_dimensions_were_exchanged() -> None:
    """What `view` would have refused."""
    scores, tokens = draw(T, 3, C).transpose(0, 1), indices(3, T)
    assert not scores.is_contiguous()
    assert value(Task("language"), scores, tokens) == value(Task("language"), scores.contiguous(), tokens)


def test_classes_of_an_image_stand_in_the_second_dimension() -> None:
    scores, targets = draw(2, C, 3, 3), indices(2, 3, 3)
    targets[0, 0] = -100
    flat = scores.permute(0, 2, 3, 1).reshape(-1, C)
    assert value(Task(), scores, targets) == pytest.approx(value(Task(), flat, targets.flatten()), rel=1e-12)
    weight = torch.tensor([1.0, 3.0])
    spread = weight[:, None].expand(2, 9).flatten()
    assert value(Task(), scores, targets, weight=weight) == pytest.approx(
        value(Task(), flat, targets.flatten(), weight=spread), rel=1e-6
    )


TASKS: list[tuple[Task, Callable[[], torch.Tensor]]] = [
    (Task(smoothing=0.1), lambda: LABELS),
    (Task(class_weight=[1.0, 2.0, 3.0, 4.0]).double(), lambda: LABELS),
    (Task(ignore_index=2), lambda: LABELS),
    (Task("focal"), lambda: LABELS),
    (Task(), lambda: draw(N, C, seed=9).softmax(1)),
    (Task("binary", pos_weight=2.0), (draw(N, C, seed=9) > 0).double),
    (Task("mse"), lambda: draw(N, C, seed=9)),
    (Task("l1"), lambda: draw(N, C, seed=9)),
    (Task(nn.CrossEntropyLoss()), lambda: LABELS),
]


@pytest.mark.parametrize(("task", "targets"), TASKS, ids=lambda part: repr(part) if isinstance(part, Task) else "")
@settings(deadline=None)
@given(cuts=st.sets(st.integers(1, N - 1)), with_weight=st.booleans(), with_mask=st.booleans())
def test_the_loss_does_not_depend_on_how_the_data_are_cut(
    task: Task,
    targets: Callable[[], torch.Tensor],
    cuts: set[int],
    with_weight: bool,  # noqa: FBT001 -- drawn, not passed
    with_mask: bool,  # noqa: FBT001
) -> None:
    """Property 37: a mean over batches, each weighted by `count`, is the mean of the whole."""
    own = not isinstance(task.loss, str)
    weight = WEIGHT if with_weight and not own else None
    mask = MASK if with_mask and not own else None
    whole = targets()
    total, count = 0.0, 0.0
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), N], strict=True):
        part = slice(low, high)
        batch = Batch(
            SCORES[part],
            whole[part],
            None if weight is None else weight[part],
            None if mask is None else mask[part],
        )
        counts = float(task.count(batch))
        if counts:
            total += counts * as_objective(task).measure(lambda x: x, batch).loss.item()
            count += counts
    assert total / count == pytest.approx(value(task, SCORES, whole, weight=weight, mask=mask), rel=1e-6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_scores_in_half_precision_are_compared_in_full(half: torch.dtype) -> None:
    scores = SCORES.to(half)
    outcome = measured(Task(), scores, LABELS)
    assert outcome.loss.dtype is torch.float32
    assert outcome.loss.item() == value(Task(), scores.float(), LABELS)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_class_indices_may_be_integers_of_any_size(dtype: torch.dtype) -> None:
    assert value(Task(), SCORES, LABELS.to(dtype)) == value(Task(), SCORES, LABELS)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (None, SCORES),
        (None, (SCORES, "more")),
        (None, {"logits": SCORES}),
        ("heads", {"heads": SCORES}),
        (1, (None, SCORES)),
        (lambda said: said["heads"][0], {"heads": [SCORES]}),
    ],
)
def test_the_scores_are_found_by_the_rule_or_where_output_says(output: Any, said: Any) -> None:
    assert value(Task(output=output), said, LABELS) == value(Task(), SCORES, LABELS)


@pytest.mark.parametrize(
    ("task", "said", "message"),
    [
        (Task(), {"heads": SCORES}, r"a dict of `heads`, and the scores are looked for under `logits`"),
        (Task(output="heads"), {"logits": SCORES}, r"`output='heads'` finds nothing"),
        (Task(output=3), (SCORES,), r"`output=3` finds nothing"),
        (Task(output=0), ("text",), r"`output=0` finds a str"),
        (Task(output="a"), SCORES, r"a Tensor, in which `output='a'` finds nothing"),
    ],
)
def test_scores_that_are_not_there_are_one_clear_message(task: Task, said: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measured(task, said, LABELS)


SHIFTED = LABELS.clone()
SHIFTED[3] = C


@pytest.mark.parametrize(
    ("task", "scores", "targets", "message"),
    [
        (Task(), SCORES, SHIFTED, "holds the label 4, and the model scores 4 classes, 0 to 3: mend the labels"),
        (Task(), SCORES, LABELS - 5, "holds the label -"),
        (Task("focal"), SCORES, SHIFTED, "holds the label 4"),
        (Task(class_weight=[1.0] * C).double(), SCORES, SHIFTED, "holds the label 4"),
        (Task("language"), SCORES[None], SHIFTED[None], "holds the label 4"),
        (
            Task(),
            SCORES,
            LABELS[:-1],
            r"`targets` is int64 of shape \(6,\) and the scores are float64 of shape \(7, 4\)",
        ),
        (Task(), SCORES, LABELS.double(), "pass integers as class indices, or probabilities for all classes"),
        (Task(), SCORES[:, 0], LABELS, "one class index for each row"),
        (Task(), SCORES, (SCORES > 0).double(), "probabilities that sum to .*several labels at once are `Task"),
        (Task(), SCORES, SCORES.softmax(1).fill_(torch.nan), "probabilities that sum to nan"),
        (Task("binary"), SCORES, LABELS, "shape of the scores"),
        (Task("binary"), SCORES, LABELS[:, None].expand(N, C), r"`targets` goes from 0 to 3, .*one class of several"),
        (Task("binary"), SCORES, torch.full((N, C), torch.nan), "`targets` goes from nan to nan"),
        (Task("mse"), SCORES, SCORES[:, :1], "shape of the scores"),
        (Task("language"), SCORES, LABELS[:, None], "one token for each position"),
        (Task(), SCORES, ["cat"] * N, "`targets` of the batch is a list"),
    ],
)
def test_targets_that_do_not_fit_are_one_clear_message(
    task: Task, scores: torch.Tensor, targets: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        measured(task, scores, targets)


def test_targets_that_are_missing_are_named() -> None:
    with pytest.raises(InputError, match=r"`targets` of the batch is missing, and `Task\(\)`"):
        as_objective(Task()).measure(lambda x: x, SCORES)


@pytest.mark.parametrize("part", ["weight", "mask"])
def test_a_function_is_not_given_a_weight_that_it_would_ignore(part: str) -> None:
    with pytest.raises(InputError, match=f"the batch has a `{part}`, which"):
        measured(Task(nn.MSELoss()), SCORES, SCORES, **{part: WEIGHT if part == "weight" else MASK})


@pytest.mark.parametrize(
    ("task", "targets", "message"),
    [
        (Task(), SHIFTED, "holds the label 4"),
        (Task(), (SCORES > 0).double(), "probabilities that sum to"),
        (Task("binary"), LABELS[:, None].expand(N, C), "goes from 0 to 3"),
    ],
)
def test_where_reading_would_wait_for_a_device_the_loss_is_poisoned_and_explained_later(
    task: Task, targets: torch.Tensor, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of every other device than the CPU, taken on the CPU; nothing asserts, nothing waits."""
    monkeypatch.setattr(labels, "at_hand", lambda _: False)
    scores = SCORES.clone().requires_grad_()
    outcome = measured(task, scores, targets)
    assert math.isnan(outcome.loss.item())
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert bool(scores.grad.isnan().any())  # so that a plain loop is not misled either
    with pytest.raises(InputError, match=message):
        outcome.verify()


@pytest.mark.parametrize("task", [Task(smoothing=0.1), Task("binary"), Task(ignore_index=0)])
def test_healthy_targets_pass_on_every_device(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: torch.Tensor = (SCORES > 0).double() if task.loss == "binary" else LABELS
    wanted = value(task, SCORES, targets)
    monkeypatch.setattr(labels, "at_hand", lambda _: False)
    outcome = measured(task, SCORES, targets)
    outcome.verify()
    assert outcome.loss.item() == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task("cross_entropy"), "`loss` of `Task` is 'cross_entropy'.*did you mean 'cross-entropy'"),  # type: ignore[arg-type]
        (lambda: Task("hinge"), "`loss` of `Task` is 'hinge': use 'cross-entropy'"),  # type: ignore[arg-type]
        (lambda: Task(3), "pass the name of a loss, or a function"),  # type: ignore[arg-type]
        (lambda: Task(nn.MSELoss), "pass the name of a loss, or a function"),  # type: ignore[arg-type]
        (lambda: Task(smoothing=1.0), "`smoothing` of `Task` is 1.0: pass a number from 0 up, and below 1"),
        (lambda: Task(smoothing=math.nan), "`smoothing` of `Task` is nan"),
        (lambda: Task("focal", gamma=-1.0), "`gamma` of `Task` is -1.0"),
        (lambda: Task("mse", smoothing=0.1), "`smoothing` is 0.1, which the loss 'mse' does not read: it takes no arg"),
        (lambda: Task(pos_weight=2.0), "`pos_weight` is 2.0, which the loss 'cross-entropy' does not read"),
        (lambda: Task("binary", class_weight=[1.0]), "it takes `smoothing`, `pos_weight`, `gamma`"),
        (lambda: Task(nn.MSELoss(), delta=2.0), "does not read: it takes no arguments"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_where_it_is_written(make: Callable[[], Task], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_weights_of_classes_make_all_count_alike() -> None:
    counts = torch.tensor([90, 10, 0])
    weights = class_weights(counts)
    assert weights.tolist() == pytest.approx([100 / (3 * 90), 100 / (3 * 10), 0.0])
    assert positive_weights(torch.tensor([0.5, 0.0, 1.0, 0.2])).tolist() == pytest.approx([1.0, 100.0, 0.1, 4.0])


def test_class_weights_move_with_the_objective_and_are_no_state() -> None:
    objective = as_objective(Task(class_weight=[1.0, 2.0]))
    assert objective.to("meta").terms["task"].class_weight.device.type == "meta"
    assert objective.state_dict() == {}


def test_the_weighted_mean_is_that_of_the_written_formula() -> None:
    assert losses.mean_of(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0])).item() == 2.5
    assert losses.mean_of(torch.tensor([[1.0, 2.0], [5.0, 6.0]]), torch.tensor([1.0, 0.0])).item() == 1.5


def test_a_check_that_waits_to_be_read_does_not_hold_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation keeps those of every batch until its end."""
    monkeypatch.setattr(labels, "at_hand", lambda _: False)
    targets = LABELS.clone()
    held = weakref.ref(targets)
    scores = SCORES.clone()
    known = weakref.ref(scores)
    checks = measured(Task(), scores, targets).checks
    del targets, scores
    gc.collect()
    assert len(checks) == 1
    assert held() is None
    assert known() is None
