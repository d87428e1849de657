"""What is added up over the batches of an evaluation; it stays on the device, and is read once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flyball.errors import InputError
from flyball.measure import Classification, Estimate
from flyball.measure.estimate import normal_quantile
from flyball.measure.selective import RiskCoverage, risk_coverage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from flyball.evaluation.declining import Score

_TOGETHER = 1024
_DIGEST = 16


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
        self._right: list[NDArray[np.bool_]] = []
        self._confidence: list[NDArray[np.float64]] = []
        self._targets = hashlib.blake2b(digest_size=_DIGEST)

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

    def right(self) -> NDArray[np.bool_]:
        """Return which of the samples that count are right."""
        return np.concatenate(self._right) if self._right else np.zeros(0, dtype=bool)

    def confidence(self) -> NDArray[np.float64] | None:
        """Return how sure the model is of each of them, if that was asked for."""
        if self._score is None:
            return None
        return np.concatenate(self._confidence) if self._confidence else np.zeros(0)

    def targets(self) -> bytes:
        """Return a digest of the targets that count, in their order: what says that two runs saw the same data."""
        return self._targets.digest()


@dataclass
class Seen:
    """What a pass over some of the data has seen, read from the device; it travels between processes."""

    rows: list[list[float]]
    samples: int
    batches: int
    skipped: Counter[str]
    meter: Classification | None
    right: NDArray[np.bool_]
    confidence: NDArray[np.float64] | None
    targets: bytes
    nonfinite_batches: int
    nonfinite_samples: int
    trouble: str | None = None

    def curve(self) -> RiskCoverage | None:
        """Return the risk-coverage curve, if a confidence was asked for."""
        return None if self.confidence is None or not len(self.right) else risk_coverage(self.confidence, self.right)

    def with_other_ranks(self) -> Seen:
        """Return what all ranks have seen together, in the order of the ranks; every rank gets the same.

        Raises:
            InputError: A rank met something that cannot be measured.
        """
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, self)
        for rank, part in enumerate(parts):
            if part.trouble is not None:
                raise InputError(f"rank {rank}: {part.trouble}")
        first, *others = parts
        for part in others:
            if first.meter is None:
                first.meter = part.meter
            elif part.meter is not None:
                first.meter.merge(part.meter)
        return Seen(
            rows=[row for part in parts for row in part.rows],
            samples=sum(part.samples for part in parts),
            batches=sum(part.batches for part in parts),
            skipped=sum((part.skipped for part in parts), Counter()),
            meter=first.meter,
            right=np.concatenate([part.right for part in parts]),
            confidence=None if self.confidence is None else np.concatenate([part.confidence for part in parts]),
            targets=hashlib.blake2b(b"".join(part.targets for part in parts), digest_size=_DIGEST).digest(),
            nonfinite_batches=sum(part.nonfinite_batches for part in parts),
            nonfinite_samples=sum(part.nonfinite_samples for part in parts),
        )


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
