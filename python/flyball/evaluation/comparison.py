"""Two models on the same samples: which is right more often, and whether that is more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.measure.estimate import Estimate, normal_quantile, wilson
from flyball.measure.statistics import TestOutcome, equivalence, mcnemar

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a paired comparison of two classifiers found.

    Attributes:
        samples: How many samples both answered.
        first: The accuracy of the first one.
        second: That of the second.
        difference: The first less the second; the interval is of paired differences (Bonett and Price, 2012), so it is
            narrower than the two accuracies suggest where the models fail on the same samples.
        gained: How many samples only the first got right.
        lost: How many only the second.
        mcnemar: Whether they are right equally often.
        equivalence: Whether the difference lies within the margin that was given; None without one, or for one sample.
    """

    samples: int
    first: Estimate
    second: Estimate
    difference: Estimate
    gained: int
    lost: int
    mcnemar: TestOutcome
    equivalence: TestOutcome | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {
            "samples": self.samples,
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "difference": self.difference.to_dict(),
            "gained": self.gained,
            "lost": self.lost,
            "mcnemar": self.mcnemar.to_dict(),
            "equivalence": None if self.equivalence is None else self.equivalence.to_dict(),
        }

    def __str__(self) -> str:
        lines = [
            f"accuracy {self.first} against {self.second}: difference {self.difference}",
            f"only the first is right on {self.gained} of {self.samples}, only the second on {self.lost}",
            str(self.mcnemar),
        ]
        if self.equivalence is not None:
            lines.append(str(self.equivalence))
        return "\n".join(lines)


def compared(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, confidence: float, margin: float | None
) -> Comparison:
    """Compare which samples two models got right."""
    samples = len(first)
    alike = None if margin is None or samples < 2 else _alike(first, second, margin, confidence)
    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    return Comparison(
        samples=samples,
        first=wilson(int(first.sum()), samples, confidence),
        second=wilson(int(second.sum()), samples, confidence),
        difference=_difference(gained, lost, samples, confidence),
        gained=gained,
        lost=lost,
        mcnemar=mcnemar(first, second),
        equivalence=alike,
    )


def _difference(gained: int, lost: int, samples: int, confidence: float) -> Estimate:
    """Return the difference of two paired rates.

    The adjusted interval of Bonett and Price: as if one sample more had been gained, and one more lost. So it has a
    width also where all samples say the same, and covers from a few on.
    """
    value = (gained - lost) / samples
    total = samples + 2
    more, less = (gained + 1) / total, (lost + 1) / total
    half = normal_quantile(confidence) * math.sqrt((more + less - (more - less) ** 2) / total)
    low, high = max(-1.0, more - less - half), min(1.0, more - less + half)
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def _alike(first: NDArray[np.bool_], second: NDArray[np.bool_], margin: float, confidence: float) -> TestOutcome:
    """Test whether two accuracies are alike; the same few answers twice are no proof of it.

    Where they differ by the margin, at least that share of samples is answered differently, so that none of n is has a
    probability of (1 - margin)^n: no smaller p-value can be had, however small the spread that was seen.
    """
    outcome = equivalence(first.astype(np.float64), second.astype(np.float64), margin=margin, confidence=confidence)
    least = max(0.0, 1.0 - margin) ** len(first)
    return replace(outcome, p_value=max(outcome.p_value, least), smallest_p=least)
