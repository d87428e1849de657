"""Containers as batches use them: tuples, lists, mappings and dataclasses, walked to any depth in one way."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def is_container(value: object) -> bool:
    """Say whether a value is a container that can be taken apart and built again."""
    return (
        type(value) in {tuple, list}
        or (isinstance(value, tuple) and hasattr(value, "_make"))
        or isinstance(value, dict | UserDict)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )


def rebuilt(value: Any, part: Callable[[Any], Any]) -> Any:
    """Return a container like this one, with every part passed through `part`.

    Raises:
        TypeError: It is no container, as `is_container` says.
    """
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map(part, value))
    if type(value) in {tuple, list}:
        return type(value)(map(part, value))
    if isinstance(value, dict | UserDict):
        mapping = copy.copy(value)
        for key, content in value.items():
            mapping[key] = part(content)
        return mapping
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        whole = copy.copy(value)
        for field in dataclasses.fields(value):
            # A frozen dataclass is written the way its own `__init__` writes it.
            object.__setattr__(whole, field.name, part(getattr(value, field.name)))
        return whole
    raise TypeError(f"a `{type(value).__name__}` is not a container that can be built again")


def leaves(value: Any) -> Iterator[Any]:
    """Yield everything that is no container, in order."""
    if not is_container(value):
        yield value
        return
    parts = value if isinstance(value, tuple | list) else named(value).values()
    for part in parts:
        yield from leaves(part)


def named(value: Any) -> dict[str, Any]:
    """Return the parts of a mapping, a dataclass or a named tuple by their names, without a copy of the parts.

    Raises:
        TypeError: Its parts have no names.
    """
    if isinstance(value, dict | UserDict):
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"the parts of a `{type(value).__name__}` have no names")
