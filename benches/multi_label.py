"""The meter of several labels a row: micro and per-label precision, recall, F1, exact match and Hamming loss."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelHammingDistance,
    MultilabelPrecision,
    MultilabelRecall,
)

from benches.harness import Contest
from flyball.measure import MultiLabel

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("torchmetrics", "torch", "numpy")
SIZES = ((256, 20), (1024, 1000))

Numbers = dict[str, np.ndarray]


def contests() -> Iterator[Contest[Numbers]]:
    """Yield one contest for each size: a batch is added, and, before any timing, all numbers are compared."""
    torch.set_num_threads(1)
    for rows, labels in SIZES:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(rows, labels, generator=generator)
        targets = (torch.rand(rows, labels, generator=generator) < 0.2).long()
        narrow = targets.to(torch.uint8)
        meter, rival = MultiLabel(labels), collection(labels)
        yield Contest(
            work=f"labels, {rows}x{labels}",
            answers={
                "flyball": partial(ours, logits, narrow, labels),
                "torchmetrics": partial(theirs, logits, targets, labels),
            },
            timed={
                "flyball": partial(meter.update, logits, narrow),
                "torchmetrics": partial(rival.update, logits, targets),
            },
            same=same,
        )


def collection(labels: int) -> MetricCollection:
    options: dict[str, Any] = {"num_labels": labels, "average": "none", "validate_args": False}
    return MetricCollection(
        {
            "precision": MultilabelPrecision(**options),
            "recall": MultilabelRecall(**options),
            "f1": MultilabelF1Score(**options),
            "subset_accuracy": MultilabelExactMatch(num_labels=labels, validate_args=False),
            "hamming_loss": MultilabelHammingDistance(num_labels=labels, average="micro", validate_args=False),
        },
        compute_groups=True,  # so it counts once for those that count alike
    )


def ours(logits: torch.Tensor, targets: torch.Tensor, labels: int) -> Numbers:
    meter = MultiLabel(labels)
    meter.update(logits, targets)
    found = meter.compute()
    rates = {"precision": found.precision, "recall": found.recall, "f1": found.f1}
    return {
        **{name: np.array([one.value if one else 0.0 for one in rate]) for name, rate in rates.items()},
        "subset_accuracy": np.array(found.subset_accuracy.value),
        "hamming_loss": np.array(found.hamming_loss.value),
    }


def theirs(logits: torch.Tensor, targets: torch.Tensor, labels: int) -> Numbers:
    rival = collection(labels)
    rival.update(logits, targets)
    return {name: number.double().numpy() for name, number in rival.compute().items()}


def same(one: Numbers, other: Numbers) -> None:
    """They must be equal but for torchmetrics' single precision."""
    assert one.keys() == other.keys()
    for name, number in one.items():
        np.testing.assert_allclose(number, other[name], atol=1e-6, err_msg=name)
