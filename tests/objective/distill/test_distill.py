"""Distillation: each loss equals its formula, the teacher is asked once and never changed, and heads cannot cheat."""

from __future__ import annotations

import copy
import hashlib
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from flyball.batch import Batch
from flyball.errors import ConfigError, InputError
from flyball.measure.similarity import cka
from flyball.objective import Cosine, Linear, Objective, StepContext, Task
from flyball.objective.distill import (
    CKA,
    CrossCorrelation,
    Distill,
    Gram,
    Normalization,
    ProjectionHead,
    Relation,
    TeacherSpec,
    TokenMatch,
    distillation,
    relative_layers,
    resample_tokens,
)
from flyball.vision.models import ResNetCIFAR, VisionTransformer

if TYPE_CHECKING:
    from collections.abc import Iterable


class Says(nn.Module):
    """A model that says the same whatever it is asked, and counts how often it was."""

    def __init__(self, output: Any, layers: list[torch.Tensor] | None = None) -> None:
        super().__init__()
        self.output = output
        self.behind = layers or []
        self.depth = len(self.behind)
        self.asked = 0

    def forward(self, images: torch.Tensor) -> Any:  # noqa: ARG002
        self.asked += 1
        return self.output

    def intermediates(self, images: torch.Tensor, layers: Iterable[int]) -> Any:  # noqa: ARG002
        self.asked += 1
        return type("Found", (), {"output": self.output, "layers": {layer: self.behind[layer] for layer in layers}})()


class Blind(nn.Module):
    """A model that has layers and does not tell what stands behind them."""

    depth = 1


def batch(rows: int = 4, side: int = 8, channels: int = 3) -> Batch:
    return Batch(torch.randn(rows, channels, side, side), torch.arange(rows) % 3)


def value(term: Any, model: nn.Module, given: Batch | None = None) -> Any:
    return Objective.of(term).measure(model, batch() if given is None else given).loss


def apart(term: Any, own: torch.Tensor, theirs: torch.Tensor) -> Any:
    """What a term says of one layer of tokens, or maps, of student and teacher."""
    made = term(Says(None, [theirs]), layers=(0,))
    return value(made, Says(None, [own]), batch(len(own)))


def small_vit(**changes: Any) -> VisionTransformer:
    given = {"image_size": 8, "patch_size": 2, "width": 24, "depth": 4, "heads": 3, "classes": 3, "drop_path": 0.0}
    return VisionTransformer(**{**given, **changes})


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# What the teacher says


def test_hard_distillation_is_the_cross_entropy_of_the_class_that_the_teacher_finds() -> None:
    """C13: scores (1, 0) against class 1 cost log(1 + e)."""
    student, teacher = Says(torch.tensor([[1.0, 0.0]])), Says(torch.tensor([[0.1, 0.2]]))
    assert value(Distill(teacher, kind="hard"), student).item() == pytest.approx(math.log(1 + math.e))


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_alpha_shares_the_weight_between_labels_and_teacher(alpha: float) -> None:
    """C13: and at 0 and 1 only one of them is computed."""
    student, teacher = Says(torch.randn(4, 3)), Says(torch.randn(4, 3))
    given = batch()
    task, taught = value(Task(), student, given), value(Distill(teacher, kind="hard"), student, given)
    teacher.asked = 0
    found = distillation(teacher, alpha=alpha, kind="hard").measure(student, given)
    torch.testing.assert_close(found.loss, (1 - alpha) * task + alpha * taught)
    assert teacher.asked == (alpha > 0)
    assert [part.raw is None for part in found.parts] == [alpha == 1, alpha == 0]


def test_soft_distillation_is_the_divergence_of_what_both_say_when_softened() -> None:
    """C14: tau^2 KL, summed over classes, averaged over samples; DeiT's own is smaller by the number of classes."""
    said, taught, tau = torch.randn(5, 3), torch.randn(5, 3), 3.0
    wanted, found = (taught / tau).softmax(1), (said / tau).softmax(1)
    kl = (wanted * (wanted / found).log()).sum(1).mean() * tau**2
    torch.testing.assert_close(value(Distill(Says(taught)), Says(said), batch(5)), kl)
    torch.testing.assert_close(value(Distill(Says(taught), reduction="elementmean"), Says(said), batch(5)), kl / 3)
    assert value(Distill(Says(said)), Says(said), batch(5)).item() == pytest.approx(0.0, abs=1e-6)


