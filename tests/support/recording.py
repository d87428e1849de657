"""A configuration that remembers which of its fields were read.

A setting that nothing reads is a setting that does nothing: run the program with a recorded
configuration, and `Reads.unread` names the idle ones.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from flyball.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

C = TypeVar("C", bound=Config)

# Copying, saving and comparing read every field, and use none.
_BOOKKEEPING = ("flyball.config", "dataclasses", "copy", "pickle")
_GENERATED = frozenset({"__eq__", "__hash__", "__repr__"})


@dataclass
class Reads:
    """The dotted names of a configuration's fields, and those of them that were read."""

    every: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)

    @property
    def unread(self) -> set[str]:
        return self.every - self.read


def record_reads(config: C) -> tuple[C, Reads]:
    """Return an equal configuration, and where the reads of its fields are noted.

    A section is not a read; its fields are. What `flyball.config`, `dataclasses` and the like read
    does not count. A copy by `dataclasses.replace` or a pickle is an ordinary configuration again.
    """
    reads = Reads()
    return _recorded(config, "", reads), reads


def _recorded(config: C, prefix: str, reads: Reads) -> C:
    original = type(config)
    leaves: dict[str, str] = {}

    def read(self: C, name: str) -> object:
        if name in leaves and not _is_bookkeeping():
            reads.read.add(leaves[name])
        return object.__getattribute__(self, name)

    def reduce(self: C) -> tuple[Callable[..., C], tuple[object, ...]]:
        values = [object.__getattribute__(self, entry.name) for entry in dataclasses.fields(self)]
        return _rebuild, (original, values)

    # It says it is of the original class, so it compares equal, and `replace` makes an original.
    members = {
        "__getattribute__": read,
        "__reduce__": reduce,
        "__class__": property(lambda _: original),
    }
    copy: C = object.__new__(type(original.__name__, (original,), members))
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if isinstance(value, Config):
            value = _recorded(value, f"{prefix}{entry.name}.", reads)
        else:
            leaves[entry.name] = prefix + entry.name
        object.__setattr__(copy, entry.name, value)
    reads.every.update(leaves.values())
    return copy


def _rebuild(cls: type[C], values: list[object]) -> C:
    names = [entry.name for entry in dataclasses.fields(cls)]
    return cls(**dict(zip(names, values, strict=True)))


def _is_bookkeeping() -> bool:
    caller = sys._getframe(2)
    module = caller.f_globals.get("__name__", "")
    if caller.f_code.co_name in _GENERATED and caller.f_code.co_filename == "<string>":
        return True
    return any(module == name or module.startswith(f"{name}.") for name in _BOOKKEEPING)
