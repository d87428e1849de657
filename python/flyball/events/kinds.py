"""The kinds of events: frozen records, each with a kind, a version and fields that are checked.

The check is the same on both ways, so whatever a journal writes its reader accepts. A field that
holds a mapping or a list is copied when the event is made: what the caller changes afterwards
does not reach a queue that another thread reads. Making an event never fails because of a value;
what has no JSON form is found by the writer, which says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import (
    ClassVar,
    NamedTuple,
    Self,
    TypeVar,
    dataclass_transform,
    get_type_hints,
)

from flyball.events.fields import FieldReader, holds_more, reader_of, same_names, taken_as_is
from flyball.events.strict_json import JSON, plain

EventType = TypeVar("EventType", bound="Event")


class _Field(NamedTuple):
    name: str
    as_is: frozenset[type]  # a value of exactly one of these types needs no second look
    read: FieldReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something worth knowing about a run; define one with `@event` (see `flyball.events`)."""

    kind: ClassVar[str]
    version: ClassVar[int]
    _fields: ClassVar[tuple[_Field, ...]] = ()
    _nested: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Take copies of what the caller could still change."""
        for name in self._nested:
            # A value that holds itself stays as it is: encoding it will fail, and say so.
            with contextlib.suppress(RecursionError):
                object.__setattr__(self, name, _copied(getattr(self, name)))

    def to_data(self) -> dict[str, JSON]:
        """Return the fields as plain JSON values, each checked against its type.

        Raises:
            TypeError: A value has no JSON form, or the class was not defined with `@event`.
            ValueError: A value is not of its field's type.
        """
        if _KINDS.get(getattr(self, "kind", "")) is not type(self):
            raise TypeError(f"`{type(self).__qualname__}` has no kind: define it with `@event(kind, version=1)`")
        data: dict[str, JSON] = {}
        for name, as_is, read in self._fields:
            value = getattr(self, name)
            if type(value) not in as_is:
                value = plain(value)
                read(value, name)
            data[name] = value
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, JSON]) -> Self:
        """Return the event that `to_data` was called on.

        Raises:
            ValueError: A field is missing, unknown, or not of its type.
        """
        known = {name for name, _, _ in cls._fields}
        same_names(known, data.keys(), f"`{cls.kind}`")
        return cls(**{name: read(data[name], name) for name, _, read in cls._fields})


def _copied(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


_KINDS: dict[str, type[Event]] = {}


def known_events() -> Mapping[str, type[Event]]:
    """Return the event types by kind, as far as their modules are imported."""
    return MappingProxyType(_KINDS)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def event(kind: str, *, version: int) -> Callable[[type[EventType]], type[EventType]]:
    """Make a subclass of `Event` a kind of event: a frozen, slotted, keyword-only dataclass.

    Raises:
        TypeError: The kind is taken, or a field has a name or a type that an event cannot hold.
    """

    def define(cls: type[EventType]) -> type[EventType]:
        if kind in _KINDS:
            taken = _KINDS[kind]
            raise TypeError(f"the kind `{kind}` is taken by `{taken.__module__}.{taken.__qualname__}`")
        if reserved := {"kind", "version"} & cls.__annotations__.keys():
            raise TypeError(f"the event `{kind}` cannot have a field `{min(reserved)}`: it names the event")
        cls.kind = kind
        cls.version = version
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        hints = {part.name: get_type_hints(made)[part.name] for part in fields(made)}
        made._fields = tuple(_Field(name, taken_as_is(hint), reader_of(hint)) for name, hint in hints.items())
        made._nested = tuple(name for name, hint in hints.items() if holds_more(hint))  # noqa: SLF001
        _KINDS[kind] = made
        return made

    return define


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured number and the interval that holds it."""

    value: float
    low: float
    high: float


@event("run.started", version=1)
class RunStarted(Event):
    """A run began, with everything that is needed to name and repeat it."""

    name: str
    seed: int | None
    device: str
    versions: Mapping[str, str]
    config: Mapping[str, object]


@event("train.step", version=1)
class StepSample(Event):
    """One optimizer step as it was measured; a norm that was not taken is None."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float | None = None


@event("train.epoch", version=1)
class EpochFinished(Event):
    """An epoch ended; its loss is None when it trained nothing."""

    epoch: int
    step: int
    train_loss: float | None
    seconds: float
    validation: Mapping[str, float]


@event("evaluation.done", version=1)
class Evaluated(Event):
    """A model was measured on one split of the data."""

    split: str
    measurements: Mapping[str, float | Estimate]


@event("run.finished", version=1)
class RunFinished(Event):
    """A run came to its end as planned; the reason says which end."""

    reason: str
    seconds: float


@event("run.failed", version=1)
class RunFailed(Event):
    """A run was ended by an error, or by the user's interrupt."""

    error: str
    message: str


@event("telemetry.dropped", version=1)
class EventsDropped(Event):
    """Events are missing here: how many, how many since the start, and why."""

    count: int
    total: int
    reason: str
