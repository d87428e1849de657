"""Bad data or a damaged state? A batch whose loss is known is asked again.

For one step the two look alike. But the loss of a batch that was healthy a few updates ago is known; served again, on a
sound state it comes out about as it was, on a damaged one it has risen. `Diagnosis` is the arithmetic of that question:
which kept batch to ask, and what the answers say. It touches no tensor, and no loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

# Kept batches by age, newest 1. The first is old enough to have its own loss behind it, and young enough to compare.
AGES = (4, 8, 2, 6)
# For the state that a snapshot holds older ones too: what was damaged before the newest were kept shows in them alone.
CANDIDATE_AGES = (8, 16, 12, 32)
# Mean score after so many answers: above the first number damaged, below the second sound, else one more is asked.
_LIMITS = ((3.0, 0.1), (1.5, 0.2), (1.0, 0.3))
_LAST_LIMIT = 0.5
# A loss that has fallen by so much says that the kept batches were learnt by heart, not that the state is sound.
_IMPLAUSIBLE = -3.0
_LARGEST = 30.0
_FEWEST_UPDATES = 32


class Finding(Enum):
    """What the answers say."""

    ASK = "ask"  # one more batch
    SOUND = "sound"
    DAMAGED = "damaged"
    UNCLEAR = "unclear"


class Reference(NamedTuple):
    """What is kept with a healthy batch, to compare its loss with later. A named tuple, as one is made every step.

    Args:
        loss: Its loss when it was applied.
        offset: What was added before the logarithm was taken; None where the loss may be negative and is compared as
            it is.
        scale: The usual deviation from batch to batch at that time, in the same coordinate.
    """

    loss: float
    offset: float | None
    scale: float

    def score(self, loss: float) -> float:
        """Return by how many usual deviations the loss of this batch has risen, at most 30; NaN has risen most."""
        if not math.isfinite(loss):
            return _LARGEST
        if self.offset is None:
            risen = loss - self.loss
        elif loss + self.offset <= 0.0:
            return _LARGEST  # a loss that was never negative is now
        else:
            risen = math.log(loss + self.offset) - math.log(self.loss + self.offset)
        return min(risen / self.scale, _LARGEST)


@dataclass(slots=True)
class Diagnosis:
    """One question to the state, in at most four batches.

    Args:
        updates: How many updates were applied so far. Before the thirty-second the loss falls too fast to compare.
        order: The ages to ask, the first first.
    """

    updates: int
    order: tuple[int, ...] = AGES
    scores: list[float] = field(default_factory=list)

    def age(self, ages: tuple[int, ...]) -> int | None:
        """Return the age of the kept batch to ask next, None if none is left.

        Args:
            ages: The ages that can be served.
        """
        wanted = [age for age in self.order if age in ages]
        if not wanted and ages:
            wanted = [max(ages)]
        return wanted[len(self.scores)] if len(self.scores) < len(wanted) else None

    def answer(self, score: float, ages: tuple[int, ...]) -> Finding:
        """Take the score of one more batch.

        Args:
            score: What `Reference.score` gave.
            ages: The ages that can be served.
        """
        self.scores.append(score)
        count = len(self.scores)
        last = self.age(ages) is None
        mean = math.fsum(self.scores) / count
        if count <= len(_LIMITS) and not last:
            damaged, sound = _LIMITS[count - 1]
            if sound <= mean <= damaged:
                return Finding.ASK
        else:
            damaged = _LAST_LIMIT
        if mean > damaged:
            return Finding.DAMAGED
        if mean < _IMPLAUSIBLE or self.updates < _FEWEST_UPDATES or (last and count == 1):
            return Finding.UNCLEAR
        return Finding.SOUND
