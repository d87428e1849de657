"""Where to draw the line between answering and declining: exact searches, and what they promise on new data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from flyball.errors import InputError
from flyball.measure.estimate import Estimate, wilson
from flyball.measure.inputs import number
from flyball.measure.selective.curve import checked, risk_coverage
from flyball.measure.statistics.intervals import upper_bound

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Objective: TypeAlias = Literal["accuracy", "coverage", "balance"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answer where the confidence is at least `value`; `takes` says where that is.

    Attributes:
        value: The threshold; infinite where nothing is answered, as nothing met the condition. A confidence can be
            infinite too, and is then not answered either.
        answered: How many of the samples it was chosen on are answered.
        right: How many of these answers are right.
        samples: How many samples it was chosen on.
    """

    value: float
    answered: int
    right: int
    samples: int

    @property
    def coverage(self) -> float:
        """The share of samples that are answered."""
        return self.answered / self.samples

    @property
    def accuracy(self) -> float | None:
        """The share of answers that are right; None if nothing is answered."""
        return self.right / self.answered if self.answered else None

    def takes(self, confidence: ArrayLike) -> NDArray[np.bool_]:
        """Return whether each of these confidences is answered."""
        reached: NDArray[np.bool_] = np.asarray(confidence, dtype=np.float64) >= self.value
        return reached if self.answered else np.zeros_like(reached)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a threshold keeps of its promise on samples it was not chosen on.

    Attributes:
        threshold: As it was chosen; for several folds, the first one's.
        coverage: The share of other samples that are answered; Wilson's interval.
        accuracy: The share of these answers that are right; None if nothing is answered.
        samples: How many other samples.
    """

    threshold: Threshold
    coverage: Estimate
    accuracy: Estimate | None
    samples: int


def best_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    objective: Objective = "accuracy",
    *,
    coverage: float | None = None,
    accuracy: float | None = None,
) -> Threshold:
    """Return the best threshold there is: every distinct confidence is tried, in one sort.

    What it reaches here it was chosen for; `on_new_samples` says what it reaches elsewhere.

    Args:
        confidence: One number for each sample.
        correct: Whether each answer is right.
        objective: "accuracy", the highest at a coverage of at least `coverage`; "coverage", the highest at an accuracy
            of at least `accuracy`; "balance", the highest geometric mean of the two.
        coverage: The condition of "accuracy".
        accuracy: The condition of "coverage".

    Raises:
        InputError: The condition is missing, not wanted, or out of range; or the samples are not as in `risk_coverage`.
    """
    _check_conditions(objective, coverage, accuracy)
    curve = risk_coverage(confidence, correct)
    right = curve.answered - curve.errors
    best = _best(
        curve.answered, right, samples=curve.samples, objective=objective, coverage=coverage, accuracy=accuracy
    )
    if best is None:
        return Threshold(math.inf, 0, 0, curve.samples)
    return Threshold(float(curve.thresholds[best]), int(curve.answered[best]), int(right[best]), curve.samples)


def best_pair(
    first: ArrayLike,
    second: ArrayLike,
    correct: ArrayLike,
    objective: Objective = "accuracy",
    *,
    coverage: float | None = None,
    accuracy: float | None = None,
) -> tuple[float, float, Threshold]:
    """Return the best two thresholds for a gate that asks both scores: every pair of distinct scores is tried.

    It takes time in the square of the number of samples, memory in the number: seconds for 20,000.

    Returns:
        The threshold of the first score, that of the second, and what both together answer; its `value` is the first.

    Raises:
        InputError: As in `best_threshold`.
    """
    _check_conditions(objective, coverage, accuracy)
    one, wrong = checked(first, correct)
    other, _ = checked(second, correct)
    levels, rank = np.unique(-other, return_inverse=True)  # the highest second score has rank 0
    answered = np.zeros(len(levels), dtype=np.int64)
    right = np.zeros(len(levels), dtype=np.int64)
    order = np.argsort(-one, kind="stable")
    best: tuple[tuple[float, float], float, float, Threshold] | None = None
    for position, sample in enumerate(order):
        answered[rank[sample] :] += 1
        right[rank[sample] :] += 1 - int(wrong[sample])
        if position + 1 < len(order) and one[order[position + 1]] == one[sample]:
            continue
        here = _best(answered, right, samples=len(one), objective=objective, coverage=coverage, accuracy=accuracy)
        if here is None:
            continue
        found = Threshold(float(one[sample]), int(answered[here]), int(right[here]), len(one))
        worth = _worth(found, objective)
        if best is None or worth > best[0]:
            best = worth, found.value, float(-levels[here]), found
    if best is None:
        return math.inf, math.inf, Threshold(math.inf, 0, 0, len(one))
    return best[1:]


def on_new_samples(
    confidence: ArrayLike,
    correct: ArrayLike,
    objective: Objective = "accuracy",
    *,
    coverage: float | None = None,
    accuracy: float | None = None,
    folds: int = 2,
    seed: int = 0,
) -> Kept:
    """Return what the best threshold reaches on samples that it was not chosen on.

    The samples are divided at random into `folds` parts; for each part the threshold is chosen on the others. So every
    sample is answered by a threshold that never saw it.

    Raises:
        InputError: As in `best_threshold`, or `folds` is not between 2 and the number of samples.
    """
    score, wrong = checked(confidence, correct)
    n = len(score)
    folds, seed = number(folds, "folds"), number(seed, "seed")
    if not 2 <= folds <= n:
        raise InputError(f"`folds` is {folds}: it must be between 2 and the number of samples, {n}")
    fold = np.random.Generator(np.random.PCG64(seed)).permutation(n) % folds
    answered = right = 0
    chosen: list[Threshold] = []
    for part in range(folds):
        here = fold == part
        found = best_threshold(score[~here], 1 - wrong[~here], objective, coverage=coverage, accuracy=accuracy)
        chosen.append(found)
        taken = here & found.takes(score)
        answered += int(taken.sum())
        right += int((wrong[taken] == 0).sum())
    return Kept(chosen[0], wilson(answered, n), wilson(right, answered) if answered else None, n)


def guaranteed_threshold(
    confidence: ArrayLike, correct: ArrayLike, *, risk: float, delta: float = 0.05
) -> tuple[Threshold, float]:
    """Return a threshold whose risk on new samples is at most `risk`, but for a probability `delta`.

    The guarantee asks nothing of the model, only that new samples come from where these did (Geifman and El-Yaniv,
    2017): the binomial tail bound at about log2(n) thresholds of a bisection, each with its share of `delta`.

    Returns:
        The threshold, infinite if no threshold can be guaranteed, and the bound on its risk.

    Raises:
        InputError: `risk` or `delta` is not between 0 and 1, or the samples are not as in `risk_coverage`.
    """
    if not (0.0 < risk < 1.0 and 0.0 < delta < 1.0):
        raise InputError(f"`risk` is {risk} and `delta` {delta}: both must be between 0 and 1")
    curve = risk_coverage(confidence, correct)
    steps = max(1, math.ceil(math.log2(len(curve.thresholds) + 1)))
    low, high = 0, len(curve.thresholds)  # the answer, if there is one, is below `high`
    best, bound = -1, 1.0
    for _ in range(steps):
        middle = (low + high) // 2
        if middle >= len(curve.thresholds):
            break
        here = upper_bound(int(curve.errors[middle]), int(curve.answered[middle]), delta / steps)
        if here <= risk:
            best, bound, low = middle, here, middle + 1
        else:
            high = middle
        if low >= high:
            break
    if best < 0:
        return Threshold(math.inf, 0, 0, curve.samples), 0.0
    answered, errors = int(curve.answered[best]), int(curve.errors[best])
    return Threshold(float(curve.thresholds[best]), answered, answered - errors, curve.samples), bound


def _best(
    answered: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    samples: int,
    objective: Objective,
    coverage: float | None,
    accuracy: float | None,
) -> int | None:
    """Return the position of the best of several candidates, the one that answers most among equals; None if none."""
    allowed = answered > 0
    if objective == "accuracy" and coverage is not None:
        allowed &= answered / samples >= coverage  # as written: 0.7 is met by 7 of 10, but 0.7 * 10 is above 7
    elif objective == "coverage" and accuracy is not None:
        allowed &= right / np.maximum(answered, 1) >= accuracy
    places = np.flatnonzero(allowed)
    if not len(places):
        return None
    worth = right[places] / answered[places] if objective == "accuracy" else answered[places].astype(np.float64)
    if objective == "balance":
        worth = right[places].astype(np.float64)  # accuracy times coverage, times the number of samples
    top = places[worth == worth.max()]
    return int(top[np.argmax(answered[top])])


def _worth(found: Threshold, objective: Objective) -> tuple[float, float]:
    if objective == "accuracy":
        return found.right / found.answered, found.answered
    return (found.answered, found.right) if objective == "coverage" else (found.right, found.answered)


def _check_conditions(objective: str, coverage: float | None, accuracy: float | None) -> None:
    wanted = {"accuracy": ("coverage", coverage), "coverage": ("accuracy", accuracy), "balance": (None, 0.5)}
    if objective not in wanted:
        raise InputError(f"`objective` is {objective!r}: it is one of {', '.join(map(repr, wanted))}")
    name, value = wanted[objective]
    for other, given in (("coverage", coverage), ("accuracy", accuracy)):
        if other != name and given is not None:
            raise InputError(
                f"`{other}` is {given}, but the objective {objective!r} has no such condition: leave it out"
            )
    if value is None or not 0.0 <= value <= 1.0:
        raise InputError(f"`{name}` is {value}: the objective {objective!r} needs one between 0 and 1")
