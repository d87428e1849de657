"""What is said of a model's inside equals what is computed by hand, and the model is as it was."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

from flyball.errors import InputError
from flyball.measure.similarity import cka
from flyball.vision.analysis import (
    alignment,
    attention_report,
    augmented_probabilities,
    distances,
    grad_cam,
    head_statistics,
    hessian_trace,
    shifts,
)
from flyball.vision.models import AdaptiveCNN, ResNetCIFAR, VisionTransformer
from flyball.vision.models.adaptive_cnn import Stage


def small_vit(**changes: Any) -> VisionTransformer:
    given = {"image_size": 8, "patch_size": 2, "width": 24, "depth": 3, "heads": 3, "classes": 3, "drop_path": 0.2}
    return VisionTransformer(**{**given, **changes})


def small_cnn() -> ResNetCIFAR:
    return ResNetCIFAR(blocks=(1, 1), widths=(4, 8), classes=3)


def _parts(images: torch.Tensor) -> list[torch.Tensor]:
    return [images[i : i + 64] for i in range(0, len(images), 64)]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules())


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# Attention


@pytest.mark.parametrize(("side", "mean"), [(4, 2.01), (7, 3.61), (8, 4.14), (14, 7.28), (16, 8.33)])
def test_uniform_attention_scores_the_mean_distance_of_the_grid(side: int, mean: float) -> None:
    """X8: and the entropy of looking everywhere alike."""
    assert float(distances((side, side)).mean()) == pytest.approx(mean, abs=0.005)
    tokens = side * side + 1
    found = head_statistics(torch.full((2, 3, tokens, tokens), 1 / tokens), (side, side))
    assert found.distance == pytest.approx([found.uniform] * 3)
    assert found.relative == pytest.approx([1.0] * 3)
    assert found.entropy == pytest.approx([found.most] * 3)


def test_attention_to_oneself_scores_distance_0_and_entropy_0() -> None:
    """X8: the entropy is that of the rows, not of their mean, which is the largest there is."""
    found = head_statistics(torch.eye(13).expand(2, 4, 13, 13), (3, 4), special=1)
    assert found.distance == found.entropy == (0.0,) * 4
    assert found.cls_self == (1.0,) * 4


def test_the_class_token_is_measured_about_its_own_middle() -> None:
    weights = torch.zeros(1, 1, 5, 5)
    weights[..., 1:, 1:] = torch.eye(4)
    weights[..., 0, :] = torch.tensor([0.5, 0.25, 0.0, 0.0, 0.25])  # two corners of a square, apart by its diagonal
    found = head_statistics(weights, (2, 2))
    assert found.cls_spread == pytest.approx((0.5,))
    assert found.cls_self == pytest.approx((0.5,))


def test_a_report_tells_every_layer_and_leaves_the_model_alone() -> None:
    model = small_vit(distilled=True).train()
    report = attention_report(model, torch.randn(5, 3, 8, 8))
    assert list(report.layers) == [0, 1, 2]
    assert report.grid == (4, 4)
    assert all(module.training for module in model.modules())
    assert 0 <= report.local <= 1
    assert report.cls_collapsed == 0
    assert json.loads(json.dumps(report.to_dict()))["samples"] == 5
    assert str(report).count("\n") == 3
    with pytest.raises(InputError, match="`images` is empty"):
        attention_report(model, torch.randn(0, 3, 8, 8))
    with pytest.raises(InputError, match="17 tokens"):
        head_statistics(torch.zeros(1, 1, 16, 16), (4, 4))


# Alignment


def test_alignment_in_one_batch_is_that_of_its_rows() -> None:
    model, images = small_vit(), torch.randn(40, 3, 8, 8)
    found = alignment(model, [(images, None)])
    with torch.no_grad():
        rows = {k: v.mean(1).double() for k, v in model.eval().intermediates(images, range(3)).layers.items()}
    for i in range(3):
        for j in range(3):
            assert found.values[i][j] == pytest.approx(float(cka(rows[i], rows[j])), abs=1e-9)
    assert found.diversity == pytest.approx(
        1 - sum(found.values[i][j] for i in range(3) for j in range(3) if i != j) / 6
    )


def test_alignment_over_batches_is_near_that_over_all_and_two_models_have_no_diagonal() -> None:
    model, other, images = small_vit(), small_cnn(), torch.randn(256, 3, 8, 8)
    whole = alignment(model, [images], other)
    parts = alignment(model, _parts(images), other)
    assert torch.tensor(whole.values).sub(torch.tensor(parts.values)).abs().max() < 0.1
    assert (len(whole.rows), len(whole.columns)) == (3, 3)
    assert not whole.own
    assert math.isnan(whole.diversity)
    assert parts.samples == 256
    assert alignment(model, _parts(images), samples=100).samples == 128
    assert json.dumps(whole.to_dict())


def test_a_layer_that_does_not_vary_has_no_alignment() -> None:
    model = small_cnn()
    nn.init.zeros_(model.norm.weight)
    found = alignment(model, [torch.randn(8, 3, 8, 8)])
    assert math.isnan(found.values[0][0])
    with pytest.raises(InputError, match="no batch of at least 4"):
        alignment(model, [torch.randn(3, 3, 8, 8)])


# Curvature


class Bowl(nn.Module):
    """A loss x' A x / 2 + |y|, whose Hessian has the trace of A."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = matrix
        self.x, self.y = nn.Parameter(torch.randn(len(matrix))), nn.Parameter(torch.ones(3))
        self.unused = nn.Parameter(torch.ones(2))


