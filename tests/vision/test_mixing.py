"""Mixed images and their targets say the same, on every rectangle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ConfigError, InputError
from flyball.vision.mixing import CutMix, Cutout, Mix, MixUp


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbered(rows: int, height: int, width: int) -> torch.Tensor:
    """Images whose every pixel is the number of the image."""
    return torch.arange(rows, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 2, height, width).clone()


sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))
seeds = st.integers(0, 2**32 - 1)


@given(sizes, st.integers(1, 9), st.integers(1, 3), seeds)
def test_cutout_fills_exactly_boxes_of_its_side_and_nothing_else(
    size: tuple[int, int], length: int, holes: int, seed: int
) -> None:
    """C34: with an odd side too; what is outside of the image is cut off."""
    images = torch.rand(3, 2, *size) + 1
    found = Cutout(length, holes).cut(images, generator(seed))
    drawn = generator(seed)
    for image, cut in zip(images, found, strict=True):
        wanted = image.clone()
        for _ in range(holes):
            top, left = (int(drawn.integers(side)) - length // 2 for side in size)
            wanted[:, max(0, top) : top + length, max(0, left) : left + length] = 0.0
        assert torch.equal(cut, wanted)


def test_a_cut_that_is_not_at_the_border_has_its_whole_side() -> None:
    """C34."""
    for length in (1, 4, 5):
        areas = {int((Cutout(length).cut(torch.ones(1, 1, 40, 40), generator(seed)) == 0).sum()) for seed in range(30)}
        assert max(areas) == length**2


@given(st.floats(0.1, 4), seeds)
def test_mixup_is_the_convex_combination_of_images_and_of_targets(alpha: float, seed: int) -> None:
    """C35."""
    images, targets = torch.rand(5, 2, 4, 6), torch.tensor([0, 1, 2, 1, 0])
    mixed, wanted = Mix(MixUp(alpha), classes=3, seed=seed)(images, targets)
    hot = torch.nn.functional.one_hot(targets, 3).float()
    share = _share(images, mixed)
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wanted, share * hot + (1 - share) * hot.roll(1, 0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(wanted.sum(1), torch.ones(5))


def _share(images: torch.Tensor, mixed: torch.Tensor) -> float:
    apart = images - images.roll(1, 0)
    return float(((mixed - images.roll(1, 0)) * apart).sum() / apart.square().sum())


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_shares_are_drawn_from_beta(alpha: float) -> None:
    """C36: mean and variance; alpha 0 is the identity."""
    drawn = generator()
    shares = np.array([MixUp(alpha).mix(torch.zeros(1, 1, 1, 1), drawn)[1] for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    images = torch.rand(3, 1, 2, 2)
    for way in (MixUp(0), CutMix(0)):
        assert way.mix(images, drawn) == (images, 1.0)


@given(sizes, seeds)
def test_cutmix_takes_the_other_image_exactly_inside_a_box_and_counts_its_pixels(
    size: tuple[int, int], seed: int
) -> None:
    """C37 and C38: on rectangles too."""
    images = numbered(3, *size)
    mixed, share = CutMix().mix(images, generator(seed))
    other = mixed != images
    assert torch.equal(mixed[other], images.roll(1, 0)[other])
    assert other.float().mean().item() == pytest.approx(1 - share, abs=1e-6)
    rows, columns = other[0, 0].any(1), other[0, 0].any(0)
    assert torch.equal(other[0, 0], rows[:, None] & columns[None])
    for line in (rows, columns):
        at = line.nonzero().flatten().tolist()
        assert at == list(range(at[0], at[-1] + 1)) if at else True
    mixed, targets = Mix(CutMix(), classes=3, seed=seed)(images, torch.arange(3))
    own = (mixed == images).float().mean((1, 2, 3))
    torch.testing.assert_close(targets.diagonal(), own, atol=1e-6, rtol=0)


def test_the_box_is_the_root_of_the_rest_on_each_side() -> None:
    """C39: before it is cut off at the borders, for height and width each by itself."""
    largest = np.zeros(2)
    for seed in range(400):
        share = float(generator(seed).beta(1.0, 1.0))
        mixed, _ = CutMix().mix(numbered(2, 30, 70), generator(seed))
        other = (mixed != numbered(2, 30, 70))[0, 0]
        sides = np.array([int(other.any(1).sum()), int(other.any(0).sum())])
        wanted = np.array([round((1 - share) ** 0.5 * side) for side in (30, 70)])
        assert (sides <= wanted).all()
        largest = np.maximum(largest, sides == wanted)
    assert largest.all()


def test_one_way_is_drawn_for_each_batch_and_the_step_decides() -> None:
    """A resumed run, and another machine, mix alike."""
    images, targets = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    mix = Mix(MixUp(), CutMix(), classes=3, probability=0.7, seed=5)
    found = [mix(images, targets) for _ in range(30)]
    again = Mix(MixUp(), CutMix(), classes=3, probability=0.7, seed=5)
    again.load_state_dict({"step": 20})
    assert all(torch.equal(one, other) for one, other in zip(found[20], again(images, targets), strict=True))
    assert again.state_dict() == {"step": 21}
    untouched = sum(torch.equal(mixed, images) for mixed, _ in found)
    assert 2 <= untouched <= 18
    assert torch.equal(mix(images, targets, step=3)[0], found[3][0])


def test_nothing_is_drawn_from_a_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Mix(CutMix(), MixUp(), classes=2)(torch.rand(2, 1, 4, 4, generator=torch.Generator()), torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Mix(classes=3), "no way to mix"),
        (lambda: Mix(MixUp(), classes=1), "`classes` of `Mix` is 1"),
        (lambda: Mix(MixUp(), classes=3, probability=1.5), "`probability` of `Mix`"),
        (lambda: MixUp(-1), "`alpha` is -1"),
        (lambda: CutMix(float("nan")), "`alpha` is nan"),
        (lambda: Cutout(0), "`length` of `Cutout` is 0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_targets_that_are_no_classes_are_refused() -> None:
    mix = Mix(MixUp(), classes=3)
    with pytest.raises(InputError, match="classes from 0 to 3"):
        mix(torch.rand(2, 1, 2, 2), torch.tensor([0, 3]))
    with pytest.raises(InputError, match="a target for each image"):
        mix(torch.rand(2, 1, 2, 2), torch.tensor([0]))
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert mix(torch.rand(2, 1, 2, 2), soft)[1].sum(1).tolist() == pytest.approx([1.0, 1.0])
