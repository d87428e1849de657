"""The vision models: each equals its formula, its size and, where there is one, the model everybody else uses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from flyball.errors import ConfigError, InputError
from flyball.vision.models import (
    AdaptiveCNN,
    ConvNeXtV2,
    ResNetCIFAR,
    VisionTransformer,
    create,
    interpolate_positions,
    names,
    register,
)
from flyball.vision.models.adaptive_cnn import PLANS, ResidualBlock, SqueezeExcite
from flyball.vision.models.drop_path import DropPath, linear_rates
from flyball.vision.models.vit import Attention, PatchEmbed


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small_vit(**changes: Any) -> Any:
    settings = {"image_size": 8, "patch_size": 2, "width": 24, "depth": 3, "heads": 3, "classes": 5, "drop_path": 0.0}
    torch.manual_seed(0)
    return VisionTransformer(**{**settings, **changes})


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# Convolutional parts


def test_squeeze_and_excitation_equals_its_formula() -> None:
    """C1."""
    block = SqueezeExcite(4, reduction=2)
    nn.init.constant_(block.squeeze.weight, 0.5)
    block.excite.weight.data = torch.arange(8.0).reshape(4, 2) / 10
    maps = torch.randn(3, 4, 5, 6)
    hidden = (0.5 * maps.mean((2, 3)).sum(1, keepdim=True)).clamp(min=0).expand(3, 2)
    gate = 1 / (1 + (-(hidden @ block.excite.weight.T)).exp())
    torch.testing.assert_close(block(maps), maps * gate[:, :, None, None])


@pytest.mark.parametrize(("channels", "hidden"), [(32, 2), (64, 4), (128, 8), (15, 1), (1, 1)])
def test_one_hidden_unit_stands_for_sixteen_channels_and_there_is_always_one(channels: int, hidden: int) -> None:
    """C2."""
    assert SqueezeExcite(channels).squeeze.out_features == hidden


@pytest.mark.parametrize("channels", [3, 8, 64])
def test_the_gate_lies_between_0_and_1_and_depends_on_the_image(channels: int) -> None:
    """C3: below 16 channels too, where a gate without hidden units would be 0.5 for ever."""
    block, maps = SqueezeExcite(channels), torch.rand(2, channels, 4, 4) * torch.tensor([1.0, 9.0])[:, None, None, None]
    gate = block.gate(maps)
    assert block(maps).shape == maps.shape
    assert ((gate > 0) & (gate < 1)).all()
    torch.manual_seed(1)
    assert any(
        not torch.equal(*SqueezeExcite(channels).gate(maps).unbind()) for _ in range(10)
    )  # a single unit may be dead for one draw of its weights


@pytest.mark.parametrize(("stride", "out"), [(1, 4), (2, 4), (1, 6), (2, 6)])
def test_a_residual_block_equals_its_formula(stride: int, out: int) -> None:
    """C4: with the ReLU between the convolutions; with the last norm at 0 it is the shortcut's ReLU."""
    block: Any = ResidualBlock(4, out, stride).eval()
    maps = torch.randn(2, 4, 6, 6)
    inner = functional.relu(block.norm1(functional.conv2d(maps, block.conv1.weight, stride=stride, padding=1)))
    branch = block.norm2(functional.conv2d(inner, block.conv2.weight, padding=1))
    branch = branch * block.squeeze.gate(branch)[:, :, None, None]
    torch.testing.assert_close(block(maps), functional.relu(branch + block.shortcut(maps)))
    nn.init.zeros_(block.norm2.weight)
    torch.testing.assert_close(block(maps), functional.relu(block.shortcut(maps)))
    assert isinstance(block.shortcut, nn.Identity) == (stride == 1 and out == 4)


