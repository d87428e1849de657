"""What a model gets wrong when it may decline to answer: risk against coverage.

Samples are answered in the order of falling confidence. Those of equal confidence are answered together or not at all,
as no threshold divides them; where a number needs an order among them, it is averaged over all orders. So nothing here
depends on how the samples happened to be sorted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball import _native
from flyball.errors import InputError
from flyball.measure.estimate import Estimate, wilson
from flyball.measure.inputs import number
from flyball.measure.statistics.bootstrap import calls, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_ALWAYS = ("risk", "aurc", "e_aurc", "augrc")


@dataclass(frozen=True, slots=True, eq=False)
class SelectiveReport:
    """The numbers of a risk-coverage curve, each with its bootstrap interval (percentile).

    Where no answer is wrong, or all are, no resample differs, and those intervals have no width: they say nothing then.

    Attributes:
        samples: How many there were.
        draws: How many resamples the intervals come from; the samples were drawn whole.
        confidence: The share of intervals that hold the truth.
        risk: The share of wrong answers if every sample is answered; Wilson's interval.
        aurc: The area under the curve: the mean over k of the risk among the k most confident.
        e_aurc: How much of it a perfect order of the same answers would not have.
        augrc: The mean over k of the errors among the k most confident, over all samples: the risk of an error that is
            answered (Traub et al., 2024).
        risk_at: For each coverage asked for, the risk of answering so many.
        coverage_at: For each risk asked for, the largest coverage whose risk is not above it; 0 if no threshold
            reaches it.
    """

    samples: int
    draws: int
    confidence: float
    risk: Estimate
    aurc: Estimate
    e_aurc: Estimate
    augrc: Estimate
    risk_at: dict[float, Estimate]
    coverage_at: dict[float, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {
            "samples": self.samples,
            "draws": self.draws,
            "confidence": self.confidence,
            **{name: getattr(self, name).to_dict() for name in _ALWAYS},
            "risk_at": {str(share): number.to_dict() for share, number in self.risk_at.items()},
            "coverage_at": {str(risk): number.to_dict() for risk, number in self.coverage_at.items()},
        }

    def __str__(self) -> str:
        rows = [(name.replace("_", "-"), getattr(self, name)) for name in _ALWAYS]
        rows += [(f"risk at coverage {share:g}", number) for share, number in self.risk_at.items()]
        rows += [(f"coverage at risk {risk:g}", number) for risk, number in self.coverage_at.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {number}" for name, number in rows)


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """A risk-coverage curve; one point for each threshold there can be.

    Attributes:
        thresholds: The distinct confidences, falling: answer where the confidence is at least this.
        answered: How many samples each threshold answers.
        errors: How many of them are wrong.
        aurc: The area under the curve; see `SelectiveReport` for this and the next two.
        e_aurc: The area above that of a perfect order.
        augrc: The area under the generalised curve.
    """

    thresholds: NDArray[np.float64]
    answered: NDArray[np.int64]
    errors: NDArray[np.int64]
    aurc: float
    e_aurc: float
    augrc: float
    _wrong: NDArray[np.uint8]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._wrong)

    @property
    def coverage(self) -> NDArray[np.float64]:
        """The share of samples that each threshold answers."""
        return self.answered / self.samples

    @property
    def risk(self) -> NDArray[np.float64]:
        """The share of wrong answers among those that each threshold answers."""
        return self.errors / self.answered

    def risk_interval(self, confidence: float = 0.95) -> tuple[Estimate, ...]:
        """Return `risk` with Wilson's interval at every threshold, as if that threshold had been fixed beforehand."""
        pairs = zip(self.errors.tolist(), self.answered.tolist(), strict=True)
        return tuple(wilson(errors, answered, confidence) for errors, answered in pairs)

    def risk_at(self, coverage: float) -> float:
        """Return the risk of answering this share of the samples, the most confident ones, rounded up to whole ones.

        Raises:
            InputError: The coverage is not above 0 and at most 1.
        """
        return float(self._numbers([coverage], [])[4])

    def coverage_at(self, risk: float) -> float:
        """Return the largest coverage whose risk is not above this one; 0 if no threshold reaches it."""
        return float(self._numbers([], [risk])[4])

    def report(
        self,
        *,
        coverages: Sequence[float] = (0.7, 0.8, 0.9),
        risks: Sequence[float] = (0.01, 0.05),
        draws: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        threads: int | None = None,
    ) -> SelectiveReport:
        """Return every number with its bootstrap interval (percentile), in Rust.

        Args:
            coverages: At which the risk is asked for.
            risks: At which the coverage is asked for.
            draws: How many resamples; 1000 of 10,000 samples take about a tenth of a second.
            confidence: The share of intervals that hold the truth.
            seed: Of the resamples; the same one gives the same intervals, on any number of threads.
            threads: How many at most; all there are if None.

        Raises:
            InputError: A coverage, a risk, `draws` or `confidence` is out of range.
        """
        draws, seed = number(draws, "draws"), number(seed, "seed")
        if draws < 2:
            raise InputError(f"`draws` is {draws}: an interval needs 2 at least, and a steady one a thousand")
        if not 0.0 < confidence < 1.0:
            raise InputError(f"`confidence` is {confidence}: it must be between 0 and 1, as 0.95 is for 95 %")
        asked = sorted(set(coverages))
        values = self._numbers(asked, risks)
        count = (os.cpu_count() or 1) if threads is None else number(threads, "threads")
        parts = [
            self._drawn(asked, risks, seed=seed, first=first, draws=some, threads=count) for first, some in calls(draws)
        ]
        table = np.concatenate(parts).reshape(draws, len(values))
        numbers = [interval(table[:, i], float(value), confidence) for i, value in enumerate(values)]
        _, aurc, e_aurc, augrc, *rest = numbers
        return SelectiveReport(
            samples=self.samples,
            draws=draws,
            confidence=confidence,
            risk=wilson(int(self.errors[-1]), self.samples, confidence),
            aurc=aurc,
            e_aurc=e_aurc,
            augrc=augrc,
            risk_at=dict(zip(asked, rest, strict=False)),
            coverage_at=dict(zip(risks, rest[len(asked) :], strict=True)),
        )

    def _numbers(self, coverages: Sequence[float], risks: Sequence[float]) -> NDArray[np.float64]:
        for coverage in coverages:
            if not 0.0 < coverage <= 1.0:
                raise InputError(f"`coverage` is {coverage}: it must be above 0 and at most 1")
        for risk in risks:
            if not 0.0 <= risk <= 1.0:
                raise InputError(f"`risk` is {risk}: it must be between 0 and 1")
        return self._drawn(coverages, risks)

    def _drawn(
        self,
        coverages: Sequence[float],
        risks: Sequence[float],
        *,
        seed: int = 0,
        first: int = 0,
        draws: int | None = None,
        threads: int = 1,
    ) -> NDArray[np.float64]:
        ends = self.answered.astype(np.uint32)
        return _native.resample_selective(self._wrong, ends, coverages, risks, seed, first, draws, threads)


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Return the risk-coverage curve of a model that may decline to answer, in one sort.

    Args:
        confidence: One number for each sample, larger where the model is surer; see `scores`. Infinities are in order.
        correct: Whether each answer is right, as booleans or 0 and 1.

    Raises:
        InputError: They differ in length, are empty, a confidence is NaN, or `correct` holds anything but 0 and 1.
    """
    score, wrong = checked(confidence, correct)
    order = np.argsort(-score, kind="stable")
    score, wrong = score[order], wrong[order]
    answered = np.concatenate([np.flatnonzero(score[1:] != score[:-1]) + 1, [len(score)]])
    errors = np.cumsum(wrong, dtype=np.int64)[answered - 1]
    ends = answered.astype(np.uint32)
    _, aurc, e_aurc, augrc = _native.resample_selective(wrong, ends, [], [], 0, 0, None, 1).tolist()
    return RiskCoverage(score[answered - 1], answered, errors, aurc, max(e_aurc, 0.0), augrc, wrong)


def checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the confidences, and whether each answer is wrong.

    Raises:
        InputError: See `risk_coverage`.
    """
    score = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if score.ndim != 1 or not len(score):
        raise InputError(f"`confidence` has shape {score.shape}: pass one number for each sample, and one at least")
    if right.shape != score.shape:
        raise InputError(
            f"`correct` has shape {right.shape}, but there are {len(score)} confidences: pass one for each"
        )
    if np.isnan(score).any():
        raise InputError(f"`confidence` is NaN for sample {int(np.isnan(score).argmax())}: it cannot be put in order")
    if not ((right == 0.0) | (right == 1.0)).all():
        raise InputError("`correct` holds values besides 0 and 1: pass whether each answer is right")
    if len(score) >= 1 << 32:
        raise InputError(f"`confidence` has {len(score)} samples: at most {(1 << 32) - 1} can be resampled")
    return score, (right == 0.0).astype(np.uint8)