def test_the_gradient_hardly_depends_on_the_temperature() -> None:
    """C14: tau^2 makes up for it, within 5 % from 1 to 8 for scores of moderate size."""
    taught, norms = torch.randn(64, 10) * 0.3, []
    for tau in (1.0, 2.0, 4.0, 8.0):
        said = torch.zeros(64, 10, requires_grad=True)
        value(Distill(Says(taught), tau=tau), Says(said), batch(64)).backward()
        assert said.grad is not None
        norms.append(said.grad.norm().item())
    assert max(norms) / min(norms) < 1.05


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tau": 0.0}, "`tau` of `Distill` is 0.0"),
        ({"tau": math.nan}, "`tau` of `Distill` is nan"),
        ({"kind": "softly"}, "'soft' or 'hard'"),
        ({"reduction": "sum"}, "'batchmean' or 'elementmean'"),
    ],
)
def test_what_distillation_does_not_know_is_refused(settings: dict[str, Any], says: str) -> None:
    """C15."""
    assert Distill(Says(None)).tau == 3.0
    with pytest.raises(ConfigError, match=says):
        Distill(Says(None), **settings)
    with pytest.raises(ConfigError, match=r"`alpha` is 1\.1"):
        distillation(Says(None), alpha=1.1)
    with pytest.raises(ConfigError, match="`teacher` is a str"):
        Distill("resnet18")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "values"),
    [(0.5, [0.5, 0.5, 0.5]), (Linear(0.0, 0.5), [0.0, 0.25, 0.5]), (Cosine(0.0, 0.6), [0.0, 0.3, 0.6])],
)
def test_the_weight_of_the_teacher_reaches_both_ends_exactly(schedule: Any, values: list[float]) -> None:
    """C16: over eleven steps, at the first, the middle and the last."""
    objective = Objective.of(Distill(Says(torch.zeros(4, 3)), weight=schedule)) + Task()
    weights = []
    for step in (0, 5, 10):
        found = objective.measure(Says(torch.zeros(4, 3)), batch(), step=step, steps=11)
        weights.append(next(part.weight for part in found.parts if part.name == "distill"))
    assert weights == pytest.approx(values)


def test_every_term_begins_at_its_step_and_until_then_the_teacher_is_not_asked() -> None:
    """C17: each with its own weight, delay and name; none is in another's sum."""
    tokens = torch.randn(4, 4, 6)
    teacher = Says(torch.zeros(4, 3), [tokens])
    objective = (
        Task()
        + 0.1 * Relation(teacher, (0,), delay=3)
        + 0.5 * CKA(teacher, (0,), delay=5)
        + Gram(teacher, (0,), delay=5)
    )
    student = Says(torch.zeros(4, 3), [tokens + 1])
    for step, counts in ((0, 1), (2, 1), (3, 2), (4, 2), (5, 4), (9, 4)):
        teacher.asked = student.asked = 0
        found = objective.measure(student, batch(), step=step)
        assert sum(part.raw is not None for part in found.parts) == counts
        assert (student.asked, teacher.asked) == (1, counts > 1)
    assert objective.names == ("task", "relation", "cka", "gram")


def test_a_distillation_token_learns_from_the_teacher_and_the_first_head_from_the_labels() -> None:
    model, teacher, given = small_vit(distilled=True), Says(torch.randn(4, 3)), batch()
    value(Distill(teacher), model, given).backward()
    assert model.head.weight.grad is None
    assert model.head_dist.weight.grad is not None
    model.zero_grad()
    value(Task(), model, given).backward()
    learnt = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert "head.weight" in learnt
    assert "head_dist.weight" not in learnt


def test_the_share_of_samples_on_which_both_agree_is_measured() -> None:
    found = Objective.of(Distill(Says(torch.eye(3)))).measure(Says(torch.eye(3)[[0, 1, 1]]), batch(3))
    assert found.parts[0].measured["agreement"].item() == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="both must score the same classes"):
        value(Distill(Says(torch.zeros(4, 5))), Says(torch.zeros(4, 3)))


# What the teacher sees


def test_matched_tokens_cost_0_opposite_ones_2_and_layers_are_averaged() -> None:
    """C18."""
    wanted = torch.randn(4, 9, 6)

    class Is(nn.Module):
        def __init__(self, tokens: torch.Tensor) -> None:
            super().__init__()
            self.tokens = tokens

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return self.tokens

    def matched(*signs: float) -> float:
        term = TokenMatch(Says(None, [wanted] * len(signs)), range(len(signs)), width=6, projection=6)
        target = functional.layer_norm(wanted, (6,)) @ term._rotation(wanted)
        for layer, sign in enumerate(signs):
            term.heads[str(layer)] = Is(sign * target)
        found: float = value(term, Says(None, [wanted] * len(signs))).item()
        return found

    assert matched(1.0) == pytest.approx(0.0, abs=1e-6)
    assert matched(-1.0) == pytest.approx(2.0, abs=1e-6)
    assert matched(1.0, -1.0) == pytest.approx(1.0, abs=1e-6)


