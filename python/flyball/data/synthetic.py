"""Data made from a seed, for tests, benches and examples: as many samples as asked for, and learnable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flyball.data.splits import Splits, stratified
from flyball.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def images(
    samples: int = 1000,
    *,
    classes: int = 10,
    channels: int = 1,
    size: int = 8,
    noise: float = 0.3,
    seed: int = 0,
) -> Splits:
    """Make images of smooth class patterns under Gaussian noise, cut into train, validation and test.

    Each class has one random low-frequency pattern; a sample is its pattern, shifted by up to one
    pixel and covered with noise. Classes are balanced to within one sample.

    Args:
        samples: How many images in all.
        classes: How many classes.
        channels: Channels of an image.
        size: Height and width of an image.
        noise: Standard deviation of the noise; patterns have standard deviation 1.
        seed: The same seed gives the same images, with one version of NumPy.

    Raises:
        InputError: An argument is out of range.
    """
    _require(samples=(samples, 3 * classes), classes=(classes, 2), channels=(channels, 1), size=(size, 2))
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"`noise` is {noise}: it must be 0 or more")
    generator = np.random.default_rng(seed)
    patterns = _smooth(generator, (classes, channels, size, size))
    labels = np.arange(samples, dtype=np.int64) % classes
    rolls = generator.integers(-1, 2, size=(samples, 2))
    rows = (np.arange(size) + rolls[:, :1]) % size
    columns = (np.arange(size) + rolls[:, 1:]) % size
    clean = patterns[labels[:, None, None, None], np.arange(channels)[:, None, None],
                     rows[:, None, :, None], columns[:, None, None, :]]  # fmt: skip
    inputs = clean + noise * generator.standard_normal(clean.shape)
    return stratified(inputs.astype(np.float32), labels, seed=seed)


def tokens(
    samples: int = 1000,
    *,
    vocabulary: int = 32,
    length: int = 16,
    order: float = 0.9,
    seed: int = 0,
) -> Splits:
    """Make token sequences from a seeded Markov chain, cut into train, validation and test.

    From each token one successor follows with probability `order`, any token otherwise. The best
    next-token loss is therefore known, and lies well below ln(vocabulary). `inputs` are the
    first `length` tokens of a sequence and `targets` the same moved on by one.

    Args:
        samples: How many sequences in all.
        vocabulary: How many different tokens.
        length: Tokens in an input.
        order: Probability of the favoured successor, from 0 to 1.
        seed: The same seed gives the same sequences, with one version of NumPy.

    Raises:
        InputError: An argument is out of range.
    """
    _require(samples=(samples, 3), vocabulary=(vocabulary, 2), length=(length, 1))
    if not 0 <= order <= 1:
        raise InputError(f"`order` is {order}: it is a probability, from 0 to 1")
    generator = np.random.default_rng(seed)
    successor = generator.permutation(vocabulary)
    sequences = np.empty((samples, length + 1), dtype=np.int64)
    sequences[:, 0] = generator.integers(vocabulary, size=samples)
    for position in range(length):
        follow = generator.random(samples) < order
        anything = generator.integers(vocabulary, size=samples)
        sequences[:, position + 1] = np.where(follow, successor[sequences[:, position]], anything)
    one_class = np.zeros(samples, dtype=np.int64)
    return stratified(sequences[:, :-1], one_class, targets=sequences[:, 1:], seed=seed)


def _smooth(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw noise, keep its lowest frequencies, and scale each pattern to mean 0 and deviation 1."""
    size = shape[-1]
    frequency = np.abs(np.fft.fftfreq(size) * size)
    keep = (frequency[:, None] <= 2) & (frequency[None, :] <= 2)
    field: NDArray[np.float64] = np.fft.ifft2(np.fft.fft2(generator.standard_normal(shape)) * keep).real
    field -= field.mean(axis=(-2, -1), keepdims=True)
    field /= np.maximum(field.std(axis=(-2, -1), keepdims=True), 1e-12)
    return field


def _require(**bounds: tuple[int, int]) -> None:
    for name, (value, least) in bounds.items():
        if value < least:
            raise InputError(f"`{name}` is {value}: it must be at least {least}")
