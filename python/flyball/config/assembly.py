"""From plain data and overrides to a configuration, or to everything that is wrong with them."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from flyball.config.formats import show, tick
from flyball.config.schema import Config, Kind, as_number, convert, default_of, leaves, schema
from flyball.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

C = TypeVar("C", bound=Config)


def assemble(cls: type[C], given: object, *, source: str = "", overrides: Sequence[str] = ()) -> C:
    """Build a configuration, or raise one `ConfigError` with a line for each problem."""
    job = _Job(cls, source)
    for override in overrides:
        _read_override(job, override)
    config = _section(job, cls, given)
    if config is None or job.problems:
        raise ConfigError("\n".join(job.problems))
    return config


@dataclass(frozen=True)
class _Job:
    """What is the same everywhere in the tree."""

    root: type[Config]
    source: str
    settings: dict[str, tuple[str, object]] = field(default_factory=dict)  # name: (override, value)
    problems: list[str] = field(default_factory=list)

    def report(self, lines: Iterable[str], lead: str = "") -> None:
        lead = lead or self.source
        self.problems.extend(f"{lead}: {line}" if lead else line for line in lines)


def _section(job: _Job, cls: type[C], given: object, default: Config | None = None, prefix: str = "") -> C | None:
    """Build one section of what is given, the overrides and its default; None if that fails."""
    if not isinstance(given, Mapping):
        name = tick(prefix[:-1]) if prefix else "the configuration"
        remedy = f"it must be a section with {_keys(cls, prefix)}"
        job.report([f"{name} is {show(given)}; {remedy}"])
        return None
    before = len(job.problems)
    kinds = schema(cls)
    for key in given:
        if key not in kinds:
            job.report([_unknown(job, cls, prefix, key, is_section=isinstance(given[key], Mapping))])
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(cls):
        key, kind, name = entry.name, kinds[entry.name], prefix + entry.name
        fallback = default_of(entry) if default is None else getattr(default, key)
        if kind.section is not None:
            inner = given.get(key)
            inner = {} if inner is None else inner  # `training:` without keys is a null in YAML
            part = fallback if isinstance(fallback, Config) else None
            values[key] = _section(job, kind.section, inner, part, f"{name}.")
        elif name in job.settings or key in given:
            lead, value = job.settings.get(name) or ("", given[key])
            faults: list[str] = []
            values[key] = convert(kind, value, name, faults)
            job.report(faults, lead)
        elif fallback is MISSING:
            job.report([f"{tick(name)} is missing; it has no default and must be {kind}"])
        else:
            values[key] = fallback
    if len(job.problems) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:  # each field was right, so these are its conflicts
        lead = f"in {tick(prefix[:-1])}: " if prefix else ""
        lines = [line.removeprefix(f"{cls.__name__}: ") for line in str(error).split("\n")]
        job.report(lead + line for line in lines)
        return None


def _unknown(job: _Job, cls: type[Config], prefix: str, key: object, *, is_section: bool) -> str:
    """Say that a key is not known, and which one was probably meant."""
    near = [prefix + name for name in difflib.get_close_matches(str(key), schema(cls), n=1)]
    moved = [name for name in leaves(job.root) if name.rpartition(".")[2] == key]
    meant = " or ".join(map(tick, near or moved))
    remedy = f"did you mean {meant}?" if meant else f"there are {_keys(cls, prefix)}"
    what = "section" if is_section else "key"
    return f"{tick(f'{prefix}{key}')} is not a known {what}; {remedy}"


def _keys(cls: type[Config], prefix: str) -> str:
    names = ", ".join(tick(prefix + name) for name in schema(cls))
    return f"the keys {names}" if names else "no keys"


def _read_override(job: _Job, override: str) -> None:
    """Take ``section.key=value`` apart, by what the key declares."""
    lead = f"override {show(override)}"
    name, equals, text = override.partition("=")
    name = name.strip()
    if not equals or not name:
        missing = "key before the `=`" if equals else "`=` in it"
        form = tick(f"{name or next(leaves(job.root), 'section.key')}=VALUE")
        job.report([f"there is no {missing}; write {form}"], lead)
        return
    cls, prefix = job.root, ""
    *sections, key = name.split(".")
    for part in sections:
        kind = schema(cls).get(part)
        if kind is None:
            job.report([_unknown(job, cls, prefix, part, is_section=True)], lead)
            return
        if kind.section is None:
            form = tick(f"{prefix}{part}=VALUE")
            job.report([f"{tick(prefix + part)} is not a section; write {form}"], lead)
            return
        cls, prefix = kind.section, f"{prefix}{part}."
    kind = schema(cls).get(key)
    if kind is None:
        job.report([_unknown(job, cls, prefix, key, is_section=False)], lead)
    elif kind.section is not None:
        remedy = f"override one of {_keys(kind.section, f'{name}.')}"
        job.report([f"{tick(name)} is a section; {remedy}"], lead)
    else:
        job.settings[name] = (lead, _parse(kind, text))


def _parse(kind: Kind, text: str) -> object:
    """Read the value of an override; what cannot be read stays text, to be refused by its field."""
    if kind.optional and text == "none":
        return None
    if kind.item is not None:
        return _array(text)
    if kind.base is None:
        return next((choice for choice in kind.choices if str(choice) == text), text)
    if kind.base is bool:
        return {"true": True, "false": False}.get(text, text)
    if kind.base is int:
        number = as_number(int, text)
        return as_number(float, text) if isinstance(number, str) else number
    return as_number(float, text) if kind.base is float else text


def _array(text: str) -> object:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text
