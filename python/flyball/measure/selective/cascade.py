"""Two stages: a cheap confidence decides the clear cases, a dear one only those in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.measure.estimate import Estimate, wilson
from flyball.measure.selective.curve import checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What a cascade decided, and at which stage.

    Attributes:
        answered: Whether each sample is answered.
        asked: Whether each sample needed the second stage.
        second: The second score of those that did; NaN of the others, which have none.
    """

    answered: NDArray[np.bool_]
    asked: NDArray[np.bool_]
    second: NDArray[np.float64]

    @property
    def coverage(self) -> Estimate:
        """The share of samples that are answered; Wilson's interval."""
        return wilson(int(self.answered.sum()), len(self.answered))

    @property
    def share_asked(self) -> Estimate:
        """The share of samples that needed the second stage: what the cascade costs."""
        return wilson(int(self.asked.sum()), len(self.asked))

    def accuracy(self, correct: ArrayLike) -> Estimate | None:
        """Return the share of answers that are right; None if nothing is answered.

        Raises:
            InputError: `correct` is not 0 or 1 for each sample.
        """
        _, wrong = checked(np.zeros(len(self.answered)), correct)
        taken = int(self.answered.sum())
        return wilson(int((wrong[self.answered] == 0).sum()), taken) if taken else None


@dataclass(frozen=True)
class Cascade:
    """A gate in two stages. It never sees a label.

    A first score at or above `accept` is answered and one below `reject` declined, for good; in between, the second
    score decides.

    Args:
        accept: From this first score on a sample is answered.
        reject: Below this one it is declined.
        second: The threshold of the second score.

    Raises:
        InputError: `reject` is above `accept`, or one is NaN.
    """

    accept: float
    reject: float
    second: float

    def __post_init__(self) -> None:
        if not self.reject <= self.accept or self.second != self.second:
            raise InputError(
                f"`accept` is {self.accept}, `reject` {self.reject} and `second` {self.second}: they must be numbers, "
                "and what is declined must lie below what is accepted"
            )

    def decide(self, first: ArrayLike, second: Callable[[NDArray[np.intp]], ArrayLike] | ArrayLike) -> Decisions:
        """Decide for every sample.

        Args:
            first: The cheap score, one number for each sample.
            second: A function that takes the positions of the undecided samples and returns their dear scores, so that
                no other is computed; or the scores of all samples.

        Raises:
            InputError: A score is missing or NaN where it is needed.
        """
        score, _ = checked(first, np.ones(np.shape(first)))
        if not callable(second) and np.shape(second) != score.shape:
            raise InputError(
                f"`second` has shape {np.shape(second)}, but there are {len(score)} first scores: pass one for each, "
                "or a function that computes those that are needed"
            )
        answered = score >= self.accept
        asked = ~answered & (score >= self.reject)
        places = np.flatnonzero(asked)
        scores = np.full(len(score), np.nan)
        if len(places):
            given = np.asarray(second(places) if callable(second) else np.asarray(second)[places], dtype=np.float64)
            if given.shape != places.shape or np.isnan(given).any():
                raise InputError(
                    f"`second` gave {given.shape} scores for {len(places)} undecided samples: one number for each, "
                    "none of them NaN"
                )
            scores[places] = given
            answered[places] = given >= self.second
        return Decisions(answered, asked, scores)
