"""The classification meter: accuracy, top-5, recall per class, macro-F1, confusion, likelihood and ECE of a batch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassRecall,
)

from benches.harness import Contest
from flyball.measure import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("torchmetrics", "torch", "numpy")
SIZES = ((128, 10), (1024, 1000))
BINS = 15

Numbers = dict[str, np.ndarray]


class LogLikelihood(Metric):
    """The mean negative log-likelihood, which torchmetrics does not have, by its own rules for a metric."""

    total: torch.Tensor
    samples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.total += functional.cross_entropy(preds, target, reduction="sum").double()
        self.samples += len(target)

    def compute(self) -> torch.Tensor:
        return self.total / self.samples


class HandFused:
    """What a careful person writes in torch: one pass for everything, and no more state than is needed."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.top5 = torch.tensor(0)
        self.total = torch.tensor(0.0, dtype=torch.float64)
        # Count, hits and confidence of each bin.
        self.bins = torch.zeros(3, BINS, dtype=torch.float64)

    def update(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        values, best = logits.topk(5, dim=1)
        log_total = logits.logsumexp(1)
        confidence = (values[:, 0] - log_total).exp().double()
        places = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        hits = (best[:, 0] == targets).double()
        columns = torch.stack([torch.ones_like(hits), hits, confidence])
        self.bins.scatter_add_(1, places.expand(3, -1), columns)
        cells = targets * self.classes + best[:, 0]
        self.confusion += torch.bincount(cells, minlength=self.classes**2).view(self.classes, -1)
        self.top5 += (best == targets[:, None]).sum()
        self.total += (log_total - logits.gather(1, targets[:, None])[:, 0]).double().sum()

    def compute(self) -> Numbers:
        count, hits, confidence = self.bins.numpy()
        ece = np.abs(hits - confidence).sum() / count.sum()
        return from_confusion(self.confusion.numpy(), int(self.top5), float(self.total)) | {"ece": np.asarray(ece)}


def from_confusion(confusion: np.ndarray, top5: int, total: float) -> Numbers:
    """Derive every number from the counts."""
    samples, hits = confusion.sum(), np.diag(confusion)
    rows, columns = confusion.sum(axis=1), confusion.sum(axis=0)
    recall = hits / np.maximum(rows, 1)
    f1 = 2 * hits / np.maximum(rows + columns, 1)
    seen = (rows + columns) > 0
    return {
        "accuracy": hits.sum() / samples,
        "top5": np.asarray(top5 / samples),
        "recall": recall,
        "macro_f1": f1[seen].mean(),
        "confusion": confusion,
        "nll": np.asarray(total / samples),
    }


def collection(classes: int) -> MetricCollection:
    """Build the bundle as the manual of torchmetrics shows it, without the checks of the input."""
    of = partial(dict[str, Any], num_classes=classes, validate_args=False)
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(**of(average="micro")),
            "top5": MulticlassAccuracy(**of(average="micro", top_k=5)),
            "recall": MulticlassRecall(**of(average="none")),
            "macro_f1": MulticlassF1Score(**of(average="macro")),
            "confusion": MulticlassConfusionMatrix(**of()),
            "nll": LogLikelihood(),
            "ece": MulticlassCalibrationError(**of(n_bins=BINS)),
        }
    )


def contests() -> Iterator[Contest[Numbers]]:
    """Yield one contest for each size of batch."""
    # One thread each: flyball's meter uses one, and a second of torch's would be billed for spinning at these sizes.
    torch.set_num_threads(1)
    for rows, classes in SIZES:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(rows, classes, generator=generator) * 2
        targets = torch.randint(classes, (rows,), generator=generator)

        def ours(logits: torch.Tensor, targets: torch.Tensor, classes: int) -> Numbers:
            meter = Classification(classes, topk=(1, 5))
            meter.update(logits, targets)
            result = meter.compute()
            recall = [0.0 if one is None else one.value for one in result.recall]
            return {
                "accuracy": np.asarray(result.accuracy.value),
                "top5": np.asarray(result.topk[5].value),
                "recall": np.asarray(recall),
                "macro_f1": np.asarray(result.macro_f1.value),
                "confusion": result.confusion,
                "nll": np.asarray(result.nll.value),
                "ece": np.asarray(result.ece.value),
            }

        def torchmetrics(logits: torch.Tensor, targets: torch.Tensor, classes: int) -> Numbers:
            metrics = collection(classes)
            metrics.update(logits, targets)
            return {name: value.numpy() for name, value in metrics.compute().items()}

        def hand_fused(logits: torch.Tensor, targets: torch.Tensor, classes: int) -> Numbers:
            fused = HandFused(classes)
            fused.update(logits, targets)
            return fused.compute()

        batch = (logits, targets)
        yield Contest(
            work=f"one batch, {rows} x {classes} float32",
            answers={
                "flyball": partial(ours, *batch, classes),
                "torchmetrics": partial(torchmetrics, *batch, classes),
                "hand-fused torch": partial(hand_fused, *batch, classes),
            },
            same=same,
            timed={
                "flyball": partial(Classification(classes, topk=(1, 5)).update, *batch),
                "torchmetrics": partial(collection(classes).update, *batch),
                "hand-fused torch": partial(HandFused(classes).update, *batch),
            },
        )


def same(ours: Numbers, theirs: Numbers) -> None:
    """Counts must be equal; what is computed in float32 on one side, to its precision."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=2e-6, atol=1e-7, err_msg=name)
