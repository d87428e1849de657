"""What a configuration class declares, and whether a value is what a field declares."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import math
import sys
import types
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from flyball.config.formats import inline, show, tick
from flyball.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Python neither writes nor reads a decimal of more than 4300 digits.
_MAX_INTEGER_BITS = 4096
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path"}
_SAMPLES = {bool: "true, false", int: "1, 2", float: "0.1, 0.2", str: '"a", "b"', Path: '"a", "b"'}


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers a field may hold, as in ``Annotated[float, Range(above=0.0, high=1.0)]``."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        floor = [bound for bound in (self.low, self.above) if bound is not None]
        ceiling = [bound for bound in (self.high, self.below) if bound is not None]
        if not (floor or ceiling) or len(floor) > 1 or len(ceiling) > 1:
            raise TypeError("a `Range` takes one of `low` and `above`, one of `high` and `below`")
        if floor and ceiling and not floor[0] <= ceiling[0]:
            raise ValueError(f"a `Range` from {floor[0]} to {ceiling[0]} holds no number")

    def __contains__(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"between {_short(self.low)} and {_short(self.high)}"
        words = ("at least", "greater than", "at most", "less than")
        bounds = zip(words, (self.low, self.above, self.high, self.below), strict=True)
        return " and ".join(f"{word} {_short(end)}" for word, end in bounds if end is not None)


def _short(bound: float) -> str:
    return repr(bound).removesuffix(".0")


@dataclass(frozen=True)
class Config:
    """The base of every configuration class; derive from it with ``@dataclass(frozen=True)``.

    A field is a bool, int, float, str, `Path`, `Literal` of texts or integers, ``X | None``,
    ``tuple[X, ...]``, or another `Config`, which makes a section. A number may carry a `Range`.
    An optional field defaults to None, because TOML has no null: what is left out is None.

    Raises:
        ConfigError: A value has the wrong type or is out of range, one line for each.
        TypeError: The class itself is not one that can be written and read.
    """

    def __post_init__(self) -> None:
        problems: list[str] = []
        for name, kind in schema(type(self)).items():
            value = convert(kind, getattr(self, name), name, problems)
            object.__setattr__(self, name, value)
        if not problems:
            problems.extend(self.conflicts())
        if problems:
            raise ConfigError("\n".join(f"{type(self).__name__}: {line}" for line in problems))

    def conflicts(self) -> Iterable[str]:
        """Say which fields do not go together, a line each; asked when each alone is valid."""
        return ()


def to_mapping(config: Config) -> dict[str, Any]:
    """Give a configuration as nested plain data; a field that is None is left out."""
    items = {name: _plain(getattr(config, name)) for name in schema(config.__class__)}
    return {name: value for name, value in items.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, Config):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Kind:
    """What one field may hold; `base` is its type, or None for a `Literal` or a tuple."""

    base: Any
    limits: Range | None = None
    choices: tuple[str | int, ...] = ()
    item: Kind | None = None
    section: type[Config] | None = None
    optional: bool = False

    def __str__(self) -> str:
        if self.section is not None:
            return f"of class `{self.section.__name__}`"
        if self.item is not None:
            return f"a list, such as {self.sample()}"
        if self.base is None:
            return ("one of " if self.choices[1:] else "") + self.sample()
        return _WORDS[self.base]

    def sample(self) -> str:
        """Values of this kind, as a file writes them."""
        if self.item is not None:
            return f"[{self.item.sample()}]"
        return ", ".join(map(inline, self.choices)) if self.base is None else _SAMPLES[self.base]


def schema(cls: type[Config]) -> dict[str, Kind]:
    """The kinds of a class's fields, or a TypeError that tells its author what to change."""
    return _schema(cast("Any", cls))  # mypy takes no dataclass itself for hashable


@functools.cache
def _schema(cls: type[Config]) -> dict[str, Kind]:
    if "__dataclass_fields__" not in vars(cls):
        raise TypeError(f"`{cls.__qualname__}` is not a dataclass; add `@dataclass(frozen=True)`")
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"`{cls.__qualname__}` has an annotation that cannot be looked up, because {error}; "
            "define or import it at the top of its module, outside `if TYPE_CHECKING`"
        ) from error
    return {field.name: _field_kind(cls, field, hints) for field in dataclasses.fields(cls)}


def _field_kind(cls: type[Config], field: dataclasses.Field[Any], hints: dict[str, Any]) -> Kind:
    where = f"`{cls.__qualname__}.{field.name}`"
    if hasattr(Config, field.name):
        raise TypeError(f"{where} hides a name that every `Config` has; rename it")
    if not field.init:
        raise TypeError(f"{where} cannot be given in a file; drop `init=False`")
    kind = _kind(hints[field.name], where)
    default = default_of(field)
    if kind.optional and default is not None:
        raise TypeError(
            f"{where} is optional and must default to None, because TOML has no null; "
            + ("it has no default" if default is MISSING else f"its default is {show(default)}")
        )
    if isinstance(default, Config) and (filled := _filled_option(default)):
        raise TypeError(
            f"{where} has a default whose optional field `{filled}` is not None, which a file "
            "could not undo; leave it None"
        )
    return kind


