"""The meter of probabilities: is a forecaster right as often as it says?"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball import _native
from flyball.errors import InputError
from flyball.measure import calibration
from flyball.measure.classwise import Classwise
from flyball.measure.estimate import Estimate, mean, wilson
from flyball.measure.inputs import number, plain, whole
from flyball.measure.meter import Meter, check_alike, check_keys
from flyball.measure.result import aligned, shown, within
from flyball.measure.result import plain as plain_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flyball.measure.calibration import ReliabilityBin
    from flyball.measure.inputs import Array

_STATE_VERSION = 2
_STATE_PARTS = frozenset(("classwise", "impossible", "meter"))
# float32 probabilities of thousands of classes add up to 1 within this; logits practically never do.
_SUM_TOLERANCE = 1e-3


class Calibration(Meter):
    """Measure probabilities batch by batch: NLL, Brier, ECE and MCE; of logits, use `Classification`.

    Args:
        classes: The number of classes, at least 2. For 2, the probability of class 1 alone will do.
        bins: How many bins of equal width, and groups of equal mass, there are.
        classwise: Whether the probability of every class is looked at, not that of the answer alone.

    Raises:
        InputError: One of these cannot be measured.
    """

    __slots__ = ("__weakref__", "_classwise", "_impossible", "_native")

    def __init__(self, classes: int = 2, bins: int = 15, *, classwise: bool = False) -> None:
        self._native = _native.Classification(number(classes, "classes"), (), number(bins, "bins"))
        self._classwise = Classwise(self._native.classes, self._native.bins) if classwise else None
        self._impossible = 0

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self._native.classes

    @property
    def samples(self) -> int:
        """The number of rows measured so far."""
        return self._native.samples

    def update(self, probabilities: Array, targets: Array) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Args:
            probabilities: A row for each sample and a column for each class, each row with the sum 1; or, for two
                classes, the probability of class 1 for each sample.
            targets: The true class of each row; integers or bools.

        Raises:
            InputError: An array has the wrong type, shape or values; logits are told by their sums.
        """
        shares = _shares(probabilities, self.classes)
        labels = plain(targets, "targets")
        wanted = whole(labels.astype(np.int64) if labels.dtype == np.bool_ else labels, "targets")
        if wanted.shape != shares.shape[:1]:
            raise InputError(f"`targets` has shape {wanted.shape}, but there are {len(shares)} rows of probabilities")
        outside = np.flatnonzero((wanted < 0) | (wanted >= self.classes))
        if len(outside):
            raise InputError(
                f"`targets` holds {wanted[outside[0]]} in row {outside[0]}: with {self.classes} classes a target must "
                f"be between 0 and {self.classes - 1}; leave out rows without a label"
            )
        rows = np.arange(len(shares))
        own = shares[rows, wanted]
        predicted = shares.argmax(axis=1)
        before = shares > own[:, None]
        before |= (shares == own[:, None]) & (np.arange(self.classes) < wanted[:, None])
        others = shares.copy()
        others[rows, predicted] = 0.0
        against = others.sum(axis=1) / shares[rows, predicted]
        others = shares.copy()
        others[rows, wanted] -= 1.0
        brier = np.minimum((others * others).sum(axis=1), 2.0)
        impossible = own == 0.0
        # What was called impossible has an infinite loss, which no sum holds: it is counted instead.
        nll = np.maximum(0.0, -np.log(np.where(impossible, 1.0, own)))
        if self._classwise is not None:
            self._classwise.add(shares, wanted)  # from here on only this may refuse, and it comes first
        columns = np.stack([wanted, predicted, before.sum(axis=1)], axis=1)
        self._native.update_outcomes(columns, np.stack([nll, against, brier], axis=1), 0)
        self._impossible += int(impossible.sum())

    def merge(self, other: Calibration) -> None:
        """Add everything that another meter, made with the same arguments, has seen.

        Raises:
            InputError: `other` measures something else.
        """
        if not isinstance(other, Calibration):
            raise InputError(f"`other` is a {type(other).__name__}: only a `Calibration` can be merged")
        alike = (self.classes, self._native.bins) == (other.classes, other._native.bins)  # else Rust says what is not
        if alike and (self._classwise is None) != (other._classwise is None):
            raise InputError("one of the two meters is `classwise`: merge meters that were made alike")
        if alike and self._classwise is not None and other._classwise is not None:
            self._classwise.merge(other._classwise)
        self._native.merge(other._native)
        self._impossible += other._impossible

    def compute(self, confidence: float = 0.95) -> CalibrationResult:
        """Return every number so far; the meter can go on.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        totals = self._native.totals()
        samples = totals["samples"]
        if samples == 0:
            raise InputError(
                "the meter has seen 0 samples, which have no calibration: call `update` first, and look whether the "
                "loader is empty"
            )
        nll = within(mean(*totals["nll"], samples, confidence), 0.0, math.inf)
        if self._impossible:
            nll = Estimate(value=math.inf, low=nll.low, high=math.inf)
        shares = totals["confusion"].sum(axis=1) / samples
        of_class = () if self._classwise is None else self._classwise.errors(confidence)
        return CalibrationResult(
            samples=samples,
            impossible=self._impossible,
            confidence=confidence,
            accuracy=wilson(int(totals["confusion"].trace()), samples, confidence),
            nll=nll,
            brier=within(mean(*totals["brier"], samples, confidence), 0.0, 2.0),
            top_label_brier=within(mean(*totals["top_label"], samples, confidence), 0.0, 1.0),
            ece=calibration.expected_error(totals["bins"], confidence),
            mce=calibration.maximum_error(totals["bins"], confidence),
            ece_equal_mass=calibration.expected_error(totals["groups"], confidence),
            mce_equal_mass=calibration.maximum_error(totals["groups"], confidence),
            classwise_ece=_mean(of_class) if of_class else None,
            ece_of_class=of_class,
            reliability=calibration.reliability(totals["bins"], confidence),
            reliability_equal_mass=calibration.reliability(totals["groups"], confidence),
            prior_brier=float(1.0 - shares @ shares),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ints and lists of ints, which every file format holds exactly."""
        return {
            "version": _STATE_VERSION,
            "impossible": self._impossible,
            "meter": self._native.state(),
            "classwise": None if self._classwise is None else self._classwise.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` of a meter made alike returned.

        Raises:
            InputError: The state is damaged or of another kind of meter; this meter is unchanged.
        """
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        try:
            loaded = _native.Classification.from_state(state["meter"])
        except (TypeError, KeyError, OverflowError) as error:
            raise InputError(f"`state` is damaged ({error}): pass what `state_dict` returned") from error
        check_alike(
            classes=(self.classes, loaded.classes),
            bins=(self._native.bins, loaded.bins),
            classwise=(self._classwise is not None, state["classwise"] is not None),
        )
        impossible, classwise = number(state["impossible"], "impossible"), _classwise(state, loaded)
        self._native, self._impossible, self._classwise = loaded, impossible, classwise

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._native = _native.Classification.from_state(state["meter"])
        self._impossible = state["impossible"]
        self._classwise = _classwise(state, self._native)

    def __repr__(self) -> str:
        return f"Calibration(classes={self.classes}, bins={self._native.bins}, samples={self.samples})"


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """Whether probabilities are right as often as they say; the fields are those of `ClassificationResult`.

    Attributes:
        impossible: How often what came had the probability 0; `nll` is then infinite.
        classwise_ece: The mean over classes of `ece_of_class` (Kull et al., 2019); the ends of its interval are the
            means of theirs. None unless the meter is `classwise`.
        ece_of_class: For each class the expected calibration error of its own probability, whatever the answer is.
    """

    samples: int
    impossible: int
    confidence: float
    accuracy: Estimate
    nll: Estimate
    brier: Estimate
    top_label_brier: Estimate
    ece: Estimate
    mce: Estimate
    ece_equal_mass: Estimate
    mce_equal_mass: Estimate
    classwise_ece: Estimate | None
    ece_of_class: tuple[Estimate, ...]
    reliability: tuple[ReliabilityBin, ...]
    reliability_equal_mass: tuple[ReliabilityBin, ...]
    prior_brier: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data that `json.dumps` takes."""
        return {field.name: plain_data(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        impossible = f", {self.impossible} called impossible came" if self.impossible else ""
        rows = [
            ("NLL", shown(self.nll), ""),
            ("Brier", shown(self.brier), f"always the shares of the classes: {self.prior_brier:.4f}"),
            ("ECE", shown(self.ece), f"in groups of equal count: {self.ece_equal_mass.value:.4f}"),
            ("MCE", shown(self.mce), ""),
            *([("ECE of a class", shown(self.classwise_ece), "")] if self.classwise_ece else []),
        ]
        title = f"{self.samples} samples{impossible}, {self.confidence:.4g} confidence"
        return "\n".join([title, "", *aligned(rows, "<<<")])


def _classwise(state: Mapping[str, Any], native: _native.Classification) -> Classwise | None:
    written = state["classwise"]
    return None if written is None else Classwise.from_state(written, native.classes, native.bins)


def _mean(estimates: tuple[Estimate, ...]) -> Estimate:
    value, low, high = (
        math.fsum(getattr(one, end) for one in estimates) / len(estimates) for end in ("value", "low", "high")
    )
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def _shares(probabilities: Array, classes: int) -> NDArray[np.float64]:
    array = plain(probabilities, "probabilities")
    if array.dtype.kind != "f":
        raise InputError(f"`probabilities` has type {array.dtype}: pass floats; `.float()` of a tensor converts")
    shares = array.astype(np.float64)
    outside = np.argwhere(~((shares >= 0.0) & (shares <= 1.0 + _SUM_TOLERANCE)))
    if len(outside):
        place = tuple(outside[0].tolist())
        raise InputError(
            f"`probabilities` holds {shares[place]} at {place}: a probability is between 0 and 1; give logits to "
            "`Classification`"
        )
    if shares.ndim == 1 and classes == 2:
        shares = np.minimum(shares, 1.0)
        return np.stack([1.0 - shares, shares], axis=1)
    if shares.ndim != 2 or shares.shape[1] != classes:
        raise InputError(f"`probabilities` has shape {shares.shape}: pass a row for each sample and {classes} columns")
    total = shares.sum(axis=1)
    wrong = np.flatnonzero(np.abs(total - 1.0) > _SUM_TOLERANCE)
    if len(wrong):
        raise InputError(
            f"`probabilities` has the sum {total[wrong[0]]:.4g} in row {wrong[0]}: it must be 1; give logits to "
            "`Classification`"
        )
    normalized: NDArray[np.float64] = shares / total[:, None]
    return normalized
