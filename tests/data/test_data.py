"""Embedded data: stratified, seeded, disjoint, and without a download."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from flyball import data
from flyball.errors import InputError, MissingExtraError

DIGITS = data.digits()


def test_digits_are_all_there_and_scaled() -> None:
    inputs = np.concatenate([split.inputs for split in DIGITS])
    assert [len(split) for split in DIGITS] == [1079, 359, 359]
    assert inputs.shape == (1797, 1, 8, 8)
    assert inputs.dtype == np.float32
    # The statistics of the set, in [0, 1]: a golden value that a wrong scale or a lost image would change.
    assert inputs.min() == 0.0
    assert inputs.max() == 1.0
    assert inputs.mean() == pytest.approx(0.305, abs=5e-4)
    assert inputs.std() == pytest.approx(0.376, abs=5e-4)


def test_no_digit_is_in_two_splits() -> None:
    images = [{image.tobytes() for image in split.inputs} for split in DIGITS]
    train, validation, test = images
    assert not (train & validation or train & test or validation & test)


def test_the_cut_of_the_digits_is_the_same_on_every_machine() -> None:
    assert DIGITS.test.targets[:12].tolist() == [5, 1, 2, 5, 3, 1, 3, 1, 5, 0, 2, 4]


def test_digits_without_scikit_learn_name_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"needs `scikit-learn`.*run `pip install 'flyball\[data\]'`"):
        data.digits()


@given(
    counts=st.lists(st.integers(3, 60), min_size=1, max_size=6),
    shares=st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda pair: sum(pair) < 0.99),
    seed=st.integers(0, 2**32),
)
def test_a_cut_loses_nothing_and_keeps_the_classes(counts: list[int], shares: tuple[float, float], seed: int) -> None:
    validation, test = shares
    labels = np.repeat(np.arange(len(counts)), counts)
    samples = np.arange(len(labels))
    splits = data.stratified(samples, labels, validation=validation, test=test, seed=seed)
    assert sorted(np.concatenate([split.inputs for split in splits]).tolist()) == samples.tolist()
    for split, share in zip(splits, (1 - validation - test, validation, test), strict=True):
        assert (labels[split.inputs] == split.targets).all()
        for label, count in enumerate(counts):
            got = int((split.targets == label).sum())
            assert got >= 1
            assert abs(got - share * count) <= 2, "each class keeps its share, to rounding"


@given(seed=st.integers(0, 2**32))
def test_a_cut_is_a_function_of_its_seed(seed: int) -> None:
    labels = np.arange(60) % 3
    one, two, other = (data.stratified(np.arange(60), labels, seed=s) for s in (seed, seed, seed + 1))
    assert all((a.inputs == b.inputs).all() for a, b in zip(one, two, strict=True))
    assert any(len(a) != len(b) or (a.inputs != b.inputs).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.zeros(4, dtype=np.int64)}, "have lengths 5, 4 and 4: give one label"),
        ({"validation": 0.0}, "`validation` is 0.0 and `test` is 0.2: both must be above 0"),
        ({"validation": 0.6, "test": 0.4}, "and together below 1"),
        ({"validation": float("nan")}, "`validation` is nan"),
        ({"labels": np.array([0, 0, 0, 1, 1])}, "class 1 has 2 samples: it needs at least 3"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    given_arguments = {"labels": np.zeros(5, dtype=np.int64), **arguments}
    with pytest.raises(InputError, match=message):
        data.stratified(np.arange(5), **given_arguments)  # type: ignore[arg-type]


def test_nothing_cannot_be_cut() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(InputError, match="`inputs` has no samples"):
        data.stratified(nothing, nothing)


def test_a_split_with_a_target_too_few_is_refused() -> None:
    with pytest.raises(InputError, match="`train` has 3 inputs and 2 targets: give one target for each input"):
        data.Split("train", np.zeros(3), np.zeros(2, dtype=np.int64))


def test_a_loader_takes_a_split_as_it_is() -> None:
    inputs, targets = next(iter(DataLoader(DIGITS.train, batch_size=5)))
    assert tuple(inputs.shape) == (5, 1, 8, 8)
    assert targets.tolist() == DIGITS.train.targets[:5].tolist()
    tokens = data.tokens(30, length=7)
    inputs, targets = next(iter(DataLoader(tokens.train, batch_size=5)))
    assert (inputs[:, 1:] == targets[:, :-1]).all()


@pytest.mark.parametrize("make", [data.images, data.tokens])
def test_synthetic_sets_are_functions_of_their_seed(make: object) -> None:
    assert callable(make)
    one, two, other = make(60, seed=3), make(60, seed=3), make(60, seed=4)
    assert (one.train.inputs == two.train.inputs).all()
    assert (one.train.inputs != other.train.inputs).any()


def test_synthetic_sets_draw_nothing_from_the_global_generator() -> None:
    np.random.seed(0)  # noqa: NPY002 -- the global state is what is watched
    untouched = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    data.images(60)
    data.tokens(60)
    data.digits()
    assert np.random.random() == untouched  # noqa: NPY002


def test_synthetic_images_can_be_learnt() -> None:
    train, _, test = data.images(600, noise=0.3)
    distance = ((test.inputs[:, None] - train.inputs) ** 2).sum(axis=(2, 3, 4))
    nearest = train.targets[distance.argmin(axis=1)]
    assert (nearest == test.targets).mean() > 0.95


def test_synthetic_tokens_follow_their_chain() -> None:
    train, *_ = data.tokens(400, vocabulary=8, order=0.9)
    pairs = np.zeros((8, 8))
    np.add.at(pairs, (train.inputs.ravel(), train.targets.ravel()), 1)
    likeliest = pairs.max(axis=1) / pairs.sum(axis=1)
    # The favoured successor comes with probability 0.9, and one time in eight of the rest.
    assert likeliest == pytest.approx(0.9 + 0.1 / 8, abs=0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.images(29), "`samples` is 29: it must be at least 30"),
        (lambda: data.images(classes=1), "`classes` is 1: it must be at least 2"),
        (lambda: data.images(noise=float("nan")), "`noise` is nan: it must be 0 or more"),
        (lambda: data.tokens(vocabulary=1), "`vocabulary` is 1: it must be at least 2"),
        (lambda: data.tokens(order=1.5), "`order` is 1.5: it is a probability"),
    ],
)
def test_synthetic_sets_refuse_what_makes_no_sense(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=message):
        call()
