"""What a test of significance found, in words that do not say more than it showed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyball.measure.estimate import Estimate


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """The outcome of one test.

    Attributes:
        test: Which test, with the variant that was used.
        samples: How many samples, or pairs, went in.
        statistic: The test's own number; infinite where differences without any spread are not zero.
        p_value: The probability of a statistic at least as extreme, if there were no difference; two-sided. Of
            `equivalence`, if the difference were as large as the margin.
        smallest_p: The smallest p-value that so many samples can give at all. A `p_value` above 0.05 where this is
            above 0.05 too says only that there were too few.
        difference: The estimated difference, with its interval; None where the test has none.
    """

    __test__ = False  # not one of pytest's, whatever its name

    test: str
    samples: int
    statistic: float
    p_value: float
    smallest_p: float
    difference: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {
            "test": self.test,
            "samples": self.samples,
            "statistic": self.statistic if math.isfinite(self.statistic) else None,
            "p_value": self.p_value,
            "smallest_p": self.smallest_p,
            "difference": None if self.difference is None else self.difference.to_dict(),
        }

    def __str__(self) -> str:
        text = f"{self.test} on {self.samples}: p = {self.p_value:.3g}"
        if self.difference is not None:
            text += f", difference {self.difference}"
        if self.test.startswith("equivalence"):
            shown = self.p_value <= 0.05
            return text if shown else f"{text}; not shown to be alike, which does not show that they differ"
        if self.smallest_p > 0.05:
            return f"{text}; so few cannot give a p below {self.smallest_p:.3g}: they show nothing either way"
        if self.p_value > 0.05:
            return f"{text}; not shown to differ, which does not show that they are alike (see `equivalence`)"
        return text
