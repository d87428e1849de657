"""What all meters share: one call that makes the meters of all ranks one."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed import ProcessGroup


class Meter(ABC):
    """An accumulator with an exact merge."""

    __slots__ = ()

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add everything that another meter, made with the same arguments, has seen."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which JSON holds exactly."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` of a meter made alike returned."""

    def reduce(self, group: ProcessGroup | None = None) -> None:
        """Make this meter, on every rank, what one meter that saw the data of all ranks would be.

        Every rank of the group calls it, also one that saw no data. Call it once, at the end: a second call would
        count everything again.

        Args:
            group: The ranks that take part; all by default.

        Raises:
            InputError: The ranks' meters were not made alike; the meter is unchanged.
        """
        merged, *others = [self._loaded(state) for state in _gathered(self.state_dict(), group)]
        for other in others:
            merged.merge(other)
        self.load_state_dict(merged.state_dict())

    def _loaded(self, state: Mapping[str, Any]) -> Self:
        meter = copy.deepcopy(self)
        meter.load_state_dict(state)
        return meter


def check_keys(state: Mapping[str, Any], parts: frozenset[str], version: int) -> None:
    """Check that a state has all parts and nothing else, and the version that is read.

    Raises:
        InputError: It has not.
    """
    expected = {"version", *parts}
    if wrong := expected.symmetric_difference(state):
        key = min(map(str, wrong))
        problem = "lacks" if key in expected else "has the unknown key"
        raise InputError(f"`state` {problem} `{key}`: pass what `state_dict` returned")
    if state["version"] != version:
        raise InputError(
            f"`version` of the state is {state['version']!r}, this flyball reads {version}: "
            "load it with the flyball that wrote it"
        )


def check_alike(**pairs: tuple[object, object]) -> None:
    """Check that what a state was made with is what the meter was made with.

    Raises:
        InputError: It is not.
    """
    for name, (here, there) in pairs.items():
        if here != there:
            raise InputError(
                f"`{name}` of the state is {there}, but the meter has {here}: load it into a meter that was made alike"
            )


def _gathered(state: Mapping[str, Any], group: ProcessGroup | None) -> list[dict[str, Any]]:
    """Return the states of all ranks in their order: as JSON, since no rank should run what another one sent."""
    import torch
    from torch import distributed

    ranks = distributed.get_world_size(group)
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend(group) == "nccl" else None
    sent = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(ranks)]
    distributed.all_gather(sizes, torch.tensor([len(sent)], device=device), group=group)
    longest = int(torch.cat(sizes).max())
    received = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in range(ranks)]
    padded = torch.nn.functional.pad(sent, (0, longest - len(sent)))
    distributed.all_gather(received, padded, group=group)
    return [json.loads(bytes(text[: int(size)].cpu().numpy())) for text, size in zip(received, sizes, strict=True)]
