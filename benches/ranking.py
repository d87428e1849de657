"""AUROC of a million scores: counted in cells, beside exact ways that sort and torchmetrics' fast one that bins."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_auroc

from benches.harness import Contest
from flyball.measure import Ranking

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("torchmetrics", "scikit-learn", "torch", "numpy")
ROWS = 1_000_000


def contests() -> Iterator[Contest[float]]:
    """Yield one contest."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=ROWS)
    scores = (generator.normal(size=ROWS) + labels).astype(np.float32)

    def ours() -> float:
        meter = Ranking()
        meter.update(scores, labels)
        result = meter.compute()
        assert result.auroc is not None
        return result.auroc.value

    yield Contest(
        work="AUROC of 1M float32 scores",
        answers={
            "flyball": ours,
            "scikit-learn": partial(roc_auc_score, labels, scores),
            "torchmetrics, exact": partial(torchmetrics, torch.from_numpy(scores), torch.from_numpy(labels)),
            "torch.sort alone": partial(by_sorting, torch.from_numpy(scores), torch.from_numpy(labels)),
        },
        same=same,
    )


def torchmetrics(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float(binary_auroc(scores.double().sigmoid(), labels))


def by_sorting(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """The least that a way by sorting does; right where no scores are equal."""
    ranked = labels[scores.sort(stable=True).indices].double()
    positives = ranked.sum()
    below = (1.0 - ranked).cumsum(0)
    return float((below * ranked).sum() / positives / (ROWS - positives))


def same(ours: float, theirs: float) -> None:
    """Ours is bounded, not exact; equal scores, of which there are some, are half an error to the plain sort."""
    assert abs(ours - theirs) <= 1e-6
