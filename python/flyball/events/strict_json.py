"""Strict JSON: what Python's encoder would write wrongly or refuse, written so it reads back.

JSON has no NaN and no infinity, so a non-finite float becomes ``{"$float": "nan"}``, ``"inf"`` or
``"-inf"``. A key of the user's that begins with ``$`` is written with one more ``$`` in front, so
that nothing a user writes can be taken for that mark. The text is ASCII without line breaks.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import NoReturn, TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

UNENCODABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # and with it a RecursionError: a value that holds itself
    TypeError,
    ValueError,
)
"""What a value can raise while it is being turned into JSON, its own methods included."""

_MARK = "$float"
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def plain(value: object) -> JSON:  # noqa: PLR0911 - a return for each type
    """Return `value` in terms of what JSON knows, by copy; floats may still be non-finite.

    Mappings, lists, tuples and dataclasses are taken apart; a path becomes a string, and whatever
    is a single number with an `item` method (NumPy scalars, arrays and tensors without axes)
    becomes that number.

    Raises:
        TypeError: Something has no JSON form, or a key is not a string.
    """
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (enumerations among them) are written as what they hold, not as they print.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return _number(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key `{key!r}` is not a string: JSON has no other keys")
    return str.__str__(key)


def _number(value: object) -> JSON:
    name = type(value).__qualname__
    item = getattr(value, "item", None)
    if not callable(item):
        raise TypeError(f"a value of type `{name}` has no JSON form: pass numbers, strings, lists or mappings")
    shape = getattr(value, "shape", ())
    if shape != ():
        raise TypeError(f"`{name}` of shape {tuple(shape)} is not a single number: pass `.tolist()`")
    number = item()
    if not isinstance(number, bool | int | float | str):
        raise TypeError(f"`{name}` holds a `{type(number).__qualname__}`, which has no JSON form")
    return number


def encode(value: JSON) -> str:
    """Return one line of strict JSON for a plain value, non-finite floats included."""
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_marked(value))
    # Only a key, or a string with a quote in it, looks like this; both are rare.
    return _ENCODER.encode(_marked(value)) if '"$' in text else text


def _marked(value: JSON) -> JSON:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, dict):
        return {f"${key}" if key.startswith("$") else key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return value


def decode(text: str) -> JSON:
    """Return the value that `encode` was given.

    Raises:
        ValueError: The text is not strict JSON, or uses a ``$`` key that has no meaning.
        RecursionError: It is nested too deep to be read.
    """
    decoder = _MARK_DECODER if '"$' in text else _DECODER
    value: JSON = decoder.decode(text)
    return value


def _unmarked(found: dict[str, JSON]) -> JSON:
    if found.keys() == {_MARK}:
        name = found[_MARK]
        if not isinstance(name, str) or name not in _NON_FINITE:
            raise ValueError(f"`{_MARK}` is `{name}`, which is none of `nan`, `inf` and `-inf`")
        return _NON_FINITE[name]
    return {_unmarked_key(key): item for key, item in found.items()}


def _unmarked_key(key: str) -> str:
    if not key.startswith("$"):
        return key
    if not key.startswith("$$"):
        raise ValueError(f"the key `{key}` is reserved: a key that begins with `$` is written with two")
    return key[1:]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is not JSON: a non-finite number is written as an object with `{_MARK}`")


# No check for cycles: `plain` has copied the value, and a copy of a cycle never ends.
_ENCODER = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_MARK_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_hook=_unmarked)
