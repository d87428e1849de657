"""The random streams of a loader's worker processes, brought from a worker to the feed and back into another one.

A worker is seeded when it starts and draws on from there, so an augmentation in the middle of an epoch hangs on all
that the worker drew before. With each batch it therefore sends the state of its generators, where that has changed:
those of Python, NumPy and torch, and those that the dataset owns. A loader that is opened in the middle of an epoch, in
another process, starts its workers from what they had sent with the last batch that was handed out.

Batch number n of an epoch is always worker n's, modulo their number. So that it stays so from the middle on, the
workers before the one whose turn it is are first sent an empty batch, which is dropped.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info

from flyball.govern.feed.draws import GlobalState, Owned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.utils.data import DataLoader


class Sent(NamedTuple):
    """What a worker sends: the batch, and its streams if they have changed, as JSON: bytes, which pinning leaves."""

    batch: Any
    worker: int
    streams: bytes | None
    blank: bool


class Workers:
    """The streams of the workers of one loader, as of the batches that were handed out.

    Args:
        loader: Our own copy of the loader; its `collate_fn` and `worker_init_fn` are wrapped.
        blanks: Whether an empty batch can be sent.
    """

    def __init__(self, loader: DataLoader[Any], *, blanks: bool) -> None:
        self.persistent = bool(loader.persistent_workers)
        self._count = loader.num_workers
        self._blanks = blanks
        self._streams: dict[int, bytes] = {}
        self._start = _Start(loader.worker_init_fn)
        if self._count:
            # Past `DataLoader.__setattr__`, which guards loaders in use.
            vars(loader).update({"collate_fn": _Collate(loader.collate_fn), "worker_init_fn": self._start})

    def received(self, sent: Sent) -> Any:
        """Take note of a worker's streams, and return the batch."""
        if sent.streams is not None:
            self._streams[sent.worker] = sent.streams
        return sent.batch

    def begin(self) -> None:
        """Begin an epoch: workers that do not outlive one start anew."""
        if not self.persistent:
            self._streams = {}

    def state(self) -> dict[str, Any] | None:
        """Return the streams as plain data, None if there are none to speak of."""
        if not self._streams:
            return None
        return {"workers": {str(worker): json.loads(text) for worker, text in self._streams.items()}}

    def give(self, state: Mapping[str, Any] | None) -> None:
        """Let the workers that are started next begin with these streams; with None, as the loader seeds them."""
        self._start.streams = {} if state is None else {int(one): text for one, text in state["workers"].items()}
        if state is not None:
            self._streams = {worker: json.dumps(streams).encode() for worker, streams in self._start.streams.items()}

    def blanks(self, batch: int) -> int:
        """Return how many empty batches bring a worker's turn to where it is at a batch of the epoch."""
        return batch % self._count if self._count and self._blanks else 0


class _Collate:
    """Collate in the worker as the loader does, and send the streams along."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate
        self._last: tuple[Any, ...] | None = None
        self._owned: Owned | None = None

    def __call__(self, samples: Any) -> Any:
        info = get_worker_info()
        if info is None:
            return self._collate(samples)
        if isinstance(samples, list) and not samples:
            return Sent(None, info.id, None, blank=True)
        batch = self._collate(samples)
        if self._owned is None:
            self._owned = Owned({"dataset": info.dataset})
        own = self._owned.generators()
        now = (random.getstate(), *_numpy(), torch.get_rng_state().numpy().tobytes(), own)
        if now == self._last:
            return Sent(batch, info.id, None, blank=False)
        self._last = now
        everyone = GlobalState.now()
        streams = {"python": everyone.python, "numpy": everyone.numpy, "torch": everyone.torch, "own": own}
        return Sent(batch, info.id, json.dumps(streams).encode(), blank=False)


class _Start:
    """Start a worker as the loader does, then give it its streams."""

    def __init__(self, init: Callable[[int], None] | None) -> None:
        self._init = init
        self.streams: dict[int, dict[str, Any]] = {}

    def __call__(self, worker: int) -> None:
        if self._init is not None:
            self._init(worker)
        streams = self.streams.get(worker)
        info = get_worker_info()
        if streams is not None and info is not None:
            GlobalState(streams["python"], streams["numpy"], streams["torch"]).restore()
            Owned({"dataset": info.dataset}).restore_generators(streams["own"])


def _numpy() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 -- the global one is what datasets draw from
    return name, np.asarray(keys).tobytes(), *rest