def test_the_head_has_its_layout_and_the_teachers_side_nothing_to_train() -> None:
    """C19."""
    for width, parameters in ((192, 231_680), (384, 329_984)):
        assert sum(parameter.numel() for parameter in ProjectionHead(width).parameters()) == parameters
    assert [type(layer).__name__ for layer in ProjectionHead(4)] == [
        "Linear",
        "LayerNorm",
        "GELU",
        "Linear",
        "LayerNorm",
    ]
    teacher = small_vit(width=30)
    term = TokenMatch(teacher, (0, 3), width=24, projection=16)
    own = {id(parameter) for parameter in term.parameters()}
    assert own == {id(parameter) for head in term.heads.values() for parameter in head.parameters()}
    rotation = term._rotation(torch.zeros(1, 4, 30))
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(16))


def test_trained_heads_alone_find_nothing_in_unrelated_tokens() -> None:
    """X1: on held-out pairs that have nothing to do with each other, trained heads do no better than chance."""
    seen, unseen = torch.randn(2, 64, 9, 16).unbind()
    taught, other = torch.randn(2, 64, 9, 16).unbind()
    term = TokenMatch(Says(None, [taught]), (0,), width=16, projection=16)
    optimizer = torch.optim.AdamW(term.parameters(), lr=3e-3)
    before = value(term, Says(None, [seen]), batch(64)).item()
    for _ in range(60):
        value(term, Says(None, [seen]), batch(64)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert value(term, Says(None, [seen]), batch(64)).item() < before - 0.05, "the heads were trained"
    term.teacher = TeacherSpec(Says(None, [other]))
    assert value(term, Says(None, [unseen]), batch(64)).item() > 0.97


@pytest.mark.parametrize("pooled", [True, False])
def test_relations_are_equal_for_equal_sights_and_do_not_depend_on_scale_or_rotation(pooled: bool) -> None:  # noqa: FBT001
    """C20: and finite where the softmax is sharp."""
    own, theirs = torch.randn(5, 4, 6), torch.randn(5, 4, 6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6))

    def term(*arguments: Any, tau: float = 0.1, **keywords: Any) -> Relation:
        return Relation(*arguments, pooled=pooled, tau=tau, **keywords)

    assert apart(term, own, own).item() == pytest.approx(0.0, abs=1e-6)
    different = apart(term, own, theirs)
    assert different > 0
    torch.testing.assert_close(apart(term, 7 * own @ turn, theirs), different, rtol=1e-4, atol=1e-6)
    sharp = own.clone().requires_grad_()
    loss = apart(lambda *a, **k: term(*a, tau=0.005, **k), sharp, theirs)
    loss.backward()
    assert loss.isfinite()
    assert sharp.grad is not None and sharp.grad.isfinite().all()


def test_both_kinds_of_relation_are_means_over_rows() -> None:
    """C21: copies of the batch, or of the patches' samples, change nothing in the full mode; rows are averaged."""
    own, theirs = torch.randn(3, 4, 6), torch.randn(3, 4, 6)

    def full(*arguments: Any, **keywords: Any) -> Relation:
        return Relation(*arguments, pooled=False, **keywords)

    one, twice = apart(full, own, theirs), apart(full, own.repeat(2, 1, 1), theirs.repeat(2, 1, 1))
    torch.testing.assert_close(one, twice)
    rows = [functional.normalize(tokens, dim=-1) for tokens in (own, theirs)]
    said, wanted = ((x @ x.transpose(1, 2) / 0.1).softmax(-1) for x in rows)
    torch.testing.assert_close(one, (wanted * (wanted / said).log()).sum(-1).mean())
    pooled = [functional.normalize(tokens.mean(1), dim=-1) for tokens in (own, theirs)]
    said, wanted = ((x @ x.T / 0.1).softmax(-1) for x in pooled)
    torch.testing.assert_close(apart(Relation, own, theirs), (wanted * (wanted / said).log()).sum(-1).mean())


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_a_constant_field_of_tokens_stays_one_on_any_grid(source: tuple[int, int], grid: tuple[int, int]) -> None:
    """C22."""
    tokens = torch.full((2, source[0] * source[1], 3), 0.3)
    found = resample_tokens(tokens, grid, source=source)
    torch.testing.assert_close(found, torch.full((2, grid[0] * grid[1], 3), 0.3))


