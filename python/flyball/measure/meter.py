"""What all meters share: one call that makes the meters of all ranks one."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from flyball.errors import InputError
from flyball.measure.inputs import choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.distributed import ProcessGroup

T = TypeVar("T")


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


class NativeMeter(Meter):
    """A meter whose state lives in Rust, and which refuses a row that is not finite or leaves it out.

    A kind of it sets `_native` and `_nonfinite`, and says in `_ALIKE` what meters must have in common, by the names
    that a user and Rust have for it.
    """

    __slots__ = ("__weakref__", "_native", "_nonfinite")

    _ALIKE: ClassVar[dict[str, str]]
    _native: Any
    _nonfinite: str

    @property
    def left_out(self) -> int:
        """The number of rows left out so far, as they held NaN or an infinity."""
        count: int = self._native.left_out
        return count

    def merge(self, other: Self) -> None:
        """Add everything that another meter, made with the same arguments, has seen.

        Raises:
            InputError: `other` measures something else.
        """
        if not isinstance(other, type(self)):
            raise InputError(f"`other` is a {type(other).__name__}: only a `{type(self).__name__}` can be merged")
        self._native.merge(other._native)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state by one that `state_dict` of a meter made alike returned.

        Raises:
            InputError: The state is damaged or of another kind of meter; this meter is unchanged.
        """
        loaded = self._from_state(state)
        check_alike(
            **{name: (getattr(self._native, native), getattr(loaded, native)) for name, native in self._ALIKE.items()}
        )
        self._native = loaded

    @staticmethod
    @abstractmethod
    def _from_state(state: Mapping[str, Any]) -> Any:
        """Return what Rust makes of a state."""

    def __getstate__(self) -> dict[str, Any]:
        return {"nonfinite": self._nonfinite, "state": self.state_dict()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._nonfinite = choice(state["nonfinite"], "nonfinite", ("raise", "count"))
        self._native = self._from_state(state["state"])


def from_state(make: Callable[..., T], *parts: Any) -> T:
    """Return what Rust makes of the parts of a state.

    Raises:
        InputError: They are of the wrong types, or damaged.
    """
    try:
        return make(*parts)
    except (TypeError, OverflowError) as error:
        raise InputError(
            f"`state` holds something else than ints and lists of ints ({error}): pass what `state_dict` returned"
        ) from error


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
