"""The meter of a classifier: logits and targets in, every score with its interval out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from flyball._native import Classification as Native
from flyball.errors import InputError
from flyball.measure.inputs import choice, floats, indices, number, on_gpu
from flyball.measure.meter import NativeMeter, check_keys, from_state
from flyball.measure.result import ClassificationResult, summarize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from flyball.measure.inputs import Array

_DEFAULT_TOPK = (1, 5)
_STATE_VERSION = 2
_STATE_PARTS = frozenset(
    (
        "bins", "classes", "confusion", "hits", "left_out", "nll", "nll_squared", "reliability", "samples", "scores",
        "topk",
    )
)  # fmt: skip


class Classification(NativeMeter):
    """Measure a classifier batch by batch: accuracy, F1, MCC, likelihood and more, with intervals.

    ```python
    meter = Classification(classes=10)
    for inputs, targets in loader:
        meter.update(model(inputs).detach().cpu(), targets)
    print(meter.compute())
    ```

    The state is counts and exact sums, so how the samples are cut into batches or shards, and in
    which order they come, does not change a bit of it. Of equal logits, the one of the smaller
    class comes first, as in `numpy.argmax`. A meter may be used from several threads.

    Args:
        classes: The number of classes, at least 2.
        topk: The k of top-k accuracy, each between 1 and `classes`. Of the default (1, 5), the 5
            is left out where there are fewer classes.
        bins: How many bins of equal width, and groups of equal mass, the calibration has.
        nonfinite: What to do with a row that holds NaN or an infinity: "raise" refuses its batch, "count" leaves the
            row out and counts it in `left_out`.

    Raises:
        InputError: One of these cannot be measured.
    """

    __slots__ = ()

    _ALIKE = {"classes": "classes", "topk": "topk", "bins": "bins"}  # noqa: RUF012 -- never changed
    _native: Native

    def __init__(
        self,
        classes: int,
        topk: Iterable[int] = _DEFAULT_TOPK,
        bins: int = 15,
        *,
        nonfinite: Literal["raise", "count"] = "raise",
    ) -> None:
        if not np.iterable(topk):
            raise InputError(f"`topk` is {topk!r}: pass a sequence of whole numbers, as in (1, 5)")
        count = number(classes, "classes")
        wanted = tuple(number(k, "topk") for k in topk)
        if wanted == _DEFAULT_TOPK:
            wanted = tuple(k for k in wanted if k <= max(count, 1))
        self._nonfinite = choice(nonfinite, "nonfinite", ("raise", "count"))
        self._native = Native(count, wanted, number(bins, "bins"))

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self._native.classes

    @property
    def topk(self) -> tuple[int, ...]:
        """The k of top-k accuracy, rising."""
        return tuple(self._native.topk)

    @property
    def bins(self) -> int:
        """The number of bins of equal width."""
        return self._native.bins

    @property
    def samples(self) -> int:
        """The number of rows measured so far."""
        return self._native.samples

    def update(self, logits: Array, targets: Array) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Nothing is copied, whatever the strides, unless `targets` are not int64. No other thread may write to the
        arrays in the meantime. Of tensors on a GPU, what each row says is computed there, and only that is copied.

        Args:
            logits: Unnormalized scores, a row for each sample and a column for each class; float32, float64,
                float16 or bfloat16, a NumPy array or a detached tensor.
            targets: The true class of each row; integers, a NumPy array or a tensor.

        Raises:
            InputError: An array has the wrong type, shape, place or values.
        """
        leave_out = self._nonfinite == "count"
        if on_gpu(logits):
            from flyball.measure.tensors import outcomes

            self._native.update_outcomes(
                *outcomes(cast("torch.Tensor", logits), targets, self.classes, leave_out=leave_out)
            )
            return
        rows, half = floats(logits, "logits", 2, _LOGITS_SHAPE)
        self._native.update(rows, indices(targets, "targets", _TARGETS_SHAPE), half, leave_out)

    def compute(self, confidence: float = 0.95) -> ClassificationResult:
        """Return every score so far; the meter can go on.

        Args:
            confidence: How often an interval holds the true value.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        totals = self._native.totals()
        if totals["samples"] == 0:
            left_out = f"; {totals['left_out']} rows were left out" if totals["left_out"] else ""
            raise InputError(
                f"the meter has seen 0 samples, which have no accuracy{left_out}: call `update` first, "
                "and look whether the loader is empty"
            )
        return summarize(totals, self.topk, confidence)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ints and lists of ints, which every file format holds exactly."""
        return {"version": _STATE_VERSION, **self._native.state()}

    @staticmethod
    def _from_state(state: Mapping[str, Any]) -> Native:
        check_keys(state, _STATE_PARTS, _STATE_VERSION)
        return from_state(Native.from_state, dict(state))

    def __repr__(self) -> str:
        native = self._native
        return f"Classification(classes={native.classes}, topk={self.topk}, samples={self.samples})"


_LOGITS_SHAPE = (
    "pass a row for each sample and a column for each class; of other shapes, move the classes last and "
    "flatten the rest"
)
_TARGETS_SHAPE = "pass one class index for each row of `logits`; `.argmax(1)` of one-hot targets is that"
