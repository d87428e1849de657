"""Values that change as training goes on: pure functions of the step, so that nothing has to be remembered.

Each one is a closed form, with p the progress, which is 0 at the first step and 1 at the last:

    Constant(v)            v
    Linear(a, b)           a + (b - a) p
    Cosine(a, b)           a + (b - a) (1 - cos(pi p)) / 2
    Exponential(a, b)      a (b / a)^p
    Step({0: a, 0.5: b})   a, and from the middle on b
    Warmup(w, s)           s(0) (t + 1) / w for the first w steps, then s over the steps that remain
    Delay(w, s)            0 for the first w steps, then s over the steps that remain

A length is a whole number of steps, or a fraction of the training, which then has to be of a known length.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flyball.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def resolved(length: float, steps: int | None, schedule: object) -> int:
    """Return a length in steps, where a float is a fraction of all of them.

    Raises:
        InputError: It is a fraction, and how many steps there will be is not known.
    """
    if isinstance(length, int):
        return length
    if steps is None:
        raise _unknown_length(schedule)
    return int(length * steps + 1e-9)  # 0.29 of 100 steps is 29, although 0.29 * 100 is below it


def _unknown_length(schedule: object) -> InputError:
    return InputError(
        f"`{schedule!r}` needs to know how many steps there will be, and the loader does not say: "
        "pass `steps=`, or lengths in steps"
    )


def _finite(schedule: Schedule, *names: str) -> None:
    for name in names:
        value: Any = getattr(schedule, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"`{name}` of `{type(schedule).__name__}` is {value!r}: pass a finite number")


def _length(schedule: Schedule, name: str, value: object = None) -> None:
    value = getattr(schedule, name) if value is None else value
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not whole and not (isinstance(value, float) and 0.0 < value <= 1.0):
        raise ConfigError(
            f"`{name}` of `{type(schedule).__name__}` is {value!r}: pass a whole number of steps above 0, "
            "or a fraction of the training between 0.0 and 1.0"
        )


def _formula(schedule: Schedule) -> str:
    """Write a schedule as it is typed: what is there by default is left out."""
    shown = []
    for field in fields(schedule):  # type: ignore[arg-type] # every schedule is a dataclass
        value = getattr(schedule, field.name)
        if value != field.default:
            shown.append(f"over={value!r}" if field.name == "over" else repr(value))
    return f"{type(schedule).__name__}({', '.join(shown)})"


class Schedule(ABC):
    """A value for every step of a training; multiply a term with one, or give a term one as its `weight`."""

    @abstractmethod
    def at(self, step: int, steps: int | None = None) -> float:
        """Return the value at a step.

        Args:
            step: How many updates came before; the first step is 0.
            steps: How many there will be in all; None if that is not known.

        Raises:
            InputError: The value depends on how many steps there will be, and that is not known.
        """

    def __mul__(self, other: float | Schedule) -> Product:
        if isinstance(other, bool) or not isinstance(other, int | float | Schedule):
            return NotImplemented  # a term, which knows what to do
        return Product(self, as_schedule(other))

    def __rmul__(self, other: float) -> Product:
        if isinstance(other, bool) or not isinstance(other, int | float):
            return NotImplemented
        return Product(as_schedule(other), self)

    def __repr__(self) -> str:
        return _formula(self)


@dataclass(frozen=True, repr=False)
class Product(Schedule):
    """One value multiplied with another."""

    one: Schedule
    other: Schedule

    def at(self, step: int, steps: int | None = None) -> float:
        """Return the product of both values."""
        return self.one.at(step, steps) * self.other.at(step, steps)

    def __repr__(self) -> str:
        return " * ".join(repr(part.value if isinstance(part, Constant) else part) for part in (self.one, self.other))


@dataclass(frozen=True, repr=False)
class Constant(Schedule):
    """The same value at every step."""

    value: float

    def __post_init__(self) -> None:
        _finite(self, "value")

    def at(self, step: int, steps: int | None = None) -> float:  # noqa: ARG002
        """Return the value."""
        return self.value


@dataclass(frozen=True, repr=False)
class _Ramp(Schedule):
    """From one value to another.

    Args:
        start: The value at the first step.
        end: The value at the last step, reached exactly, and kept from then on.
        over: How long it takes: steps, a fraction of the training, or None for all of it.

    Raises:
        ConfigError: A value is not finite, or `over` is no length.
    """

    start: float
    end: float
    over: int | float | None = None

    def __post_init__(self) -> None:
        _finite(self, "start", "end")
        if self.over is not None:
            _length(self, "over")

    def at(self, step: int, steps: int | None = None) -> float:
        """Return the value at a step."""
        length = steps if self.over is None else resolved(self.over, steps, self)
        if length is None:
            raise _unknown_length(self)
        if step >= length - 1:
            return self.end
        return self._between(max(step, 0) / (length - 1)) if step > 0 else self.start

    @abstractmethod
    def _between(self, progress: float) -> float:
        """Return the value at a progress strictly between 0 and 1."""


class Linear(_Ramp):
    """A straight line from `start` at the first step to `end` at the last; see `Cosine` for `over`."""

    def _between(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


class Cosine(_Ramp):
    """Half a wave from `start` at the first step to `end` at the last: slow, fast, slow.

    Args:
        start: The value at the first step.
        end: The value at the last step, reached exactly, and kept from then on.
        over: How long it takes: steps, a fraction of the training, or None for all of it.

    Raises:
        ConfigError: A value is not finite, or `over` is no length.
    """

    def _between(self, progress: float) -> float:
        return self.start + (self.end - self.start) * (1.0 - math.cos(math.pi * progress)) / 2.0


class Exponential(_Ramp):
    """The same factor at every step, from `start` at the first to `end` at the last; see `Cosine` for `over`.

    Raises:
        ConfigError: A value is not above 0.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("start", "end"):
            if getattr(self, name) <= 0.0:
                raise ConfigError(f"`{name}` of `Exponential` is {getattr(self, name)}: a factor needs values above 0")

    def _between(self, progress: float) -> float:
        return float(self.start * (self.end / self.start) ** progress)