@pytest.mark.parametrize(("tokens", "side"), [(256, 8), (196, 8), (64, 8)])
def test_tokens_are_moved_in_both_directions_of_the_image(tokens: int, side: int) -> None:
    """C22 and I8: coordinates stay coordinates, rows apart from columns; an equal grid gives the same tokens."""
    own = math.isqrt(tokens)
    places = (torch.arange(own) + 0.5) / own
    field = torch.stack(torch.meshgrid(places, places, indexing="ij"), -1).reshape(1, tokens, 2)
    found = resample_tokens(field, (side, side), source=(own, own)).reshape(side, side, 2)
    wanted = (torch.arange(side) + 0.5) / side
    torch.testing.assert_close(found[1:-1, :, 0], wanted[1:-1, None].expand(-1, side), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 1:-1, 1], wanted[None, 1:-1].expand(side, -1), atol=1e-5, rtol=0)
    assert (resample_tokens(field, (side, side), source=(own, own)) is field) == (own == side)


def test_tokens_of_no_grid_are_refused() -> None:
    """C22."""
    with pytest.raises(InputError, match="10 tokens, which is no square"):
        apart(Gram, torch.randn(2, 9, 4), torch.randn(2, 10, 4))
    with pytest.raises(InputError, match=r"`source` is \(2, 2\), and there are 5"):
        resample_tokens(torch.randn(1, 5, 2), (3, 3), source=(2, 2))


def test_the_defaults_are_those_that_are_written() -> None:
    """C23."""
    teacher = small_vit()
    match, relation = TokenMatch(teacher, width=24), Relation(teacher)
    assert (match.layers, match.projection, match.kind) == ((6, 11), 256, "cosine")
    assert (relation.tau, relation.pooled, relation.kind) == (0.1, True, "kl")


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.03, 1e-3])
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_thing_is_aligned_with_itself_however_small_its_variation(noise: float, debiased: bool, kernel: Any) -> None:  # noqa: FBT001
    """X2: and with itself rotated and scaled."""
    rows = torch.randn(1, 12) + noise * torch.randn(40, 12)
    turn, _ = torch.linalg.qr(torch.randn(12, 12))
    assert cka(rows, rows, debiased=debiased, kernel=kernel).item() == pytest.approx(1.0, abs=1e-4)
    assert cka(rows, 5 * rows @ turn, debiased=debiased).item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("samples", [16, 64, 512])
def test_unrelated_things_are_not_aligned(samples: int) -> None:
    """X2: debiased about 0, at every number of samples; the plain estimate is not."""
    first, second = torch.randn(40, samples, 192), torch.randn(40, samples, 384)
    assert cka(first, second).mean().item() == pytest.approx(0.0, abs=0.02)
    assert cka(first, second, debiased=False).mean() > 0.3


def test_alignment_equals_its_definition_with_centring_matrices() -> None:
    first, second = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    centre = torch.eye(9, dtype=torch.float64) - 1 / 9
    one, other = (centre @ rows @ rows.T @ centre for rows in (first, second))
    wanted = (one * other).sum() / (one.norm() * other.norm())
    torch.testing.assert_close(cka(first, second, debiased=False), wanted)
    with pytest.raises(InputError, match="at least 4"):
        cka(torch.randn(3, 2), torch.randn(3, 2))


def test_kernel_terms_are_0_for_equal_sights() -> None:
    own, theirs = torch.randn(3, 9, 6), torch.randn(3, 9, 4)
    for term in (CKA, Gram):
        assert apart(term, own, own).item() == pytest.approx(0.0, abs=1e-5)
        assert apart(term, own, theirs) > 0
    equal = own.clone().requires_grad_()
    apart(Gram, equal, own).backward()
    assert equal.grad is not None and equal.grad.isfinite().all()
    single = torch.randn(6, 1, 5)
    torch.testing.assert_close(apart(CKA, single, single), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_cross_correlation_is_0_where_dimensions_say_the_same_and_nothing_else() -> None:
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[:, None, :]
    assert apart(CrossCorrelation, signs, 3 * signs + 1).item() == pytest.approx(0.0, abs=1e-6)
    assert apart(CrossCorrelation, signs, -signs).item() == pytest.approx(4.0, abs=1e-5)
    with pytest.raises(InputError, match="equal widths"):
        apart(CrossCorrelation, signs, torch.randn(4, 1, 3))


# The teacher


def test_a_teacher_is_asked_once_a_batch_whatever_the_number_of_terms() -> None:
    tokens = torch.randn(4, 4, 6)
    teacher, student = Says(torch.zeros(4, 3), [tokens]), Says(torch.zeros(4, 3), [tokens])
    objective = Task() + Distill(teacher) + Gram(teacher, (0,)) + CKA(TeacherSpec(teacher), (-1,))
    objective.measure(student, batch())
    assert (student.asked, teacher.asked) == (1, 1)


def test_a_teacher_is_never_changed() -> None:
    """I6: neither weights nor statistics nor mode, also when somebody calls `train` on it; nor has it gradients."""
    teacher = ResNetCIFAR(blocks=(1, 1), widths=(4, 8), classes=3)
    objective = Task() + Distill(teacher) + TokenMatch(teacher, (0, 3), width=24, projection=8)
    student = small_vit()
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=0.1)

    def fingerprint() -> str:
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in teacher.state_dict().values())).hexdigest()

    before = fingerprint()
    for _ in range(3):
        teacher.train()
        objective.train()
        value(objective, student).backward()
        optimizer.step()
    assert fingerprint() == before
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert not any(name.startswith("teacher") for name, _ in objective.named_parameters())


