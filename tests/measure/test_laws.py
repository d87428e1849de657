"""What every meter promises: neither partition nor order changes a bit, and nothing stops growing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MeanMetric

from flyball.measure import Calibration, Classification, MultiLabel, Ranking, Regression, Spectral, Text

if TYPE_CHECKING:
    from collections.abc import Callable

Batch = tuple[np.ndarray, np.ndarray]
ROWS = 24
HOSTILE = np.array([0.0, -0.0, 1e4, -1e4, 5e-324, 1e-40, 0.5, -0.5])


def logits_of(generator: np.random.Generator, columns: int) -> np.ndarray:
    drawn = generator.normal(size=(ROWS, columns)) * 3.0
    return np.where(generator.random((ROWS, columns)) < 0.3, generator.choice(HOSTILE, (ROWS, columns)), drawn)


def classes(generator: np.random.Generator) -> Batch:
    return logits_of(generator, 4), generator.integers(4, size=ROWS)


def scores(generator: np.random.Generator) -> Batch:
    return logits_of(generator, 1)[:, 0], generator.integers(2, size=ROWS)


def flags(generator: np.random.Generator) -> Batch:
    return logits_of(generator, 4), generator.integers(2, size=(ROWS, 4))


def numbers(generator: np.random.Generator) -> Batch:
    return logits_of(generator, 1)[:, 0], logits_of(generator, 1)[:, 0]


def shares(generator: np.random.Generator) -> Batch:
    raw = generator.choice([0.0, 1.0, 1e-300, 0.3], (ROWS, 4)) + 1e-12
    return raw / raw.sum(axis=1, keepdims=True), generator.integers(4, size=ROWS)


def cubes(generator: np.random.Generator) -> Batch:
    return generator.random((ROWS, 2, 3, 3)), generator.random((ROWS, 2, 3, 3)) + 0.1


METERS: dict[str, tuple[Callable[[], Any], Callable[[np.random.Generator], Batch]]] = {
    "classification": (lambda: Classification(4), classes),
    "ranking": (Ranking, scores),
    "multi-label": (lambda: MultiLabel(4), flags),
    "text": (lambda: Text(4, ignore_index=3), classes),
    "regression": (Regression, numbers),
    "calibration": (lambda: Calibration(4), shares),
    "spectral": (lambda: Spectral(2), cubes),
}


@pytest.mark.parametrize("name", METERS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, ROWS), max_size=4))
def test_neither_partition_nor_permutation_changes_a_bit(name: str, seed: int, cuts: list[int]) -> None:
    """The batches are also spread over shards, which are merged from the last to the first."""
    make, draw = METERS[name]
    generator = np.random.default_rng(seed)
    batch = draw(generator)
    whole = make()
    whole.update(*batch)
    order = generator.permutation(ROWS)
    shards = [make(), make()]
    for place, part in enumerate(np.split(order, sorted(cuts))):
        if len(part):
            shards[place % 2].update(*(array[part] for array in batch))
    shards[1].merge(shards[0])
    assert shards[1].state_dict() == whole.state_dict()
    assert shards[1].compute().to_dict() == whole.compute().to_dict()


def test_a_mean_goes_on_growing_where_one_of_single_precision_stops() -> None:
    """From 2^24 on a float32 does not change by 1: the mean of torchmetrics is of the first samples for ever."""
    ours, theirs = Regression(), MeanMetric()
    ours.update(np.ones(1), np.zeros(1))  # an error of 1, doubled 24 times
    for _ in range(24):
        ours.merge(ours)
    theirs.update(torch.tensor(1.0), weight=2.0**24)
    for _ in range(1000):
        theirs.update(torch.tensor(0.0), weight=1.0)
    ours.update(np.zeros(1000), np.zeros(1000))
    assert float(theirs.compute()) == 1.0
    assert ours.compute().mae.value == 2**24 / (2**24 + 1000)


def test_the_loss_of_a_classifier_goes_on_growing_too() -> None:
    sure, half = np.array([[100.0, 0.0]]), np.zeros((1, 2))
    meter = Classification(2)
    meter.update(half, np.array([0]))  # a loss of ln 2, doubled 26 times
    for _ in range(26):
        meter.merge(meter)
    meter.update(np.repeat(sure, 1000, axis=0), np.zeros(1000, dtype=np.int64))
    exact = np.log(2.0) * (2**26 / (2**26 + 1000))
    assert meter.compute().nll.value == pytest.approx(exact, rel=1e-15)
    total = reached = np.float32(2**26 * np.log(2.0))
    for _ in range(1000):
        total += np.float32(0.69)
    assert total == reached, "a sum in float32 has stopped"