@pytest.mark.parametrize(
    ("plan", "channels", "blocks", "sides"),
    [("mnist", 1, 6, [14, 14, 14, 7, 7, 4, 4]), ("cifar", 3, 11, [32] * 3 + [16] * 3 + [8] * 3 + [4] * 3)],
)
def test_a_plan_has_its_blocks_and_its_maps(plan: str, channels: int, blocks: int, sides: list[int]) -> None:
    """C5 and C6."""
    model = AdaptiveCNN(plan, channels=channels).eval()
    images = torch.randn(1, channels, *((28, 28) if plan == "mnist" else (32, 32)))
    found = model.intermediates(images, range(len(sides)))
    assert sum(isinstance(stage, ResidualBlock) for stage in model.features) == blocks
    assert [found.layers[layer].shape[-1] for layer in range(len(sides))] == sides
    assert torch.equal(found.output, model(images))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (lambda: AdaptiveCNN("mnist"), 709_034),
        (lambda: AdaptiveCNN("mnist", squeeze=False), 703_658),
        (lambda: AdaptiveCNN("cifar", channels=3), 17_629_514),
        (lambda: AdaptiveCNN("cifar", channels=3, squeeze=False), 17_499_466),
        (ResNetCIFAR, 11_173_962),
        (lambda: ResNetCIFAR(channels=1), 11_172_810),
        (ConvNeXtV2, 27_870_730),
        (lambda: ConvNeXtV2(stem=4), 27_874_186),
        (lambda: VisionTransformer(distilled=True), 5_365_076),
        (VisionTransformer, 5_362_762),
        (lambda: VisionTransformer(mlp_ratio=2, conv_stem=True, distilled=True), 4_340_660),
        (lambda: VisionTransformer(mlp_ratio=2, conv_stem=True), 4_338_346),
        (lambda: VisionTransformer(mlp_ratio=2, distilled=True), 3_590_996),
        (lambda: _mnist_vit(distilled=True), 3_923_639),
        (lambda: _mnist_vit(distilled=False), 3_921_325),
        (lambda: VisionTransformer(variant="small", distilled=True), 21_346_964),
        (lambda: VisionTransformer(variant="base", distilled=True), 85_161_236),
        (lambda: VisionTransformer(image_size=224, patch_size=16, classes=1000), 5_717_416),
        (lambda: VisionTransformer(image_size=224, patch_size=16, classes=1000, distilled=True), 5_910_800),
    ],
)
def test_every_model_has_exactly_its_parameters(model: Any, parameters: int) -> None:
    """C5, C6 and C12."""
    with torch.device("meta"):
        assert size(model()) == parameters


def _mnist_vit(*, distilled: bool) -> VisionTransformer:
    return VisionTransformer(
        image_size=28, patch_size=2, mlp_ratio=2, conv_stem=True, channels=1, grey_to_rgb=True, distilled=distilled
    )


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_model_takes_any_number_of_channels_and_classes(channels: int, classes: int) -> None:
    """C5: whatever the data are, the head and the first layer follow."""
    images = torch.randn(2, channels, 16, 16)
    own = AdaptiveCNN([{"type": "conv", "out_channels": 4}], channels=channels, classes=classes)
    for model in (
        own,
        AdaptiveCNN("mnist", channels=channels, classes=classes),
        ResNetCIFAR(channels=channels, classes=classes, blocks=(1, 1), widths=(4, 8)),
        ConvNeXtV2(channels=channels, classes=classes, depths=(1, 1), widths=(4, 8)),
        small_vit(channels=channels, classes=classes, image_size=16),
    ):
        assert model(images).shape == (2, classes)


