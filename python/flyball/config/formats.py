"""TOML and YAML: plain data from a file, and the text of a file from plain data.

The standard library reads TOML but does not write it, and the two formats agree on everything a
configuration needs below the level of a line: texts in double quotes, numbers, lists in brackets.
So one function writes the values of both.
"""

from __future__ import annotations

import enum
import functools
import re
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyball.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import yaml

_MAX_BYTES = 1 << 20
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Plain keys that YAML, 1.2 or the older 1.1 of many readers, takes for something else.
_WORDS_OF_YAML = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


class Format(enum.Enum):
    """A way to write a configuration down."""

    TOML = "TOML"
    YAML = "YAML"

    @staticmethod
    def of(path: Path) -> Format:
        """The format that the suffix of a path names."""
        known = {".toml": Format.TOML, ".yaml": Format.YAML, ".yml": Format.YAML}
        try:
            return known[path.suffix.lower()]
        except KeyError:
            raise ConfigError(
                f"{path}: the suffix {show(path.suffix)} names no format; use .toml, .yaml or .yml"
            ) from None


def read(path: Path) -> object:
    """Read the plain data of a file, or raise a `ConfigError` with its path and line."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: this is a folder; name a file in it")
        form = Format.of(path)
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read ({reason}); check its permissions") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: longer than {_MAX_BYTES} bytes; is this the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    try:
        return _read_toml(text) if form is Format.TOML else _read_yaml(text)
    except _SyntaxFault as fault:
        raise ConfigError(f"{path}: {fault}") from fault.__cause__
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply to be a configuration; flatten it") from None


class _SyntaxFault(Exception):
    """Why a text cannot be read; `read` adds the path."""

    def __init__(self, form: Format, line: int, problem: str, remedy: str = "") -> None:
        reason = problem[:1].lower() + problem[1:]
        remedy = remedy or "fix this line or the one before it"
        super().__init__(f"line {line}: not valid {form.value}: {reason}; {remedy}")

    @staticmethod
    def of_digits(form: Format, line: int) -> _SyntaxFault:
        """Python refuses to read an integer of thousands of digits."""
        return _SyntaxFault(form, line, "the integer is too long", "write a shorter one")


def _read_toml(text: str) -> object:
    last = text.count("\n") + 1
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        problem, line = found.groups() if found else (str(error), None)
        remedy = "write texts in quotes" if problem == "Invalid value" else ""
        raise _SyntaxFault(Format.TOML, int(line or last), problem, remedy) from error
    except ValueError as error:
        digits = re.search("[0-9_]{4300}", text)
        line = text.count("\n", 0, digits.start()) + 1 if digits else last
        raise _SyntaxFault.of_digits(Format.TOML, line) from error


def _read_yaml(text: str) -> object:
    import yaml

    loader = None
    try:
        loader = _yaml_loader()(text)
        node = loader.get_single_node()
        return {} if node is None else _plain(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise _SyntaxFault(Format.YAML, line, problem) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character {chr(error.character)!r} may not stand there"
        raise _SyntaxFault(Format.YAML, line, problem) from error
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        line = loader.line + 1 if loader else 1
        raise _SyntaxFault(Format.YAML, line, str(error)) from error


@functools.cache
def _yaml_loader() -> type[yaml.SafeLoader]:
    """A loader by the core schema of YAML 1.2, without tags and aliases.

    An alias makes a small file large, a tag asks for an object: a configuration needs neither.
    """
    import yaml

    tags = {
        "null": r"(?:~|null|Null|NULL|)\Z",
        "bool": r"(?:true|True|TRUE|false|False|FALSE)\Z",
        "int": r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z",
        "float": r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z",
    }

    class CoreLoader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 - the parent declares it without ClassVar
            None: [(f"tag:yaml.org,2002:{name}", re.compile(form)) for name, form in tags.items()]
        }

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                problem = f"the alias {tick(f'*{event.anchor}')} is not read here"
                raise _SyntaxFault(Format.YAML, line, problem, "write the value out")
            if getattr(event, "tag", None) is not None:
                problem = f"the tag {tick(event.tag)} is not read here"
                raise _SyntaxFault(Format.YAML, line, problem, "write the value without it")
            return super().compose_node(parent, index)

    return CoreLoader


def _plain(node: yaml.Node) -> object:
    import yaml

    if isinstance(node, yaml.MappingNode):
        items: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _SyntaxFault(Format.YAML, line, "a key is not a word", "write it as text")
            if key.value in items:
                problem = f"the key {tick(key.value)} stands twice in its section"
                raise _SyntaxFault(Format.YAML, line, problem, "remove one of them")
            items[key.value] = _plain(value)
        return items
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    try:
        return _scalar(node.tag.rpartition(":")[2], node.value)
    except ValueError as error:
        raise _SyntaxFault.of_digits(Format.YAML, node.start_mark.line + 1) from error


def _scalar(tag: str, text: str) -> object:
    match tag:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        case "float":
            return float(re.sub(r"\.(?=[inIN])", "", text))  # `.inf` is Python's `inf`
    return text


def written(mapping: Mapping[str, Any], form: Format) -> str:
    """The text of a file that `read` gives back as `mapping`: keys, scalars, lists, sections."""
    lines = _toml(mapping, "") if form is Format.TOML else _yaml(mapping, "")
    return "".join(f"{line}\n" for line in lines)


def _toml(mapping: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in mapping.items():
        if not isinstance(value, Mapping):
            yield f"{_key(key)} = {inline(value)}"
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            name = f"{path}{_key(key)}"
            yield ""
            yield f"[{name}]"
            yield from _toml(value, f"{name}.")


def _yaml(mapping: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        if not isinstance(value, Mapping):
            yield f"{indent}{_key(key)}: {inline(value)}"
        elif value:
            yield f"{indent}{_key(key)}:"
            yield from _yaml(value, f"{indent}  ")
        else:
            yield f"{indent}{_key(key)}: {{}}"


def inline(value: object) -> str:
    """Write a scalar or a list the way both TOML and YAML read it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(map(_letter, value)) + '"'
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")
        # YAML 1.1 takes `1e-05` for text, but not `1.0e-05`.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return repr(value)


def _letter(letter: str) -> str:
    if letter in _ESCAPES or letter.isprintable():
        return _ESCAPES.get(letter, letter)
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def _key(key: str) -> str:
    plain = re.fullmatch("[A-Za-z0-9_]+", key) and key.lower() not in _WORDS_OF_YAML
    return key if plain else inline(key)


def show(value: object) -> str:
    """A value for a message: its repr, on one line and of bearable length."""
    try:
        text = repr(value).replace("\n", " ")
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list without end
        return f"too large to show ({type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:76]} ..."


def tick(name: str) -> str:
    """A name for a message, in backticks."""
    return f"`{name}`" if name.isprintable() else f"`{repr(name)[1:-1]}`"
