"""What a field of an event can hold, and how a value of each type is read back from JSON.

A type hint becomes a reader once, when an event is defined; a reader returns the value, or names
the place in the data that does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import TypeAlias, Union, get_args, get_origin, get_type_hints

from flyball.events.strict_json import JSON

FieldReader: TypeAlias = Callable[[JSON, str], object]
"""Returns a field's value from its JSON; a ValueError names the place that does not fit."""

_CALLED: dict[object, str] = {
    NoneType: "null",
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a string",
}

_SCALARS: frozenset[type] = frozenset({bool, float, int, str, NoneType})


def _options(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)


def taken_as_is(hint: object) -> frozenset[type]:
    """Return the types of which exactly one makes a value good for the field as it is."""
    return frozenset(option for option in _options(hint) if isinstance(option, type)) & _SCALARS


def holds_more(hint: object) -> bool:
    """Return whether a field of this type can hold something with parts."""
    return not _SCALARS.issuperset(_options(hint))


def reader_of(hint: object) -> FieldReader:  # noqa: PLR0911 - a return for each type
    """Return what reads a field of this type from JSON.

    Raises:
        TypeError: An event cannot hold a field of this type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is object:
        return _read_anything
    if hint is float:
        return _read_number
    if isinstance(hint, type) and hint in _SCALARS:
        return _reader_of_exactly(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _reader_of_dataclass(hint)
    if origin in {Union, UnionType}:
        return _reader_of_union(arguments)
    if origin is Mapping and arguments[0] is str:
        return _reader_of_mapping(reader_of(arguments[1]))
    if origin is Sequence:
        return _reader_of_sequence(reader_of(arguments[0]))
    raise TypeError(f"an event cannot hold a field of type `{hint}`: see `flyball.events` for those it can")


def _mismatch(value: JSON, where: str, wanted: str) -> ValueError:
    return ValueError(f"`{where}` is {_CALLED[type(value)]}, not {wanted}")


def same_names(known: set[str], given: AbstractSet[str], where: str) -> None:
    """Check that an object has the fields that are known, no fewer and no more.

    Raises:
        ValueError: It has not; the message names one.
    """
    if missing := known - given:
        raise ValueError(f"{where} lacks the field `{min(missing)}`")
    if unknown := given - known:
        raise ValueError(f"{where} has a field `{min(unknown)}` that is not known")


def _read_anything(value: JSON, _where: str) -> object:
    return value


def _read_number(value: JSON, where: str) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mismatch(value, where, "a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"`{where}` is an integer too large for a float") from None


def _reader_of_exactly(kind: type) -> FieldReader:
    def read(value: JSON, where: str) -> object:
        if type(value) is not kind:
            raise _mismatch(value, where, _CALLED[kind])
        return value

    return read


def _reader_of_union(hints: Sequence[object]) -> FieldReader:
    readers = [reader_of(hint) for hint in hints]

    def read(value: JSON, where: str) -> object:
        reasons = []
        for reader in readers:
            try:
                return reader(value, where)
            except ValueError as error:
                reasons.append(str(error))
        raise ValueError("; ".join(reasons))

    return read


def _reader_of_mapping(item: FieldReader) -> FieldReader:
    def read(value: JSON, where: str) -> object:
        if not isinstance(value, dict):
            raise _mismatch(value, where, "an object")
        return {key: item(part, f"{where}.{key}") for key, part in value.items()}

    return read


def _reader_of_sequence(item: FieldReader) -> FieldReader:
    def read(value: JSON, where: str) -> object:
        if not isinstance(value, list):
            raise _mismatch(value, where, "a list")
        return [item(part, f"{where}[{index}]") for index, part in enumerate(value)]

    return read


def _reader_of_dataclass(made: type) -> FieldReader:
    hints = get_type_hints(made)
    readers = {part.name: reader_of(hints[part.name]) for part in fields(made)}

    def read(value: JSON, where: str) -> object:
        if not isinstance(value, dict):
            raise _mismatch(value, where, "an object")
        same_names(set(readers), value.keys(), f"`{where}`")
        return made(**{name: read(value[name], f"{where}.{name}") for name, read in readers.items()})

    return read