def test_a_plan_of_ones_own_honours_kernel_stride_padding_and_dropout() -> None:
    """C5: and there is one dropout, which works."""
    plan = [{"type": "conv", "out_channels": 6, "kernel_size": 5, "stride": 2, "padding": 0},
            {"type": "residual", "out_channels": 8, "stride": 2}]  # fmt: skip
    model = AdaptiveCNN(plan, hidden=(12, 9), dropout=0.9, channels=3)
    found = model.intermediates(torch.randn(2, 3, 17, 17), (0, -1))
    assert found.layers[0].shape == (2, 6, 7, 7)
    assert found.layers[-1].shape == (2, 8, 4, 4)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.9, 0.9]
    assert [layer.bias for layer in model.modules() if isinstance(layer, nn.Conv2d)] == [None] * 4


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([], "has no stages"),
        ("imagenet", "'mnist', 'cifar'"),
        ([{"type": "pool", "out_channels": 3}], "'conv' or 'residual'"),
        ([{"type": "conv", "out_channels": 0}], "`out_channels` is 0"),
        ([{"type": "conv", "out_channels": 3, "depth": 2}], "stage 0 of `plan`"),
        ([{"type": "residual", "out_channels": 3, "kernel_size": 5}], "use a 'conv' stage"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(plan: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AdaptiveCNN(plan)


@pytest.mark.parametrize("model", [AdaptiveCNN("mnist"), ResNetCIFAR(channels=1, blocks=(1,), widths=(4,)), None])
@pytest.mark.parametrize("layer", [99, -99, 1.0, True])
def test_a_layer_that_is_not_there_is_refused(model: Any, layer: Any) -> None:
    """Not answered with the image, or with the last layer."""
    model = small_vit(channels=1) if model is None else model
    with pytest.raises(InputError, match="the model has the layers 0 to"):
        model.intermediates(torch.randn(1, 1, 8, 8), (layer,))


# The transformer


@pytest.mark.parametrize("patch", [(2, 2), (4, 2)])
def test_patches_are_squares_times_a_matrix(patch: tuple[int, int]) -> None:
    """C7."""
    embed: Any = PatchEmbed(3, 10, patch)
    images = torch.randn(2, 3, 8, 12)
    squares = functional.unfold(images, patch, stride=patch).transpose(1, 2)
    torch.testing.assert_close(embed(images), squares @ embed.proj.weight.flatten(1).T + embed.proj.bias)
    with pytest.raises(InputError, match="its border would be lost"):
        embed(torch.randn(1, 3, 8, 13))


def test_a_size_that_patches_do_not_divide_is_refused_when_the_model_is_made() -> None:
    """C7."""
    with pytest.raises(ConfigError, match="30 x 30 is not covered by patches of 4 x 4"):
        VisionTransformer(image_size=30)


def test_the_stem_is_two_convolutions_with_norm_and_gelu_before_the_patches() -> None:
    """C8: without it the patches are as they were."""
    embed: Any = PatchEmbed(3, 8, (2, 2), conv_stem=True).eval()
    images = torch.randn(2, 3, 4, 4)
    first, norm, _, second, norm2, _ = embed.stem
    seen = functional.gelu(norm(functional.conv2d(images, first.weight, padding=1)))
    seen = functional.gelu(norm2(functional.conv2d(seen, second.weight, padding=1)))
    torch.testing.assert_close(embed(images), embed.proj(seen).flatten(2).transpose(1, 2))
    assert first.out_channels == 4 and first.bias is None and second.bias is None
    assert isinstance(PatchEmbed(3, 8, (2, 2)).stem, nn.Identity)


def test_positions_on_an_equal_grid_are_the_same_object() -> None:
    """C9."""
    positions = torch.randn(1, 2 + 9, 4)
    assert interpolate_positions(positions, (3, 3), special=2) is positions


@settings(max_examples=40, deadline=None)
@given(
    source=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    special=st.integers(0, 2),
    antialias=st.booleans(),
)
def test_positions_keep_special_tokens_and_a_constant_field_on_any_rectangle(
    source: tuple[int, int], grid: tuple[int, int], special: int, *, antialias: bool
) -> None:
    """C9."""
    positions = torch.cat([torch.randn(1, special, 3), torch.full((1, source[0] * source[1], 3), 0.7)], dim=1)
    found = interpolate_positions(positions, grid, special=special, source=source, antialias=antialias)
    assert found.shape == (1, special + grid[0] * grid[1], 3)
    assert torch.equal(found[:, :special], positions[:, :special])
    torch.testing.assert_close(found[:, special:], torch.full_like(found[:, special:], 0.7))


def test_positions_are_read_row_by_row() -> None:
    """C9: from 7 x 7 to 8 x 8 a field that rises downward still does, and only downward."""
    field = torch.arange(7.0)[:, None].expand(7, 7).reshape(1, 49, 1)
    found = interpolate_positions(field, (8, 8), special=0).reshape(8, 8)
    assert torch.equal(found, found[:, :1].expand(8, 8))
    assert all(above < below for above, below in pairwise(found[:, 0].tolist()))


def test_positions_of_no_square_are_refused() -> None:
    """C9."""
    with pytest.raises(InputError, match="10 patches behind 1 special tokens, which is no square"):
        interpolate_positions(torch.randn(1, 11, 4), (2, 2))
    with pytest.raises(InputError, match=r"`source` is \(3, 3\)"):
        interpolate_positions(torch.randn(1, 11, 4), (2, 2), source=(3, 3))


def test_weights_of_another_size_are_fitted_and_other_sizes_are_taken_only_if_asked() -> None:
    """C9: the same weights at 8 x 12, whether they were fitted on loading or while computing."""
    model, images = small_vit(any_size=True).eval(), torch.randn(2, 3, 8, 12)
    wide = small_vit(image_size=(8, 12)).eval()
    wide.load_state_dict(wide.fitted(model.state_dict()))
    assert torch.equal(model(images), wide(images))
    with pytest.raises(InputError, match="8 x 12 and the model was made for 8 x 8"):
        small_vit()(images)
    with pytest.raises(InputError, match="no `pos_embed`"):
        wide.fitted({})


def test_attention_equals_softmax_written_out() -> None:
    """C10 and C47: whichever kernel computes it."""
    attention, tokens = Attention(12, 3), torch.randn(2, 5, 12)
    queries, keys, values = (
        part.reshape(2, 5, 3, 4).transpose(1, 2) for part in attention.qkv(tokens).chunk(3, dim=-1)
    )
    weights = (queries @ keys.transpose(-2, -1) / 2).softmax(-1)
    wanted = attention.proj((weights @ values).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(tokens), wanted, atol=1e-5, rtol=1e-5)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        torch.testing.assert_close(attention(tokens), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention.weights(tokens), weights)


@pytest.mark.parametrize("special", [1, 2])
def test_the_attention_that_is_shown_is_the_attention_that_is_paid(special: int) -> None:
    """C10: the weights of a block, times its values, are what its attention gives; the rows add up to 1."""
    model, images = small_vit(distilled=special == 2).eval(), torch.randn(2, 3, 8, 8)
    found = model.attention(images)
    assert list(found) == [0, 1, 2]
    assert all(weights.shape == (2, 3, 16 + special, 16 + special) for weights in found.values())
    torch.testing.assert_close(found[1].sum(-1), torch.ones(2, 3, 16 + special))
    assert torch.equal(model.attention(images, (-1,))[-1], found[2])
    block: Any = model.blocks[0]
    tokens = block.norm1(model._embed(images))
    values = block.attn.qkv(tokens)[..., 48:].reshape(2, -1, 3, 8).transpose(1, 2)
    paid = block.attn.proj((found[0] @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(paid, block.attn(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("highest", "depth", "rates"), [(0.3, 4, [0.0, 0.1, 0.2, 0.3]), (0.3, 1, [0.0])])
def test_branches_are_left_out_more_often_towards_the_end(highest: float, depth: int, rates: list[float]) -> None:
    """C11."""
    assert linear_rates(highest, depth) == pytest.approx(rates)
    assert [block.drop_path.rate for block in small_vit(depth=depth, drop_path=highest).blocks] == pytest.approx(rates)


def test_a_branch_that_is_left_out_keeps_the_mean_and_nothing_is_left_out_in_evaluation() -> None:
    """C11."""
    drop, branch = DropPath(0.4), torch.ones(20_000, 2)
    dropped = drop(branch)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)
    assert drop.eval()(branch) is branch


def test_the_tiny_variant_is_the_default_and_what_is_said_beats_a_variant() -> None:
    """C12."""
    with torch.device("meta"):
        tiny: Any = VisionTransformer()
        mixed: Any = VisionTransformer(variant="small", width=192, heads=3)
    assert (tiny.head.in_features, len(tiny.blocks), tiny.blocks[0].attn.heads) == (192, 12, 3)
    assert tiny.blocks[0].mlp.fc1.out_features == 4 * 192
    assert (mixed.head.in_features, mixed.blocks[0].attn.heads) == (192, 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 25, "heads": 3}, "the heads divide"),
        ({"variant": "huge"}, "'tiny', 'small', 'base'"),
        ({"inference": "both"}, "'average', 'cls', 'dist'"),
        ({"depth": 0}, "`depth` is 0"),
        ({"classes": True}, "`classes` is True"),
        ({"drop_path": 1.0}, "`drop_path` is 1.0"),
        ({"cls_dropout": 1.1}, "`cls_dropout` is 1.1"),
        ({"mlp_ratio": 0.0}, "`mlp_ratio` is 0.0"),
        ({"norm_eps": 0.0}, "`norm_eps` is 0.0"),
        ({"grey_to_rgb": True}, "`channels` is 3"),
        ({"image_size": (8, 8, 8)}, "height and width"),
    ],
)
def test_what_cannot_be_built_is_refused_when_it_is_asked_for(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small_vit(**settings)


def test_a_distilled_transformer_answers_with_both_heads_in_training_and_as_told_else() -> None:
    model, images = small_vit(distilled=True), torch.randn(2, 3, 8, 8)
    scores, taught = model(images)
    assert torch.equal(model.eval()(images), (scores + taught) / 2)
    for inference, wanted in (("cls", scores), ("dist", taught)):
        model.inference = inference
        assert torch.equal(model(images), wanted)


def test_intermediates_are_the_stream_before_the_norm_and_tokens_are_behind_it() -> None:
    model, images = small_vit(distilled=True).eval(), torch.randn(2, 3, 8, 8)
    found = model.intermediates(images, (0, -1))
    assert found.tokens is not None
    assert torch.equal(model.norm(found.layers[-1]), found.tokens)
    assert torch.equal(model.intermediates(images, (2,), normalize=True).layers[2], found.tokens)
    assert found.layers[0].shape == (2, 16, 24)
    assert model.intermediates(images, (1,), cls_only=True).layers[1].shape == (2, 1, 24)
    assert torch.equal(found.output, model(images))


def test_the_class_token_is_dropped_in_every_forward_and_only_in_training() -> None:
    """One path: what is dropped in `forward` is dropped where intermediates are asked for."""
    model, images = small_vit(cls_dropout=1.0), torch.randn(2, 3, 8, 8)
    found = model.intermediates(images, (0,))
    assert found.tokens is not None
    assert torch.equal(found.output, model.head(found.tokens.mean(1)))
    assert torch.equal(model(images), found.output)
    assert not torch.equal(model.eval()(images), found.output)


def test_a_grey_image_is_made_colourful_by_a_learnt_matrix() -> None:
    model, images = small_vit(channels=1, grey_to_rgb=True).eval(), torch.randn(2, 1, 8, 8)
    coloured = images * model.grey.weight.reshape(1, 3, 1, 1)
    torch.testing.assert_close(model.patch_embed(model.grey(images)), model.patch_embed(coloured))
    with pytest.raises(InputError, match=r"pass \(batch, 1, height, width\)"):
        model(torch.randn(2, 3, 8, 8))


def test_no_weight_decay_falls_on_positions_and_tokens() -> None:
    """C40, for what is neither bias nor norm."""
    model = small_vit(distilled=True)
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


# Others' weights


@pytest.mark.parametrize(
    ("theirs", "settings", "ours"),
    [
        ("deit_tiny_distilled_patch16_224", {"img_size": 32, "patch_size": 4}, {"distilled": True}),
        ("vit_tiny_patch16_224", {"img_size": 64}, {"image_size": 64, "patch_size": 16}),
        ("vit_small_patch16_224", {"img_size": 32}, {"variant": "small", "patch_size": 16}),
    ],
)
def test_a_transformer_of_timm_loads_as_it_is_and_answers_bit_for_bit(theirs: str, settings: Any, ours: Any) -> None:
    """X13."""
    other = timm.create_model(theirs, num_classes=7, **settings).eval()
    _scatter(other)
    own = VisionTransformer(classes=7, **ours).eval()
    own.load_state_dict(other.state_dict())
    images = torch.randn(2, 3, *own.image_size)
    assert torch.equal(own(images), other(images))


def test_a_convnext_of_timm_loads_as_it_is_and_answers_bit_for_bit() -> None:
    """X13: at evaluation and in training."""
    other = timm.create_model("convnextv2_tiny", num_classes=7).eval()
    _scatter(other)
    own = ConvNeXtV2(classes=7, stem=4).eval()
    own.load_state_dict(other.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(own(images), other(images))
    assert torch.equal(own.train()(images), other.train()(images))


def _scatter(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)


# By name


def test_models_are_made_by_name_and_a_wrong_name_or_setting_is_told_with_the_nearest() -> None:
    assert set(names()) >= {"adaptive_cnn", "convnext_v2", "resnet18_cifar", "vit"}
    assert isinstance(create("vit", image_size=8, patch_size=4, depth=1), VisionTransformer)
    with pytest.raises(ConfigError, match=r"no model 'vti' \(did you mean `vit`\?"):
        create("vti")
    with pytest.raises(ConfigError, match=r"no setting `patchsize` \(did you mean `patch_size`\?"):
        create("vit", patchsize=4)


def test_a_model_of_ones_own_has_a_name_and_a_taken_name_is_refused() -> None:
    @register("a model of the tests")
    def linear(*, classes: int = 2) -> nn.Module:
        return nn.Linear(3, classes)

    assert create("a model of the tests", classes=4)(torch.zeros(1, 3)).shape == (1, 4)
    with pytest.raises(ConfigError, match="registered already"):
        register("vit")(linear)


def test_plans_are_data_that_nobody_changes() -> None:
    assert all(isinstance(stages, tuple) for stages, _ in PLANS.values())
