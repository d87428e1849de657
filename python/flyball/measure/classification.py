"""The meter of a classifier: logits and targets in, every score with its interval out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball import _native
from flyball.errors import InputError
from flyball.measure.result import ClassificationResult, summarize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from numpy.typing import NDArray

    Array = NDArray[Any] | torch.Tensor

_DEFAULT_TOPK = (1, 5)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_INT64 = np.dtype(np.int64)
_STATE_VERSION = 1
_STATE_PARTS = ("classes", "topk", "samples", "confusion", "hits", "nll", "nll_squared")


class Classification:
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

    Raises:
        InputError: `classes` or `topk` cannot be measured.
    """

    __slots__ = ("__weakref__", "_native")

    def __init__(self, classes: int, topk: Iterable[int] = _DEFAULT_TOPK) -> None:
        if not np.iterable(topk):
            raise InputError(f"`topk` is {topk!r}: pass a sequence of whole numbers, as in (1, 5)")
        count = _whole(classes, "classes")
        wanted = tuple(_whole(k, "topk") for k in topk)
        if wanted == _DEFAULT_TOPK:
            wanted = tuple(k for k in wanted if k <= max(count, 1))
        self._native = _native.Classification(count, wanted)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self._native.classes

    @property
    def topk(self) -> tuple[int, ...]:
        """The k of top-k accuracy, rising."""
        return tuple(self._native.topk)

    @property
    def samples(self) -> int:
        """The number of rows measured so far."""
        return self._native.samples

    def update(self, logits: Array, targets: Array) -> None:
        """Add a batch; all of it counts or, if it is refused, nothing.

        Nothing is copied if `logits` are C-contiguous and `targets` are int64; else it is, once.
        No other thread may write to the arrays in the meantime.

        Args:
            logits: Unnormalized scores, a row for each sample and a column for each class;
                float32 or float64, a NumPy array or a detached tensor on the CPU.
            targets: The true class of each row; integers, a NumPy array or a tensor on the CPU.

        Raises:
            InputError: An array has the wrong type, shape, place or values.
        """
        self._native.update(_logits(logits), _targets(targets))

    def merge(self, other: Classification) -> None:
        """Add everything that another meter, made with the same arguments, has seen.

        Raises:
            InputError: `other` measures something else.
        """
        if not isinstance(other, Classification):
            raise InputError(f"`other` is a {type(other).__name__}: only a `Classification` can be merged")
        self._native.merge(other._native)

    def compute(self, confidence: float = 0.95) -> ClassificationResult:
        """Return every score so far; the meter can go on.

        Args:
            confidence: How often an interval holds the true value.

        Raises:
            InputError: Nothing was measured yet, or `confidence` is not between 0 and 1.
        """
        samples, confusion, hits, nll, nll_squared = self._native.totals()
        if samples == 0:
            raise InputError(
                "the meter has seen 0 samples, which have no accuracy: call `update` first, "
                "and look whether the loader is empty"
            )
        topk = dict(zip(self.topk, hits, strict=True))
        return summarize(confusion, topk, (nll, nll_squared), confidence)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ints and lists of ints, which every file format holds exactly."""
        parts = dict(zip(_STATE_PARTS, self._native.state(), strict=True))
        return {"version": _STATE_VERSION, **parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` of a meter made alike returned.

        Raises:
            InputError: The state is damaged or of another kind of meter; this meter is unchanged.
        """
        loaded = _from_state(state)
        for name, here, there in (
            ("classes", self._native.classes, loaded.classes),
            ("topk", self._native.topk, loaded.topk),
        ):
            if here != there:
                raise InputError(
                    f"`{name}` of the state is {there}, but the meter has {here}: "
                    "load it into a meter that was made alike"
                )
        self._native = loaded

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._native = _from_state(state)

    def __repr__(self) -> str:
        native = self._native
        return f"Classification(classes={native.classes}, topk={self.topk}, samples={self.samples})"


def _from_state(state: Mapping[str, Any]) -> _native.Classification:
    expected = {"version", *_STATE_PARTS}
    if wrong := expected.symmetric_difference(state):
        key = min(map(str, wrong))
        problem = "lacks" if key in expected else "has the unknown key"
        raise InputError(f"`state` {problem} `{key}`: pass what `state_dict` returned")
    if state["version"] != _STATE_VERSION:
        raise InputError(
            f"`version` of the state is {state['version']!r}, this flyball reads {_STATE_VERSION}: "
            "load it with the flyball that wrote it"
        )
    try:
        return _native.Classification.from_state(*(state[part] for part in _STATE_PARTS))
    except (TypeError, OverflowError) as error:
        raise InputError(
            f"`state` holds something else than ints and lists of ints ({error}): pass what `state_dict` returned"
        ) from error


def _whole(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"`{name}` holds {value!r}: pass whole numbers")
    if not 0 <= value < 2**63:
        raise InputError(f"`{name}` holds {value}: pass a number between 1 and the classes")
    return int(value)


def _logits(value: Array) -> NDArray[Any]:
    array = _array(value, "logits")
    if array.ndim != 2:
        raise InputError(
            f"`logits` has shape {array.shape}: pass a row for each sample and a column for each "
            "class; of other shapes, move the classes last and flatten the rest"
        )
    if array.dtype not in _FLOATS:
        raise InputError(
            f"`logits` has type {array.dtype}: pass float32 or float64 in native byte order; "
            "`.float()` of a tensor or `.astype('float32')` of an array converts"
        )
    return _in_rows(array)


def _targets(value: Array) -> NDArray[np.int64]:
    array = _array(value, "targets")
    if array.ndim != 1:
        raise InputError(
            f"`targets` has shape {array.shape}: pass one class index for each row of `logits`; "
            "`.argmax(1)` of one-hot targets is that"
        )
    if array.dtype != _INT64:
        if array.dtype.kind not in "iu" or not np.can_cast(array.dtype, _INT64):
            raise InputError(
                f"`targets` has type {array.dtype}: pass class indices as integers up to 64 bits, "
                "signed; `.long()` of a tensor or `.astype('int64')` of an array converts"
            )
        array = array.astype(_INT64)
    return _in_rows(array)


def _in_rows(array: NDArray[Any]) -> NDArray[Any]:
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")


def _array(value: object, name: str) -> NDArray[Any]:
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise InputError(f"`{name}` is a masked array, whose mask would be ignored: leave out masked rows")
        return value.view(np.ndarray)
    # If torch is not imported, the value cannot be a tensor.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        raise InputError(f"`{name}` is a {type(value).__name__}: pass a NumPy array or a torch tensor on the CPU")
    try:
        array: NDArray[Any] = value.numpy()
    except (RuntimeError, TypeError) as error:
        raise InputError(f"`{name}` {_trouble(value)}") from error
    return array


def _trouble(tensor: torch.Tensor) -> str:
    """Say why NumPy cannot read the tensor, and what to do about it."""
    device = tensor.device.type
    if device == "meta":
        return "is a meta tensor, which has no values: pass the output of a real forward"
    if device != "cpu":
        return f"is on the device {tensor.device}: call `.cpu()`"
    if tensor.requires_grad:
        return "requires grad, which a meter has no use for: call `.detach()`"
    if str(tensor.layout) != "torch.strided":
        return f"has the layout {tensor.layout}, which NumPy does not have: call `.to_dense()`"
    if tensor.is_neg():
        return "is a view that torch negates when it is read: call `.resolve_neg()`"
    return f"has type {tensor.dtype}, which NumPy does not have: call `.float()`"
