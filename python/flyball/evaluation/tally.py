"""What is added up over the batches of an evaluation; it stays on the device, and is read once."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from flyball.errors import InputError
from flyball.measure import Classification, Estimate
from flyball.measure.estimate import normal_quantile
from flyball.measure.selective import RiskCoverage, risk_coverage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flyball.evaluation.declining import Score

_TOGETHER = 1024


class Rows:
    """Rows of numbers, one for each batch, kept where they were computed until all are read at once.

    Numbers in float64 where the device has it: a sum over many batches is then exact to far beyond what is shown.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._rows: list[torch.Tensor] = []
        self._blocks: list[torch.Tensor] = []

    def add(self, numbers: Iterable[torch.Tensor | float]) -> None:
        """Add a row."""
        there = [
            number.detach().to(self._device, self._dtype)
            if isinstance(number, torch.Tensor)
            else torch.full((), number, dtype=self._dtype, device=self._device)
            for number in numbers
        ]
        self._rows.append(torch.stack(there))
        if len(self._rows) == _TOGETHER:
            self._blocks.append(torch.stack(self._rows))
            self._rows = []

    def read(self) -> list[list[float]]:
        """Read all rows, with one wait for the device."""
        blocks = [*self._blocks, torch.stack(self._rows)] if self._rows else self._blocks
        numbers: list[list[float]] = torch.cat(blocks).tolist() if blocks else []
        return numbers


class Classes:
    """What a classifier is measured by, from its scores on the host.

    Args:
        topk: The k of top-k accuracy.
        score: What makes a confidence of each row, if the model may decline to answer.
    """

    def __init__(self, topk: tuple[int, ...], score: Score | None = None) -> None:
        self.nonfinite_batches = 0
        self.nonfinite_samples = 0
        self.meter: Classification | None = None
        self._topk = topk
        self._score = score
        self._right: list[np.ndarray[tuple[int, ...], np.dtype[np.bool_]]] = []
        self._confidence: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
        self._targets = hashlib.blake2b(digest_size=16)

    def take(self, scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None) -> None:
        """Add the rows of a batch, those that count."""
        found, wanted = scores.numpy(), targets.numpy()
        finite = np.isfinite(found).all(axis=1)
        kept = finite if counts is None else finite & counts.numpy()
        broken = int(len(finite) - finite.sum() if counts is None else (~finite & counts.numpy()).sum())
        self.nonfinite_samples += broken
        self.nonfinite_batches += broken > 0
        if self.meter is None:
            if found.shape[1] < 2:
                raise InputError(
                    f"the model scores {found.shape[1]} class, and there is nothing to choose from: "
                    "a yes or no is `Task('binary')`"
                )
            # Of the usual (1, 5), the 5 is left out where there are fewer classes.
            self.meter = Classification(found.shape[1], self._topk)
        counted = np.ones(len(kept), dtype=bool) if counts is None else counts.numpy()
        self._targets.update(np.ascontiguousarray(wanted[counted], dtype=np.int64).tobytes())
        if self._score is not None:
            sure = np.full(len(kept), -np.inf)  # no answer is the first to be declined
            sure[kept] = self._score(found[kept].astype(np.float64)) if kept.any() else ()
            self._confidence.append(sure[counted])
        if not kept.all():
            right = np.zeros(len(kept), dtype=bool)  # no answer is no right answer
            right[kept] = found[kept].argmax(axis=1) == wanted[kept]
            self._right.append(right[counted])
            found, wanted = found[kept], wanted[kept]
        else:
            self._right.append(found.argmax(axis=1) == wanted)
        self.meter.update(found, wanted)

    def correct(self) -> tuple[bytes, int]:
        """Return which of the samples that count are right, as bits, and how many there are."""
        right = np.concatenate(self._right)
        return np.packbits(right).tobytes(), len(right)

    def curve(self) -> RiskCoverage | None:
        """Return the risk-coverage curve, if a confidence was asked for."""
        if not self._confidence:
            return None
        return risk_coverage(np.concatenate(self._confidence), np.concatenate(self._right))

    def targets(self) -> bytes:
        """Return a digest of the targets that count, in their order: what says that two runs saw the same data."""
        return self._targets.digest()


def weighted_mean(values: Sequence[float], counts: Sequence[float], confidence: float) -> Estimate:
    """Estimate a mean over batches of different sizes, taking the batches as drawn independently.

    The variance is that of a ratio of two sums over m batches, m / (m - 1) sum n^2 (x - mean)^2 / (sum n)^2. One batch
    says nothing of it: its interval is infinite. A value that is not a number makes the mean none.
    """
    total = math.fsum(counts)
    if not all(map(math.isfinite, values)):
        worst = math.nan if any(map(math.isnan, values)) else sum(value for value in values if math.isinf(value))
        return Estimate(value=worst, low=worst, high=worst)
    mean = math.fsum(n * x for n, x in zip(counts, values, strict=True)) / total
    batches = len(values)
    if batches == 1:
        return Estimate(value=mean, low=-math.inf, high=math.inf)
    square = math.fsum((n * (x - mean)) ** 2 for n, x in zip(counts, values, strict=True))
    half = normal_quantile(confidence) * math.sqrt(batches / (batches - 1) * square) / total
    return Estimate(value=mean, low=mean - half, high=mean + half)