def test_the_trace_of_a_quadratic_is_found_within_three_standard_errors() -> None:
    """X9: and of a diagonal one exactly."""
    root = torch.randn(12, 12)
    matrix = root @ root.T

    def loss(model: Any, _: Any) -> torch.Tensor:
        value: torch.Tensor = model.x @ model.matrix @ model.x / 2 + model.y.abs().sum()
        return value

    found = hessian_trace(Bowl(matrix), (torch.zeros(1), None), loss, probes=200)
    assert abs(found.value - matrix.trace().item()) < 3 * found.error
    assert found.parameters == 17
    exact = hessian_trace(Bowl(torch.diag(torch.arange(5.0))), (torch.zeros(1), None), loss, probes=2)
    assert exact.value == pytest.approx(10.0)
    assert exact.error == pytest.approx(0.0, abs=1e-5)


def test_the_trace_of_a_transformer_can_be_found() -> None:
    """X9: whose attention has no second derivative by its fast kernel."""
    model, given = small_vit(depth=1).train(), (torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
    found = hessian_trace(model, given, probes=4)
    assert math.isfinite(found.value)
    assert found.error > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert str(found).startswith("trace ")
    with pytest.raises(InputError, match="`probes` is 1"):
        hessian_trace(model, given, probes=1)


# Grad-CAM


@pytest.mark.parametrize("make", [small_vit, small_cnn, lambda: AdaptiveCNN([Stage("conv", 4)], channels=3, classes=3)])
def test_a_cam_is_not_zero_is_each_images_own_and_leaves_no_hooks(make: Any) -> None:
    """X10: also when it is asked for twice, and after the layers were looked at."""
    model, images = make().train(), torch.randn(4, 3, 8, 8)
    before = [buffer.clone() for buffer in model.buffers()]
    model.eval().intermediates(images, (0,))
    model.train()
    classes = torch.tensor([0, 1, 2, 0])
    together = grad_cam(model, images, classes)
    assert together.shape == (4, 8, 8)
    most = together.amax((1, 2))
    assert most.max() == 1  # where nothing speaks for a class, an image is 0 everywhere
    assert ((most == 0) | (most == 1)).all()
    alone = torch.cat([grad_cam(model, images[i : i + 1], classes[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert hooks(model) == 0
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.buffers(), strict=True))


def test_a_cam_of_a_frozen_model_equals_that_of_one_that_trains() -> None:
    model, images = small_vit(), torch.randn(2, 3, 8, 8)
    trained = grad_cam(model, images)
    torch.testing.assert_close(grad_cam(model.requires_grad_(requires_grad=False), images), trained)


def test_a_cam_points_to_what_decides() -> None:
    """A network that sums the right half of the first channel for class 1 is explained by the right half."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.maps(images)
            return torch.stack([maps[:, 0].sum((1, 2)) * 0, maps[:, 0].sum((1, 2))], 1)

    model, images = Half(), torch.zeros(1, 3, 4, 4)
    images[0, 0, :, 2:] = 1.0
    found = grad_cam(model, images, torch.tensor([1]), layer=model.maps)
    assert torch.equal(found[0], images[0, 0])
    with pytest.raises(InputError, match="no `cam_layer"):
        grad_cam(model, images)
    with pytest.raises(InputError, match="had no part"):
        grad_cam(model, images, layer=nn.Identity())


# Augmented answers


def test_an_augmented_answer_is_the_mean_of_the_answers() -> None:
    """X12: an empty list, which would change nothing, is refused."""
    model, images = small_vit().eval(), torch.randn(2, 3, 8, 8)
    views: list[Any] = [lambda x: x.flip(-1), lambda x: x * 2]
    with torch.no_grad():
        wanted = torch.stack([model(view(images)).softmax(1) for view in (lambda x: x, *views)]).mean(0)
    torch.testing.assert_close(augmented_probabilities(model.train(), images, views), wanted)
    assert model.training
    with pytest.raises(InputError, match="`views` is empty"):
        augmented_probabilities(model, images, [])


def test_shifts_move_the_image_and_repeat_its_border() -> None:
    images = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = shifts(flip=True)
    assert len(views) == 9
    down = views[5](images)  # one down, one to the left
    assert down[0, 0].tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]
    assert torch.equal(views[-1](images), images.flip(-1))
    with pytest.raises(InputError, match="`pixels` is 0"):
        shifts(0)
