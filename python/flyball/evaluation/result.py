"""What an evaluation found: numbers with their intervals, what was left out, and which samples were right."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import InputError
from flyball.evaluation.comparison import Comparison, compared
from flyball.events import Evaluated
from flyball.events.strict_json import encode, plain
from flyball.measure import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flyball.measure import ClassificationResult
    from flyball.measure.selective import RiskCoverage, SelectiveReport

_TOLD = ("macro_f1", "balanced_accuracy", "mcc", "nll", "brier", "ece")

CLAMP = 20.0
"""A loss above this has a perplexity of infinity: nobody reads e^20 as anything else."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How a model did on one set of data.

    Attributes:
        name: What the data are called.
        samples: How many samples came.
        batches: How many batches came, those that are left out included.
        count: Over how many samples, or tokens, the loss is a mean, each as often as its weight says.
        loss: The objective's; its interval takes the batches as drawn independently, and is infinite for one batch.
        terms: Each term of the objective, raw.
        confidence: The share of intervals that hold the truth.
        accuracy: The share of samples, or of tokens, that are right; None where nothing is right or wrong.
        perplexity: Of a language model: e to the loss of a token, infinite above the clamp, NaN for NaN.
        classification: All that the meter of a classifier found; None of other tasks.
        nonfinite_batches: Batches whose loss, or one of whose scores, is not finite.
        nonfinite_samples: Samples whose scores are not finite; they are in the loss, and wrong in `correct` and in
            `selective`.
        skipped: Batches that could not be measured, by the reason.
        selective: What declining to answer is worth, each number with its bootstrap interval, if that was asked for.
        risk_coverage: The curve that these numbers come from.
        train: The same of some batches of the training data, if that was asked for.
    """

    name: str
    samples: int
    batches: int
    count: float
    loss: Estimate
    terms: Mapping[str, float]
    confidence: float
    accuracy: Estimate | None = None
    perplexity: Estimate | None = None
    classification: ClassificationResult | None = None
    nonfinite_batches: int = 0
    nonfinite_samples: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    selective: SelectiveReport | None = None
    risk_coverage: RiskCoverage | None = None
    train: Evaluation | None = None
    _correct: tuple[bytes, int] | None = None
    _targets: bytes = b""

    @property
    def per_class_accuracy(self) -> tuple[Estimate | None, ...] | None:
        """The share of each class that was found; None for a class without a sample."""
        return None if self.classification is None else self.classification.recall

    @property
    def per_class_counts(self) -> tuple[int, ...] | None:
        """How many samples each class has."""
        return None if self.classification is None else tuple(self.classification.confusion.sum(axis=1).tolist())

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        """Which samples are right, in the order in which they came (of ranks, one after the other).

        Two models that were measured on the same samples can be compared by these.
        """
        if self._correct is None:
            return None
        bits, count = self._correct
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)

    def compare(self, other: Evaluation, *, margin: float | None = None) -> Comparison:
        """Compare with another model on the same samples, sample by sample.

        Args:
            other: What `evaluate` said of the other model, on the same data in the same order.
            margin: The largest difference of accuracies that would not matter to you; with it the comparison also says
                whether the two are alike.

        Raises:
            InputError: They are not of the same samples, or not of classifiers.
        """
        first, second = self.correct, other.correct
        if first is None or second is None:
            raise InputError(f"`{self.name}` or `{other.name}` is not of a classifier: only answers can be compared")
        if self._targets != other._targets:
            raise InputError(
                f"`{self.name}` and `{other.name}` are not of the same samples in the same order: evaluate both models "
                "on one loader that does not shuffle"
            )
        return compared(first, second, confidence=self.confidence, margin=margin)

    def numbers(self) -> dict[str, Estimate]:
        """Return the numbers that are there, by name."""
        found = {"loss": self.loss, "accuracy": self.accuracy, "perplexity": self.perplexity}
        if self.classification is not None:
            found |= {f"top{k}": rate for k, rate in self.classification.topk.items() if k > 1}
            found |= {name: getattr(self.classification, name) for name in _TOLD}
        return {name: number for name, number in found.items() if number is not None}

    def event(self) -> Evaluated:
        """Return the event that a journal keeps."""
        return Evaluated(split=self.name, measurements=self.numbers())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data; what is not finite stays so, and `to_json` writes it all the same."""
        return {
            "name": self.name,
            "samples": self.samples,
            "batches": self.batches,
            "count": self.count,
            "confidence": self.confidence,
            **{name: {**number.to_dict(), "value": number.value} for name, number in self.numbers().items()},
            "terms": dict(self.terms),
            "classification": None if self.classification is None else self.classification.to_dict(),
            "selective": None if self.selective is None else self.selective.to_dict(),
            "nonfinite_batches": self.nonfinite_batches,
            "nonfinite_samples": self.nonfinite_samples,
            "skipped": dict(self.skipped),
            "train": None if self.train is None else self.train.to_dict(),
        }

    def to_json(self) -> str:
        """Return one line of strict JSON, in which NaN is ``{"$float": "nan"}``."""
        return encode(plain(self.to_dict()))

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.samples} samples in {self.batches} batches"]
        rows = [("loss", self.loss), ("perplexity", self.perplexity)]
        if self.classification is None:
            rows.append(("accuracy", self.accuracy))
        shown = [(name, str(number)) for name, number in rows if number is not None]
        if len(self.terms) > 1:
            shown += [(name, f"{value:.4f}") for name, value in self.terms.items()]
        width = max(len(name) for name, _ in shown)
        lines += [f"  {name:{width}}  {value}" for name, value in shown]
        if self.nonfinite_batches:
            lines.append(
                f"  {self.nonfinite_batches} batches and {self.nonfinite_samples} samples are not finite: "
                "they are in the loss, and count as wrong where models are compared"
            )
        lines += [f"  {number} batches left out: {reason}" for reason, number in self.skipped.items()]
        if self.classification is not None:
            lines += ["", str(self.classification)]
        if self.selective is not None:
            lines += ["", str(self.selective)]
        if self.train is not None:
            lines += ["", str(self.train)]
        return "\n".join(lines)


def perplexity(loss: Estimate) -> Estimate:
    """Return e to a loss; infinite above the clamp, NaN for NaN."""
    return Estimate(**{end: _exponential(getattr(loss, end)) for end in ("value", "low", "high")})


def _exponential(value: float) -> float:
    return math.inf if value > CLAMP else math.exp(value)