@pytest.mark.parametrize("teacher", ["wide", "cnn", "finer"])
def test_students_and_teachers_of_other_shapes_train_together(teacher: str) -> None:
    """I7: other widths, depths, patches and kinds."""
    made: dict[str, nn.Module] = {
        "wide": small_vit(width=36, depth=7),
        "cnn": ResNetCIFAR(blocks=(1, 1), widths=(4, 8), classes=3),
        "finer": small_vit(patch_size=1),
    }
    taught = made[teacher]
    student = small_vit()
    objective = (
        Task() + TokenMatch(taught, (1, -1), width=24, projection=8) + Relation(taught) + CKA(taught) + Gram(taught)
    )
    optimizer = torch.optim.AdamW([*student.parameters(), *objective.parameters()], lr=1e-2)
    given, losses = batch(8), []
    for _ in range(12):
        loss = value(objective, student, given)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_layers_are_compared_at_the_same_share_of_the_depth() -> None:
    assert relative_layers((6, 11), 12, 24) == {6: 13, 11: 23}
    assert relative_layers((0, -1), 12, 3) == {0: 0, -1: 2}
    assert relative_layers(range(4), 4, 4) == {0: 0, 1: 1, 2: 2, 3: 3}
    with pytest.raises(ConfigError, match="the student has the layers 0 to 11"):
        relative_layers((12,), 12, 12)


def test_a_teacher_gets_exactly_its_own_pixels() -> None:
    """X3: as if its images had been normalised for it, and resized."""
    pixels = torch.rand(2, 3, 4, 4)
    own, student = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), Normalization((0.1, 0.2, 0.3), (0.9, 0.8, 0.7))

    def normalised(images: torch.Tensor, by: Normalization) -> torch.Tensor:
        return (images - torch.tensor(by.mean)[:, None, None]) / torch.tensor(by.std)[:, None, None]

    spec = TeacherSpec(Says(None), own=own, student=student)
    torch.testing.assert_close(spec.view(normalised(pixels, student)), normalised(pixels, own))
    assert TeacherSpec(Says(None), size=8).view(pixels).shape == (2, 3, 8, 8)
    assert TeacherSpec(Says(None)).view(pixels) is pixels
    with pytest.raises(ConfigError, match="`student` is missing"):
        TeacherSpec(Says(None), own=own)
    with pytest.raises(ConfigError, match="std above 0"):
        Normalization((0.0,), (0.0,))


def test_layers_that_nobody_can_tell_are_asked_for_in_vain() -> None:
    with pytest.raises(InputError, match="no `depth`"):
        value(Gram(small_vit()), nn.Linear(3, 3))
    with pytest.raises(InputError, match="no method `intermediates"):
        value(Gram(Says(None, [torch.zeros(1)])), Blind())
    step = StepContext(Says(1), batch())
    step.outputs  # noqa: B018
    with pytest.raises(InputError, match="after the forward"):
        step.need((0,))


def test_the_formula_reads_like_the_recipe_and_copies_whole() -> None:
    objective = 0.5 * Task() + Cosine(0.0, 0.5) * Distill(small_vit()) + 0.1 * TokenMatch(small_vit(), (1, 3), width=24)
    assert repr(objective) == (
        "0.5 * Task() + Cosine(0.0, 0.5) * Distill(VisionTransformer) + "
        "0.1 * TokenMatch(VisionTransformer, layers=(1, 3), width=24)"
    )
    given, model = batch(), small_vit()
    again = copy.deepcopy(objective)
    assert torch.equal(again.measure(model, given, steps=9).loss, objective.measure(model, given, steps=9).loss)