@dataclass(frozen=True, repr=False)
class Step(Schedule):
    """A value from each of some steps on.

    Args:
        values: The value from a step on, by that step: a whole number, or a fraction of the training. There is one
            for step 0.

    Raises:
        ConfigError: There is no value for step 0, or one is not finite.
    """

    values: Mapping[int | float, float]

    def __post_init__(self) -> None:
        if not self.values or min(self.values) != 0:
            raise ConfigError(f"`Step` has values for {sorted(self.values)}: it needs one for step 0, and none before")
        for at, value in self.values.items():
            if at != 0:
                _length(self, "values", at)
            if not math.isfinite(value):
                raise ConfigError(f"`Step` has the value {value} from {at} on: pass a number")
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def at(self, step: int, steps: int | None = None) -> float:
        """Return the value at a step."""
        begun = [(resolved(at, steps, self), value) for at, value in self.values.items()]
        return max((at, value) for at, value in begun if at <= max(step, 0))[1]

    def __repr__(self) -> str:
        return f"Step({dict(self.values)})"

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))

    def __reduce__(self) -> tuple[type[Step], tuple[dict[int | float, float]]]:
        return Step, (dict(self.values),)


@dataclass(frozen=True, repr=False)
class _After(Schedule):
    length: int | float
    then: Schedule = Constant(1.0)

    def __post_init__(self) -> None:
        if self.length != 0:
            _length(self, "length")

    def at(self, step: int, steps: int | None = None) -> float:
        """Return the value at a step."""
        length = resolved(self.length, steps, self)
        left = None if steps is None else steps - length
        return self._before(step, length, left) if step < length else self.then.at(step - length, left)

    @abstractmethod
    def _before(self, step: int, length: int, left: int | None) -> float:
        """Return the value at a step before `length`, after which so many are left."""


class Warmup(_After):
    """A rise to the first value of a schedule, which then runs over the steps that remain.

    Args:
        length: How long the rise takes: steps, or a fraction of the training.
        then: What follows; by default the value stays 1.

    Raises:
        ConfigError: `length` is no length.
    """

    def _before(self, step: int, length: int, left: int | None) -> float:
        # Where nothing remains, it rises to where the schedule would have begun, not to where it would have ended.
        return self.then.at(0, None if left is None else max(left, 2)) * (step + 1) / length


class Delay(_After):
    """Nothing at first, then a schedule over the steps that remain.

    Args:
        length: How long nothing comes: steps, or a fraction of the training.
        then: What follows; by default the value stays 1.

    Raises:
        ConfigError: `length` is no length.
    """

    def _before(self, step: int, length: int, left: int | None) -> float:  # noqa: ARG002
        return 0.0


@dataclass(frozen=True, repr=False)
class Function(Schedule):
    """A function of the step, as it is.

    Args:
        function: Takes the step, and returns the value; pure, so that a resumed run goes on as it was.
    """

    function: Callable[[int], float]

    def at(self, step: int, steps: int | None = None) -> float:  # noqa: ARG002
        """Return what the function says."""
        return float(self.function(step))

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


def as_schedule(value: float | Schedule | Callable[[int], float], name: str = "weight") -> Schedule:
    """Return a number as `Constant`, a function as `Function`, and a schedule as it is.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Constant(float(value))
    if callable(value):
        return Function(value)
    raise ConfigError(
        f"`{name}` is {value!r}: pass a number, a schedule such as `Cosine(0.0, 0.5)`, or a function of the step"
    )