def _kind(hint: object, where: str) -> Kind:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind = _kind(arguments[0], where)
        ranges = [extra for extra in arguments[1:] if isinstance(extra, Range)]
        if ranges and (len(ranges) > 1 or kind.limits or kind.base not in {int, float}):
            raise TypeError(f"{where} may have one `Range`, and only as an int or a float")
        return dataclasses.replace(kind, limits=ranges[0]) if ranges else kind
    if origin in {Union, types.UnionType} and len(arguments) == 2 and type(None) in arguments:
        kind = _kind(next(part for part in arguments if part is not type(None)), where)
        if kind.section is None:
            return dataclasses.replace(kind, optional=True)
    elif origin is Literal and all(type(choice) in {str, int} for choice in arguments):
        return Kind(None, choices=arguments)
    elif origin is tuple and arguments[1:] == (...,):
        item = _kind(arguments[0], where)
        if item.section is None and not item.optional:
            return Kind(None, item=item)
    elif isinstance(hint, type) and hint in _WORDS:
        return Kind(hint)
    elif isinstance(hint, type) and origin is None and issubclass(hint, Config):
        return Kind(hint, section=hint)
    name = hint.__name__ if isinstance(hint, type) and origin is None else hint
    raise TypeError(
        f"{where} is declared as `{name}`, which a configuration cannot hold; use bool, int, "
        "float, str, Path, a Literal of texts or integers, `X | None` or `tuple[X, ...]` of one "
        "of these, or a `Config` as a section, which is never optional"
    )


def default_of(field: dataclasses.Field[Any]) -> object:
    """The default of a field, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _filled_option(config: Config) -> str | None:
    for name, kind in schema(type(config)).items():
        value = getattr(config, name)
        if kind.optional and value is not None:
            return name
        if isinstance(value, Config) and (inner := _filled_option(value)):
            return f"{name}.{inner}"
    return None


def leaves(cls: type[Config], prefix: str = "") -> Iterator[str]:
    """The dotted names of all fields that hold a value, in the order of declaration."""
    for name, kind in schema(cls).items():
        if kind.section is None:
            yield prefix + name
        else:
            yield from leaves(kind.section, f"{prefix}{name}.")


def convert(kind: Kind, value: object, name: str, problems: list[str]) -> object:
    """Give a value the way its field stores it; what is wrong with it goes to `problems`."""
    if value is None and kind.optional:
        return None
    if kind.item is not None and isinstance(value, list | tuple):
        item = kind.item
        return tuple(convert(item, x, f"{name}[{i}]", problems) for i, x in enumerate(value))
    fault = _fault(kind, value)
    if fault:
        problems.append(f"{tick(name)} is {show(value)}; it must be {fault}")
    elif kind.base in {float, Path} or (kind.base is int and type(value) is not int):
        return kind.base(value)
    elif kind.base is str and type(value) is not str:
        return str.__str__(value)  # a `StrEnum` member without its class
    return value


def _fault(kind: Kind, value: object) -> str:
    """What a value should have been; empty where it is right."""
    if kind.section is not None:
        # Not `isinstance`: what a subclass adds would be lost in a file.
        right = value.__class__ is kind.section
    elif kind.base is None:
        right = any(type(value) is type(x) and value == x for x in kind.choices)
    elif kind.base in {int, float}:
        return _number_fault(kind, value)
    elif kind.base is bool:
        right = isinstance(value, bool)
    else:
        right = isinstance(value, str) or (kind.base is Path and isinstance(value, Path))
        if right and any("\ud800" <= letter <= "\udfff" for letter in str(value)):
            return f"{kind} that UTF-8 can hold: remove the lone surrogate"
        if isinstance(value, int | float | dt.date | dt.time):
            return f"{kind}: write it in quotes"
    return "" if right else str(kind)


def _number_fault(kind: Kind, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{kind}{_number_hint(kind, value)}"
    if kind.base is float:
        if not abs(value) <= sys.float_info.max:
            return "a finite number"
    elif isinstance(value, float):
        return f"{kind}{_number_hint(kind, value)}"
    elif value.bit_length() > _MAX_INTEGER_BITS:
        return f"an integer of at most {_MAX_INTEGER_BITS} bits"
    return "" if kind.limits is None or value in kind.limits else str(kind.limits)


def _number_hint(kind: Kind, value: object) -> str:
    number = as_number(float, value) if isinstance(value, str) else value
    if not isinstance(number, float) or not math.isfinite(number):
        return ""
    if kind.base is int and number.is_integer() and abs(number) < 1e15:
        return f": write {number:.0f}{', without quotes' if isinstance(value, str) else ''}"
    return ": write it without quotes" if isinstance(value, str) else ""


def as_number(convert: type[int | float], text: str) -> float | str:
    """Read a number; text that is none stays text, to be refused by its field."""
    try:
        return convert(text)
    except ValueError:
        return text
