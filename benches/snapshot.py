"""A snapshot of 120 MB of training state (10M parameters and Adam's moments), taken and put back, in the steady state.

Ours also looks for values that are not finite and computes checksums, which the rivals leave out: `memcpy` is the bound
that no copy can pass, and the last contest shows what check and checksum cost by themselves.
"""

from __future__ import annotations

import copy
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benches.harness import Contest
from flyball._native import snapshot_inspect
from flyball.govern.snapshot.ring import SnapshotRing
from flyball.govern.snapshot.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PACKAGES = ("torch", "numpy")


class Run:
    """A model after a step of Adam, and each contestant's kept copy of it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(*[nn.Linear(1000, 1000) for _ in range(10)])
        self.optimizer = torch.optim.Adam(self.model.parameters(), foreach=True)
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        self.tensors = [*(parameter.detach() for parameter in self.model.parameters()), *moments]
        self.ring = SnapshotRing(TrainingState(self.model, self.optimizer))
        self.kept = [tensor.clone() for tensor in self.tensors]
        self.flat = joined(self.tensors)
        self.room = self.flat.copy()
        self.deep: tuple[Any, Any] = ({}, {})
        for step in range(4):  # until every buffer was written once
            self.capture(step)

    def capture(self, step: int = 0) -> None:
        """Take and commit one of ours."""
        self.ring.promote(self.ring.capture(step).id)

    def restore(self) -> None:
        """Put the newest of ours back."""
        self.ring.restore(self.ring.committed[-1].id)

    def deepcopy(self) -> None:
        """What a loop without tools does."""
        self.deep = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))

    def load(self) -> None:
        """And how it goes back; the optimizer keeps the tensors it is given, so it must be given others."""
        self.model.load_state_dict(self.deep[0])
        self.optimizer.load_state_dict(copy.deepcopy(self.deep[1]))
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        self.tensors = [*(parameter.detach() for parameter in self.model.parameters()), *moments]


def joined(tensors: list[torch.Tensor]) -> NDArray[np.uint8]:
    """Return the bytes of all tensors in a row."""
    return np.concatenate([tensor.reshape(-1).view(torch.uint8).numpy() for tensor in tensors])


def contests() -> Iterator[Contest[Any]]:
    """Yield the capture, the restore, and what checking costs by itself; on one thread, as `memcpy` has only one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _contests(Run())
    finally:
        torch.set_num_threads(threads)


def _contests(run: Run) -> Iterator[Contest[Any]]:
    size = f"{len(run.flat) / 1e6:.0f} MB in {len(run.tensors)} tensors"

    def ours() -> NDArray[np.uint8]:
        run.capture()
        for tensor in run.tensors:
            tensor.zero_()
        run.restore()
        return joined(run.tensors)

    def kept() -> NDArray[np.uint8]:
        torch._foreach_copy_(run.kept, run.tensors)
        return joined(run.kept)

    def deep() -> NDArray[np.uint8]:
        run.deepcopy()
        states = run.deep[1]["state"].values()
        return joined([*run.deep[0].values(), *(value for state in states for value in state.values())])

    def memcpy() -> NDArray[np.uint8]:
        np.copyto(run.room, run.flat)
        return run.room

    yield Contest(
        work=f"capture {size}",
        answers={
            "flyball": ours,
            "memcpy (numpy)": memcpy,
            "kept buffers (torch foreach)": kept,
            "deepcopy of the state_dicts": deep,
        },
        same=same,
        timed={
            "flyball": run.capture,
            "memcpy (numpy)": lambda: np.copyto(run.room, run.flat),
            "kept buffers (torch foreach)": lambda: torch._foreach_copy_(run.kept, run.tensors),
            "deepcopy of the state_dicts": run.deepcopy,
        },
    )

    def back(how: str) -> NDArray[np.uint8]:
        with torch.no_grad():
            for tensor in run.tensors:
                tensor.zero_()
        {"kept": lambda: torch._foreach_copy_(run.tensors, run.kept), "ours": run.restore, "deep": run.load}[how]()
        return joined(run.tensors)

    yield Contest(
        work=f"restore {size}",
        answers={
            "flyball": lambda: back("ours"),
            "memcpy (numpy)": memcpy,
            "kept buffers (torch foreach)": lambda: back("kept"),
            "load_state_dict of a deepcopy": lambda: back("deep"),
        },
        same=same,
        timed={
            "flyball": run.restore,
            "memcpy (numpy)": lambda: np.copyto(run.room, run.flat),
            "kept buffers (torch foreach)": lambda: torch._foreach_copy_(run.tensors, run.kept),
            "load_state_dict of a deepcopy": run.load,
        },
    )

    def look() -> bool:
        ((_, bad),) = snapshot_inspect(run.flat, [0], [len(run.flat)], ["float32"], torch.get_num_threads())
        return bad is None

    def torch_look() -> bool:
        zlib.crc32(run.flat.data)
        return all(bool(torch.isfinite(tensor).all()) for tensor in run.tensors)

    yield Contest(
        work=f"check and checksum {len(run.flat) / 1e6:.0f} MB",
        answers={"flyball": look, "torch.isfinite and zlib.crc32": torch_look, "numpy sum (one read)": lambda: True},
        same=agree,
        timed={"numpy sum (one read)": lambda: run.flat.view(np.uint64).sum()},
    )


def same(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
    """Every byte must be equal."""
    np.testing.assert_array_equal(ours, theirs)


def agree(ours: bool, theirs: bool) -> None:  # noqa: FBT001
    """Both must have found the state finite."""
    assert ours
    assert theirs
