"""The meter of a model that may give a row any number of labels: logits and flags in, every score with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyball._native import MultiLabel as Native
from flyball.errors import InputError
from flyball.measure.inputs import choice, flags, floats, number
from flyball.measure.labelled import MultiLabelResult, summarize
from flyball.measure.meter import NativeMeter, check_keys, from_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyball.measure.inputs import Array

_STATE_VERSION = 1
_STATE_PARTS = frozenset(("labels", "threshold", "counts"))


class MultiLabel(NativeMeter):
    """Measure a model that may give a row any number of labels, batch by batch: precision, recall, F1 and more.

    ```python
    meter = MultiLabel(labels=20)
    for inputs, targets in loader:
        meter.update(model(inputs).detach().cpu(), targets)
    print(meter.compute())
    ```

    A label is predicted where its logit is above the threshold. The state is counts and exact sums, so how the samples
    are cut into batches or shards, and in which order they come, does not change a bit of it. How well the scores rank,
    whatever the threshold, says `Ranking(classes=labels)` with the same flags.

    Args:
        labels: The number of labels, at least 1.
        threshold: A finite logit; 0 is the probability one half, and ln(p / (1 - p)) the probability p.
        nonfinite: What to do with a row that holds NaN or an infinity: "raise" refuses its batch, "count" leaves the
            row out and counts it in `left_out`.

    Raises:
        InputError: One of these cannot be measured.
    """

    __slots__ = ()

    _ALIKE = {"labels": "labels", "threshold": "threshold"}  # noqa: RUF012 -- never changed
    _native: Native

    def __init__(self, labels: int, threshold: float = 0.0, *, nonfinite: Literal["raise", "count"] = "raise") -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.floating | np.integer):
            raise InputError(f"`threshold` is {threshold!r}: pass one logit, above which a label is predicted")
        self._nonfinite = choice(nonfinite, "nonfinite", ("raise", "count"))
        self._native = Native(number(labels, "labels"), float(threshold))

    @property
    def labels(self) -> int:
        """The number of labels."""
        return self._native.labels

    @property
    def threshold(self) -> float:
        """The logit above which a label is predicted."""
        return self._native.threshold

    @property
    def samples(self) -> int:
        """The number of rows measured so far."""
        return self._native.samples

    def update(self, logits: Array, targets: Array) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Args:
            logits: A row for each sample and a column for each label; float32, float64, float16 or bfloat16, of any
                strides.
            targets: 1 for each label that the row has, and 0 for each that it has not, in the same shape; integers,
                bools, or floats as a loss for them wants.

        Raises:
            InputError: An array has the wrong type, shape, place or values.
        """
        rows, half = floats(logits, "logits", 2, _SHAPE)
        self._native.update(rows, flags(targets, "targets", _SHAPE), half, self._nonfinite == "count")

    def compute(self, confidence: float = 0.95) -> MultiLabelResult:
        """Return every number so far; the meter can go on.

        Args:
            confidence: How often an interval holds the true value.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        if self.samples == 0:
            left_out = f"; {self.left_out} rows were left out" if self.left_out else ""
            raise InputError(
                f"the meter has seen 0 samples, which have no labels{left_out}: call `update` first, and look whether "
                "the loader is empty"
            )
        return summarize(self._native, confidence)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers and a list of ints, which every file format holds exactly."""
        native = self._native
        return {
            "version": _STATE_VERSION,
            "labels": native.labels,
            "threshold": native.threshold,
            "counts": native.state(),
        }

    @staticmethod
    def _from_state(state: Mapping[str, Any]) -> Native:
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        return from_state(Native.from_state, state["labels"], state["threshold"], state["counts"])

    def __repr__(self) -> str:
        return f"MultiLabel(labels={self.labels}, threshold={self.threshold:g}, samples={self.samples})"


_SHAPE = "pass a row for each sample and a column for each label"
