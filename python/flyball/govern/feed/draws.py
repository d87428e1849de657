"""The random state that an order of batches hangs on.

A sampler draws from the global generators, from generators of its own, and reads small counters such as the
`epoch` of a `DistributedSampler`. All three are captured as plain data, so that a pass over the sampler can be
made again, here or in another process. Capturing draws nothing.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from flyball.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What tells one epoch's order from another's beside random state: a counter, a seed, a batch size.
_SCALARS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class GlobalState:
    """The global generators of Python, NumPy and torch's CPU at one moment, as plain data that compares."""

    python: list[Any]
    numpy: dict[str, Any]
    torch: str

    @classmethod
    def now(cls) -> GlobalState:
        """Capture the global generators."""
        return cls(_of_python(random.getstate()), _of_numpy(np.random.get_state(legacy=False)), _of_torch_cpu())  # noqa: NPY002 -- the legacy state is the one that plain loops draw from

    def restore(self) -> None:
        """Put the global generators back."""
        random.setstate(_to_python(self.python))
        np.random.set_state(self.numpy)  # noqa: NPY002 -- as above
        torch.set_rng_state(_to_torch(self.torch))


@dataclass(frozen=True)
class Moment:
    """Everything an order may hang on at one moment.

    Args:
        everyone: The global generators.
        generators: The states of the generators that the sampler or loader owns, by path.
        scalars: The counters and settings that they hold, by path.
    """

    everyone: GlobalState
    generators: dict[str, Any]
    scalars: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """Return this as data that JSON can hold."""
        everyone = {"python": self.everyone.python, "numpy": self.everyone.numpy, "torch": self.everyone.torch}
        return {"global": everyone, "generators": self.generators, "scalars": self.scalars}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Moment:
        """Return the moment that `plain()` described."""
        return cls(GlobalState(**plain["global"]), dict(plain["generators"]), dict(plain["scalars"]))


class Owned:
    """The random state and the counters that belong to a sampler, a loader or a dataset.

    Found are generators of torch, NumPy and Python and plain scalars among the attributes of each root and of the
    samplers inside it. A sampler with `state_dict` and `load_state_dict` is taken at its word instead. The attributes
    of a `DataLoader` other than its `generator` are settings that torch forbids to change, and are left alone.

    Args:
        roots: The objects to look into, by name.
    """

    def __init__(self, roots: Mapping[str, object]) -> None:
        self._roots = dict(roots)
        self._born = self.scalars()

    def now(self) -> Moment:
        """Capture the global generators and all that is owned."""
        return Moment(GlobalState.now(), self.generators(), self.scalars())

    def restore(self, moment: Moment) -> None:
        """Put the global generators and all that is owned back."""
        moment.everyone.restore()
        self.restore_generators(moment.generators)
        self.restore_scalars(moment.scalars)

    def generators(self) -> dict[str, Any]:
        """Capture the generators, by path."""
        found = {path: _state_of(value) for path, _, _, value in self._attributes()}
        return {path: state for path, state in found.items() if state is not None}

    def restore_generators(self, states: Mapping[str, Any]) -> None:
        """Put the generators back that are among `states`."""
        for path, _, _, value in self._attributes():
            if path in states:
                _set_state(value, states[path])

    def scalars(self) -> dict[str, Any]:
        """Capture the counters and settings, by path."""
        found = {path: value for path, _, _, value in self._attributes() if isinstance(value, _SCALARS)}
        return found | {path: part.state_dict() for path, part in self._stateful()}

    def restore_scalars(self, scalars: Mapping[str, Any]) -> None:
        """Put the counters back that are among `scalars` and have changed."""
        for path, owner, name, value in self._attributes():
            if path in scalars and isinstance(value, _SCALARS) and value != scalars[path]:
                setattr(owner, name, scalars[path])
        for path, part in self._stateful():
            if path in scalars:
                part.load_state_dict(scalars[path])

    def settings(self) -> dict[str, Any]:
        """Return the scalars that are as they were when the feed was made: in another process they must be the same."""
        now = self.scalars()
        return {path: value for path, value in self._born.items() if path in now and now[path] == value}

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse a state that was taken under other settings, such as another batch size or another rank.

        Raises:
            InputError: A setting differs; the message names it.
        """
        now = self.scalars()
        for path, then in settings.items():
            if path in now and now[path] != then:
                raise InputError(
                    f"`{path}` is {now[path]!r} here and was {then!r} when the state was taken, so the rest of that "
                    "epoch cannot be found: build the loader as it was, or start at an epoch's first batch"
                )

    def _attributes(self) -> Iterator[tuple[str, object, str, object]]:
        for path, part in self._parts():
            if not _keeps_its_state(part):
                for name, value in list(vars(part).items()):
                    if not isinstance(part, DataLoader) or name == "generator":
                        yield f"{path}.{name}", part, name, value

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        return ((path, part) for path, part in self._parts() if _keeps_its_state(part))

    def _parts(self) -> Iterator[tuple[str, object]]:
        waiting, seen = list(self._roots.items()), set[int]()
        while waiting:
            path, part = waiting.pop(0)
            if id(part) in seen or not hasattr(part, "__dict__"):
                continue
            seen.add(id(part))
            yield path, part
            if not isinstance(part, DataLoader):
                waiting += [
                    (f"{path}.{name}", value)
                    for name, value in vars(part).items()
                    if isinstance(value, Sampler) or name in {"sampler", "batch_sampler"}
                ]


def _keeps_its_state(part: object) -> bool:
    return isinstance(part, Sampler) and hasattr(part, "state_dict") and hasattr(part, "load_state_dict")


def _state_of(value: object) -> Any:
    match value:
        case torch.Generator():
            return base64.b64encode(value.get_state().numpy().tobytes()).decode()
        case np.random.Generator():
            return _of_numpy(value.bit_generator.state)
        case np.random.RandomState():
            return _of_numpy(value.get_state(legacy=False))
        case random.Random():
            return _of_python(value.getstate())
        case _:
            return None


def _set_state(value: object, state: Any) -> None:
    match value:
        case torch.Generator():
            value.set_state(_to_torch(state))
        case np.random.Generator():
            value.bit_generator.state = state
        case np.random.RandomState():
            value.set_state(state)
        case random.Random():
            value.setstate(_to_python(state))
        case _:
            pass


def _of_torch_cpu() -> str:
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def _to_torch(state: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8)


def _of_python(state: tuple[Any, ...]) -> list[Any]:
    return [state[0], list(state[1]), state[2]]


def _to_python(state: list[Any]) -> tuple[Any, ...]:
    return state[0], tuple(state[1]), state[2]


def _of_numpy(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _of_numpy(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state
