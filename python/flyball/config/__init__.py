"""One frozen dataclass tree as configuration, read from TOML or YAML and overridden by hand.

A configuration is a tree of frozen dataclasses derived from `Config`. Each class checks the types
and ranges of its own fields, so one that exists is valid. `load` reads a file, applies overrides
such as ``training.epochs=3``, and reports everything that is wrong in one `ConfigError`; `save`
writes a file that reads back equal.

Files are data: no object is built from a tag, YAML aliases are refused, and a file is at most
1 MiB. YAML is read by the 1.2 core schema, where ``no`` is text and ``5e-4`` is a number.

For example::

    @dataclass(frozen=True)
    class Training(Config):
        epochs: Annotated[int, Range(low=1)] = 20
        seed: int | None = None

    @dataclass(frozen=True)
    class Run(Config):
        name: str = "demo"
        training: Training = Training()

    config = load(Run, "run.toml", overrides=["training.epochs=3"])
    save(config, "config.toml")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flyball.config.assembly import assemble
from flyball.config.formats import Format, read, written
from flyball.config.schema import Config as Config
from flyball.config.schema import Range as Range
from flyball.config.schema import to_mapping as to_mapping
from flyball.errors import ConfigError
from flyball.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Config", "Range", "from_mapping", "load", "save", "to_mapping", "to_toml"]

C = TypeVar("C", bound=Config)


def load(cls: type[C], path: str | os.PathLike[str] | None = None, *, overrides: Sequence[str] = ()) -> C:
    """Read a configuration from a TOML or YAML file, or take the defaults where `path` is None.

    Args:
        cls: The class of the whole tree.
        path: A file that ends in .toml, .yaml or .yml. What it leaves out keeps its default; in
            a section, that is the default its parent gives the section.
        overrides: ``section.key=value`` texts, which win over the file; the last one wins.
            Text is taken as it stands, ``none`` empties an optional field, and a tuple is
            written as a TOML array.

    Raises:
        ConfigError: Everything that is wrong with the file and the overrides, a line each.
    """
    if path is None:
        return assemble(cls, {}, overrides=overrides)
    return assemble(cls, read(Path(path)), source=os.fspath(path), overrides=overrides)


def save(config: Config, path: str | os.PathLike[str]) -> None:
    """Write a configuration as .toml, .yaml or .yml; at no instant is the file half written.

    Raises:
        ConfigError: The suffix is none of these, or the folder does not exist.
        OSError: The file cannot be written; one that was there before is untouched.
    """
    target = Path(path)
    text = written(to_mapping(config), Format.of(target))
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: the folder `{target.parent}` does not exist; create it first")
    write_whole(target, text.encode())


def to_toml(config: Config) -> str:
    """Write a configuration as the text of a TOML file."""
    return written(to_mapping(config), Format.TOML)


def from_mapping(cls: type[C], mapping: Mapping[str, Any], source: str = "") -> C:
    """Build a configuration from nested plain data; `source` leads every line of an error."""
    return assemble(cls, mapping, source=source)
