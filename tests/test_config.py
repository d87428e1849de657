"""A configuration that exists is valid and reads back equal; an error says what to write."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyball.config import Config, Range, from_mapping, load, save, to_mapping, to_toml
from flyball.errors import ConfigError, FlyballError
from support.recording import record_reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Training(Config):
    """How long and how fast to train."""

    epochs: Annotated[int, Range(low=1)] = 20
    learning_rate: Annotated[float, Range(above=0.0)] = 1e-3
    dropout: Annotated[float, Range(low=0, below=1)] = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 0
    seed: int | None = None
    betas: tuple[float, ...] = (0.9, 0.999)
    compile: bool = False

    def conflicts(self) -> Iterator[str]:
        """Warming up takes a part of the training."""
        if self.warmup > self.epochs:
            yield f"`warmup` is {self.warmup}; it must be at most `epochs`, {self.epochs}"


@dataclass(frozen=True)
class Paths(Config):
    """Where things lie."""

    data: Path = Path("data")
    cache: Path | None = None


@dataclass(frozen=True)
class Outer(Config):
    """A section within a section."""

    paths: Paths = field(default_factory=Paths)


@dataclass(frozen=True)
class Run(Config):
    """The whole tree."""

    name: str = "demo"
    level: Literal[1, 2] = 1
    tags: tuple[str, ...] = ()
    note: str | None = None
    training: Training = field(default_factory=Training)
    outer: Outer = Outer()


@dataclass(frozen=True)
class Everything(Config):
    """One field of each kind, with names that a format could take for a value."""

    true: bool = False
    null: str = ""
    no: str | None = None
    größe: int = 0  # noqa: PLC2401 - a name that TOML must quote
    number: float = 0.0
    path: Path = Path()
    place: Path | None = None
    choice: Literal["a", "null", 3] = "a"
    limited: Annotated[float | None, Range(low=0, high=1)] = None
    numbers: tuple[float, ...] = ()
    grid: tuple[tuple[int, ...], ...] = ()
    words: tuple[str, ...] = ()
    flags: tuple[bool, ...] = ()
    paths: tuple[Path, ...] = ()
    inner: Outer = Outer()


@dataclass(frozen=True)
class Required(Config):
    """A field without a default."""

    size: int
    paths: Paths


@dataclass(frozen=True)
class Limits(Config):
    """A section that may be empty in a file."""

    seconds: float | None = None


@dataclass(frozen=True)
class Limited(Config):
    """A tree that may be empty in a file."""

    limits: Limits = Limits()


NASTY = (
    "", " ", "true", "null", "~", "no", "5e-4", "1e3", ".5", "0x10", "007", "1:30",
    "2024-01-01", "<<", "=", "- a", "a: b", "#", "'", '"', '"""', "'''", "\\", "\\n",
    "\n", "\r\n", "\r", "\t", "\x00", "\x1b",
    "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\ue000", "é", "e\u0301", "\U0001f600",
    "\U0010ffff", "%YAML", "&a", "*a", "!!int 3", "[a]", "{}",
)  # fmt: skip

texts = st.text() | st.sampled_from(NASTY)
floats = st.floats(allow_nan=False, allow_infinity=False)
floats |= st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e-5, 1e16, sys.float_info.max, 0.1 + 0.2])
integers = st.integers() | st.sampled_from([2**63, -(2**63), 10**400, -1])
paths = texts.map(Path)
everything = st.builds(
    Everything,
    true=st.booleans(),
    null=texts,
    no=st.none() | texts,
    größe=integers,
    number=floats,
    path=paths,
    place=st.none() | paths,
    choice=st.sampled_from(["a", "null", 3]),
    limited=st.none() | st.floats(0, 1),
    numbers=st.lists(floats).map(tuple),
    grid=st.lists(st.lists(integers).map(tuple)).map(tuple),
    words=st.lists(texts).map(tuple),
    flags=st.lists(st.booleans()).map(tuple),
    paths=st.lists(paths).map(tuple),
    inner=st.builds(Outer, paths=st.builds(Paths, data=paths, cache=st.none() | paths)),
)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | bytes], str]:
    """Write a file into a fresh working folder, and give its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: str | bytes) -> str:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write_file


def problems(call: Callable[[], object]) -> list[str]:
    """The lines of the `ConfigError` that a call raises."""
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value).split("\n")


# Reading back.


@pytest.mark.parametrize("suffix", [".toml", ".yaml"])
@settings(deadline=None)  # a busy machine is not a fault
@given(config=everything)
@example(config=Everything(null="".join(NASTY), words=NASTY, numbers=(-0.0, 5e-324, 1e308)))
def test_what_is_saved_reads_back_identical(
    suffix: str, config: Everything, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    save(config, path)
    back = load(Everything, path)
    assert back == config
    assert repr(back) == repr(config)  # also tells -0.0 from 0.0


@settings(deadline=None)
@given(config=everything)
def test_a_reader_of_yaml_1_1_sees_the_same_values(config: Everything) -> None:
    import yaml

    from flyball.config.formats import Format, written

    assert yaml.safe_load(written(to_mapping(config), Format.YAML)) == to_mapping(config)


@settings(deadline=None)
@given(config=everything)
def test_a_mapping_is_plain_data_and_gives_the_same_configuration_back(config: Everything) -> None:
    def walk(value: object) -> Iterator[object]:
        yield value
        if isinstance(value, dict):
            value = list(value.values())
        for part in value if isinstance(value, list) else []:
            yield from walk(part)

    plain = to_mapping(config)
    assert {type(value) for value in walk(plain)} <= {dict, list, bool, int, float, str}
    assert from_mapping(Everything, plain) == config


def test_the_text_of_a_file_is_plain_and_in_the_order_of_declaration() -> None:
    assert to_toml(Run(tags=("a", 'b"'))) == (
        'name = "demo"\nlevel = 1\ntags = ["a", "b\\""]\n'
        "\n[training]\nepochs = 20\nlearning_rate = 0.001\ndropout = 0.0\n"
        'schedule = "cosine"\nwarmup = 0\nbetas = [0.9, 0.999]\ncompile = false\n'
        '\n[outer]\n\n[outer.paths]\ndata = "data"\n'
    )


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".yml"])
def test_a_section_of_which_everything_is_none_reads_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"config{suffix}"
    for config in (Limited(), Limits()):
        save(config, path)
        assert load(type(config), path) == config


def test_a_failed_save_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    save(Run(name="old"), path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(Run(name="new"), path)
    assert load(Run, path).name == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_folder_that_is_not_there_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`.*nowhere` does not exist; create it first"):
        save(Run(), tmp_path / "nowhere" / "config.toml")


def test_a_configuration_can_be_copied_pickled_and_hashed() -> None:
    config = Run(tags=("a",))
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    assert hash(config) == hash(Run(tags=("a",)))


# What exists is valid.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs` is 0; it must be at least 1"),
        ({"epochs": True}, "`epochs` is True; it must be an integer"),
        ({"epochs": 3.0}, "`epochs` is 3.0; it must be an integer: write 3"),
        ({"epochs": 3.5}, "`epochs` is 3.5; it must be an integer"),
        ({"epochs": 1e300}, "`epochs` is 1e+300; it must be an integer"),
        ({"epochs": "3"}, "`epochs` is '3'; it must be an integer: write 3, without quotes"),
        ({"epochs": None}, "`epochs` is None; it must be an integer"),
        ({"epochs": 1 << 4096}, "it must be an integer of at most 4096 bits"),
        ({"learning_rate": 0}, "`learning_rate` is 0; it must be greater than 0"),
        (
            {"learning_rate": "5e-4"},
            "`learning_rate` is '5e-4'; it must be a number: write it without quotes",
        ),
        ({"learning_rate": "fast"}, "`learning_rate` is 'fast'; it must be a number"),
        ({"learning_rate": float("nan")}, "`learning_rate` is nan; it must be a finite number"),
        ({"learning_rate": float("inf")}, "`learning_rate` is inf; it must be a finite number"),
        ({"learning_rate": 10**400}, "it must be a finite number"),
        ({"learning_rate": True}, "`learning_rate` is True; it must be a number"),
        ({"dropout": 1.0}, "`dropout` is 1.0; it must be at least 0 and less than 1"),
        (
            {"schedule": "linear"},
            '`schedule` is \'linear\'; it must be one of "constant", "cosine"',
        ),
        ({"betas": 0.9}, "`betas` is 0.9; it must be a list, such as [0.1, 0.2]"),
        ({"betas": (0.9, "x")}, "`betas[1]` is 'x'; it must be a number"),
        ({"betas": (0.9, float("nan"))}, "`betas[1]` is nan; it must be a finite number"),
        ({"compile": 1}, "`compile` is 1; it must be true or false"),
        ({"warmup": 21}, "`warmup` is 21; it must be at most `epochs`, 20"),
    ],
)
def test_an_invalid_value_is_refused_however_the_configuration_is_made(changes: dict[str, Any], message: str) -> None:
    for make in (
        lambda: Training(**changes),
        lambda: replace(Training(), **changes),
    ):
        [line] = problems(make)
        assert line.startswith("Training: `")
        assert line.endswith(message)
    [line] = problems(lambda: from_mapping(Run, {"training": changes}, "run.toml"))
    assert line.startswith("run.toml: ")
    assert line.endswith(message.replace("`", "`training.", 1) if "warmup" not in changes else message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "`name` is 3; it must be text: write it in quotes"),
        ({"name": None}, "`name` is None; it must be text"),
        (
            {"name": "\ud800"},
            "`name` is '\\ud800'; it must be text that UTF-8 can hold: remove the lone surrogate",
        ),
        ({"level": True}, "`level` is True; it must be one of 1, 2"),
        ({"level": 1.0}, "`level` is 1.0; it must be one of 1, 2"),
        ({"level": "1"}, "`level` is '1'; it must be one of 1, 2"),
        ({"tags": "ab"}, '`tags` is \'ab\'; it must be a list, such as ["a", "b"]'),
        ({"outer": Paths()}, "it must be of class `Outer`"),
    ],
)
def test_a_value_of_another_type_is_refused(changes: dict[str, Any], message: str) -> None:
    [line] = problems(lambda: Run(**changes))
    assert line.endswith(message)


def test_values_are_stored_as_their_field_declares() -> None:
    class Color(StrEnum):
        RED = "red"

    class Meters(float):
        pass

    config = Run(name=Color.RED, training=Training(learning_rate=1, betas=[0, Meters(0.5)]))  # type: ignore[arg-type]
    assert type(config.name) is str
    assert type(config.training.learning_rate) is float
    assert [type(beta) for beta in config.training.betas] == [float, float]
    assert Paths(data="x").data == Path("x")  # type: ignore[arg-type]
    assert from_mapping(Run, to_mapping(config)) == config


def test_a_section_of_a_subclass_is_refused_because_a_file_would_lose_its_fields() -> None:
    @dataclass(frozen=True)
    class More(Paths):
        extra: int = 0

    [line] = problems(lambda: Outer(paths=More()))
    assert line.endswith("it must be of class `Paths`")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Run().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Range(low=1), "at least 1"),
        (Range(high=2.5), "at most 2.5"),
        (Range(above=0.0), "greater than 0"),
        (Range(below=1e-05), "less than 1e-05"),
        (Range(low=0, high=1), "between 0 and 1"),
        (Range(above=0, high=1), "greater than 0 and at most 1"),
        (Range(low=0, below=1), "at least 0 and less than 1"),
        (Range(above=0, below=1), "greater than 0 and less than 1"),
    ],
)
def test_a_range_says_its_bounds(limits: Range, text: str) -> None:
    assert str(limits) == text


@given(value=st.floats(-2, 2))
def test_a_range_holds_what_is_within_its_bounds(value: float) -> None:
    assert (value in Range(low=-1, high=1)) == (-1 <= value <= 1)
    assert (value in Range(above=-1, below=1)) == (-1 < value < 1)


def test_a_range_that_bounds_nothing_or_holds_nothing_is_refused() -> None:
    for bounds in ({}, {"low": 0, "above": 0}, {"high": 0, "below": 0}):
        with pytest.raises(TypeError, match="one of `low` and `above`"):
            Range(**bounds)
    for low, high in ((1, 0), (float("nan"), 1)):
        with pytest.raises(ValueError, match="holds no number"):
            Range(low=low, high=high)


# What a class may declare.


def declared(annotation: object, **default: object) -> type[Config]:
    """A configuration class with one field."""
    members = {
        "__annotations__": {"value": annotation},
        **({"value": default["default"]} if default else {}),
    }
    return dataclass(frozen=True)(type("Declared", (Config,), members))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (
            declared(list[float]),
            r"`Declared.value` is declared as `list\[float\]`, which .* cannot hold; use bool",
        ),
        (declared(dict), "declared as `dict`"),
        (declared(int | str), r"declared as `int \| str`"),
        (declared(Any), "declared as `Any`"),
        (declared(Literal[True]), r"declared as `typing.Literal\[True\]`"),
        (declared(tuple[int, int]), r"declared as `tuple\[int, int\]`"),
        (declared(tuple[int | None, ...]), "declared as `tuple"),
        (declared(tuple[Paths, ...]), "declared as `tuple"),
        (declared(Paths | None, default=None), "a section, which is never optional"),
        (
            declared(Annotated[str, Range(low=0)]),
            "`Declared.value` may have one `Range`, and only as an int or a float",
        ),
        (declared(Annotated[int, Range(low=0), Range(high=1)]), "may have one `Range`"),
        (
            declared(int | None, default=3),
            "must default to None, because TOML has no null; its default is 3",
        ),
        (declared(int | None), "must default to None, because TOML has no null; it has no default"),
        (declared(Training, default=Training(seed=3)), "optional field `seed` is not None"),
        (
            declared(Outer, default=Outer(Paths(cache=Path("c")))),
            "optional field `paths.cache` is not None",
        ),
        (declared(int, default=field(init=False, default=3)), "drop `init=False`"),
        (
            declared("Nowhere"),
            "`Declared` has an annotation .* 'Nowhere' is not defined; define or import it",
        ),
        (type("Bare", (Config,), {}), "`Bare` is not a dataclass; add `@dataclass"),
    ],
)
def test_a_class_that_cannot_be_read_and_written_is_a_type_error_for_its_author(
    cls: type[Config], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        load(cls)
    with pytest.raises(TypeError, match=message):
        cls(**({} if cls.__name__ == "Bare" or not fields(cls)[0].init else {"value": 1}))


def test_a_field_may_not_hide_what_every_configuration_has() -> None:
    @dataclass(frozen=True)
    class Hiding(Config):
        conflicts: bool = False  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"Hiding.conflicts` hides a name that every `Config` has; rename it"):
        Hiding()


# Files.


def test_a_file_sets_what_it_names_and_leaves_the_rest(
    write: Callable[[str, str | bytes], str],
) -> None:
    write("run.toml", "name = 'x'\n[training]\nepochs = 3\nlearning_rate = 1\n")
    assert load(Run, "run.toml") == Run(name="x", training=Training(epochs=3, learning_rate=1.0))


def test_a_section_keeps_the_default_its_parent_gives_it() -> None:
    @dataclass(frozen=True)
    class Teacher(Config):
        training: Training = Training(epochs=5, warmup=2)

    assert from_mapping(Teacher, {"training": {"warmup": 1}}).training == Training(epochs=5, warmup=1)
    assert load(Teacher, overrides=["training.warmup=3"]).training == Training(epochs=5, warmup=3)
    assert from_mapping(Teacher, to_mapping(Teacher())) == Teacher()


def test_yaml_is_read_by_the_core_schema_of_1_2(write: Callable[[str, str | bytes], str]) -> None:
    write(
        "run.yaml",
        "name: no\nnote: 'null'\ntags: [yes, on, 1_0, 1:30, 2024-01-01, 0b1, <<, =, .5.5]\n",
    )
    config = load(Run, "run.yaml")
    assert (config.name, config.note) == ("no", "null")
    assert config.tags == ("yes", "on", "1_0", "1:30", "2024-01-01", "0b1", "<<", "=", ".5.5")
    for text, value in {
        "5e-4": 5e-4,
        "1e3": 1e3,
        ".5": 0.5,
        "+1.": 1.0,
        "2E+1": 20.0,
        "7": 7.0,
    }.items():
        write("run.yaml", f"training: {{learning_rate: {text}}}")
        assert load(Run, "run.yaml").training.learning_rate == value
    for text, number in {"0x1F": 31, "0o17": 15, "010": 10, "+3": 3}.items():
        write("run.yaml", f"training: {{epochs: {text}}}")
        assert load(Run, "run.yaml").training.epochs == number
    for text, flag in {"true": True, "False": False}.items():
        write("run.yml", f"training: {{compile: {text}, seed: ~}}")
        assert load(Run, "run.yml").training.compile is flag
    for text in ("yes", "on", "'true'"):
        write("run.yaml", f"training:\n  compile: {text}")
        [line] = problems(lambda: load(Run, "run.yaml"))
        assert line.endswith("it must be true or false")
    for text in (".inf", "-.INF", ".nan"):
        write("run.yaml", f"training:\n  dropout: {text}")
        [line] = problems(lambda: load(Run, "run.yaml"))
        assert line.endswith("it must be a finite number")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", ""),
        ("a.toml", "[training]"),
        ("a.yaml", ""),
        ("a.yaml", "training:\nouter: {paths: }"),
        ("a.yaml", "# nothing"),
        ("a.TOML", "\ufeffname = 'demo'\r\n"),
    ],
)
def test_an_empty_file_or_section_means_the_defaults(
    name: str, text: str, write: Callable[[str, str | bytes], str]
) -> None:
    write(name, text)
    assert load(Run, name) == Run()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.toml",
            "x = 1\nname = demo",
            "line 2: not valid TOML: invalid value; write texts in quotes",
        ),
        (
            "a.toml",
            "name = 'a'\nname = 'b'",
            "line 2: not valid TOML: cannot overwrite a value; fix this line",
        ),
        ("a.toml", "tags = [\n'a'\n", "line 3: not valid TOML: unclosed array; fix this line"),
        (
            "a.toml",
            "\nlevel = " + "9" * 5000,
            "line 2: not valid TOML: the integer is too long; write a shorter",
        ),
        ("a.toml", "a = " + "[" * 5000, "nested too deeply to be a configuration; flatten it"),
        (
            "a.yaml",
            "name: a\nlevel: 1\nname: b",
            "line 3: not valid YAML: the key `name` stands twice in its section; remove one",
        ),
        (
            "a.yaml",
            "training:\n  seed: 1\n  'seed': 1",
            "line 3: not valid YAML: the key `seed` stands twice",
        ),
        (
            "a.yaml",
            "name: a\ntags: [b",
            "line 2: not valid YAML: while parsing a flow sequence, expected",
        ),
        ("a.yaml", "name: a\n\tb", "line 2: not valid YAML: "),
        (
            "a.yaml",
            "name: &a x\nnote: *a",
            "line 2: not valid YAML: the alias `*a` is not read here; write the value",
        ),
        (
            "a.yaml",
            "name: !!python/name:os.system x",
            "python/name:os.system` is not read here; write the value without it",
        ),
        ("a.yaml", "name: !!str x", "is not read here"),
        ("a.yaml", "\nname: ! x", "line 2: not valid YAML: the tag `!` is not read here"),
        ("a.yaml", "? [a]\n: b", "line 1: not valid YAML: a key is not a word; write it as text"),
        ("a.yaml", "a: 1\n---\nb: 1", "line 2: not valid YAML: expected a single document"),
        (
            "a.yaml",
            "a: 1\nb: \x07",
            r"line 2: not valid YAML: the character '\x07' may not stand there",
        ),
        ("a.yaml", 'a: 1\nb: "\\UFFFFFFFF"', "line 2: not valid YAML: "),
        (
            "a.yaml",
            "a: 1\nlevel: " + "9" * 5000,
            "line 2: not valid YAML: the integer is too long; write a shorter",
        ),
        ("a.yaml", "a: " + "[" * 5000, "nested too deeply to be a configuration; flatten it"),
        ("a.toml", b"name = 'x'\n# \xff", "line 2: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a.toml", b"#" * (1 << 20) + b"#", "longer than 1048576 bytes; is this the right file?"),
        ("a.json", "{}", "the suffix '.json' names no format; use .toml, .yaml or .yml"),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line_and_a_remedy(
    name: str, text: str | bytes, message: str, write: Callable[[str, str | bytes], str]
) -> None:
    write(name, text)
    [line] = problems(lambda: load(Run, name))
    assert line.startswith(f"{name}: {message}") or (line.startswith(name) and message in line)
    assert ";" in line


def test_a_missing_file_a_folder_and_an_unreadable_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(lambda: load(Run, "no.toml")) == ["no.toml: there is no such file; check the path"]
    Path("runs.toml").mkdir()
    assert problems(lambda: load(Run, "runs.toml")) == ["runs.toml: this is a folder; name a file in it"]
    Path("file").touch()
    [line] = problems(lambda: load(Run, "file/a.toml"))
    assert line.startswith("file/a.toml: ")


def test_aliases_cannot_make_a_small_file_large(write: Callable[[str, str | bytes], str]) -> None:
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))
    write("bomb.yaml", f"a0: &a0 [x]\n{layers}")
    [line] = problems(lambda: load(Run, "bomb.yaml"))
    assert "the alias `*a0` is not read here" in line


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"nme": "x"}, "`nme` is not a known key; did you mean `name`?"),
        (
            {"training": {"epoch": 1}},
            "`training.epoch` is not a known key; did you mean `training.epochs`?",
        ),
        ({"trainin": {"epochs": 1}}, "`trainin` is not a known section; did you mean `training`?"),
        ({"epochs": 1}, "`epochs` is not a known key; did you mean `training.epochs`?"),
        ({"training": {"level": 1}}, "`training.level` is not a known key; did you mean `level`?"),
        ({"outer": {"xyz": 1}}, "`outer.xyz` is not a known key; there are the keys `outer.paths`"),
        (
            {"xyz": {}},
            "`xyz` is not a known section; there are the keys `name`, `level`, `tags`, `note`, ",
        ),
        ({"a\nb": 1}, r"`a\nb` is not a known key; there are the keys"),
        ({1: 1}, "`1` is not a known key; there are the keys"),
        (
            {"training": 3},
            "`training` is 3; it must be a section with the keys `training.epochs`, ",
        ),
        (
            {"outer": {"paths": []}},
            "`outer.paths` is []; it must be a section with the keys `outer.paths.data`, ",
        ),
        ({"name": {"a": 1}}, "`name` is {'a': 1}; it must be text"),
        (["name"], "the configuration is ['name']; it must be a section with the keys `name`, "),
        (
            {"training": {"warmup": 30}},
            "in `training`: `warmup` is 30; it must be at most `epochs`, 20",
        ),
        ({"name": ["x" * 500]}, "`name` is ['" + "x" * 74 + " ...; it must be text"),
    ],
)
def test_what_is_not_known_is_named_with_what_was_probably_meant(mapping: dict[str, Any], message: str) -> None:
    [line] = problems(lambda: from_mapping(Run, mapping, "run.toml"))
    assert line.startswith(f"run.toml: {message}")
    [bare] = problems(lambda: from_mapping(Run, mapping))
    assert f"run.toml: {bare}" == line


def test_a_field_without_a_default_must_be_given() -> None:
    assert problems(lambda: from_mapping(Required, {}, "a.toml")) == [
        "a.toml: `size` is missing; it has no default and must be an integer"
    ]
    assert load(Required, overrides=["size=3"]) == Required(3, Paths())


def test_every_problem_of_a_file_and_its_overrides_has_a_line(
    write: Callable[[str, str | bytes], str],
) -> None:
    write(
        "run.toml",
        "nme = 1\nlevel = 3\nouter = {paths = 1}\n[training]\nepochs = 0\nepoch = 1\nbetas = ['a', 1, 'b']\n",
    )
    lines = problems(lambda: load(Run, "run.toml", overrides=["name", "training.dropout=2"]))
    assert [line.split(": ", 1)[0] for line in lines].count("run.toml") == 7
    assert sorted(line.split("`")[1] for line in lines if line.startswith("run.toml")) == [
        "level",
        "nme",
        "outer.paths",
        "training.betas[0]",
        "training.betas[2]",
        "training.epoch",
        "training.epochs",
    ]
    assert "override 'name': there is no `=` in it; write `name=VALUE`" in lines
    dropout = "`training.dropout` is 2.0; it must be at least 0 and less than 1"
    assert f"override 'training.dropout=2': {dropout}" in lines
    assert len(lines) == 9


def test_a_configuration_error_is_a_value_error_of_the_family() -> None:
    with pytest.raises(FlyballError):
        Training(epochs=0)
    with pytest.raises(ValueError, match="at least 1"):
        Training(epochs=0)


# Overrides.


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs=3", Run(training=Training(epochs=3))),
        ("training.epochs= 3 ", Run(training=Training(epochs=3))),
        ("training.learning_rate=5e-4", Run(training=Training(learning_rate=5e-4))),
        ("training.learning_rate=1", Run(training=Training(learning_rate=1.0))),
        ("training.schedule=constant", Run(training=Training(schedule="constant"))),
        ("training.compile=true", Run(training=Training(compile=True))),
        ("training.seed=7", Run(training=Training(seed=7))),
        ("training.seed=none", Run()),
        ("training.betas=[0.5, 1]", Run(training=Training(betas=(0.5, 1.0)))),
        ("training.betas=[]", Run(training=Training(betas=()))),
        ('tags=["a=b", "c"]', Run(tags=("a=b", "c"))),
        ("level=2", Run(level=2)),
        ("name=", Run(name="")),
        ("name= 'a' = b", Run(name=" 'a' = b")),
        ("name=none", Run(name="none")),
        (" name =3", Run(name="3")),
        ("outer.paths.data=a b/c", Run(outer=Outer(Paths(data=Path("a b/c"))))),
    ],
)
def test_an_override_is_read_as_its_field_declares(override: str, expected: Run) -> None:
    config = load(Run, overrides=[override])
    assert config == expected
    assert repr(config) == repr(expected)


def test_the_last_override_wins_over_the_others_and_over_the_file(
    write: Callable[[str, str | bytes], str],
) -> None:
    write("run.yaml", "training: {epochs: 0, seed: 5}\nname: file\n")
    overrides = ["training.epochs=2", "training.seed=6", "training.seed=none", "training.epochs=4"]
    assert load(Run, "run.yaml", overrides=overrides) == Run(name="file", training=Training(epochs=4))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "there is no `=` in it; write `training.epochs=VALUE`"),
        ("", "there is no `=` in it; write `name=VALUE`"),
        ("=3", "there is no key before the `=`; write `name=VALUE`"),
        ("nme=3", "`nme` is not a known key; did you mean `name`?"),
        ("epochs=3", "`epochs` is not a known key; did you mean `training.epochs`?"),
        (
            "training.epoch=3",
            "`training.epoch` is not a known key; did you mean `training.epochs`?",
        ),
        (
            "training..epochs=3",
            "`training.` is not a known section; there are the keys `training.epochs`, ",
        ),
        ("trainin.epochs=3", "`trainin` is not a known section; did you mean `training`?"),
        ("name.first=3", "`name` is not a section; write `name=VALUE`"),
        (
            "outer.paths=3",
            "`outer.paths` is a section; override one of the keys `outer.paths.data`, ",
        ),
        ("training.epochs=0", "`training.epochs` is 0; it must be at least 1"),
        ("training.epochs=3.0", "`training.epochs` is 3.0; it must be an integer: write 3"),
        ("training.epochs=1e3", "`training.epochs` is 1000.0; it must be an integer: write 1000"),
        ("training.epochs=many", "`training.epochs` is 'many'; it must be an integer"),
        ("training.epochs=none", "`training.epochs` is 'none'; it must be an integer"),
        ("training.epochs=" + "9" * 5000, "`training.epochs` is inf; it must be an integer"),
        ("training.dropout=nan", "`training.dropout` is nan; it must be a finite number"),
        ("training.dropout=1e999", "`training.dropout` is inf; it must be a finite number"),
        ("training.compile=yes", "`training.compile` is 'yes'; it must be true or false"),
        ("training.schedule=linear", "`training.schedule` is 'linear'; it must be one of"),
        (
            "training.betas=0.9,0.99",
            "`training.betas` is '0.9,0.99'; it must be a list, such as [0.1, 0.2]",
        ),
        ("training.betas=0.9", "`training.betas` is 0.9; it must be a list, such as [0.1, 0.2]"),
        ("training.betas=[1]\nx = 2", "`training.betas` is '[1]\\nx = 2'; it must be a list"),
        ("training.betas=" + "[" * 5000, "`training.betas` is '[["),
        ("name=\udcff", "`name` is '\\udcff'; it must be text that UTF-8 can hold"),
        ("training.warmup=30", "in `training`: `warmup` is 30; it must be at most `epochs`, 20"),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_an_override_that_cannot_be_used_is_shown_with_the_right_form(override: str, message: str) -> None:
    [line] = problems(lambda: load(Run, overrides=[override]))
    assert message in line
    # A conflict is between fields; it may lie in the file as well.
    assert line.startswith(("override '", "in `training`"))


# What the configuration costs, and whether it is used.


def test_reading_toml_does_not_import_yaml(tmp_path: Path) -> None:
    save(Paths(), tmp_path / "a.toml")
    program = (
        "import sys; from flyball.config import Config, load; from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass A(Config):\n    data: str = ''\n"
        "load(A, sys.argv[1]); assert not {'yaml', 'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "a.toml"], check=True)


def test_a_recorded_configuration_is_equal_and_notes_each_field_that_is_read() -> None:
    original = Run(name="x", training=Training(epochs=3))
    config, reads = record_reads(original)
    assert config == original
    assert original == config
    assert isinstance(config, Run)
    assert isinstance(config.training, Training)
    assert reads.read == set()
    assert reads.unread >= {"name", "training.epochs", "training.seed", "outer.paths.cache"}
    assert "training" not in reads.every
    section = config.training
    assert (section.epochs, config.name, config.outer.paths.cache) == (3, "x", None)
    assert reads.read == {"training.epochs", "name", "outer.paths.cache"}
    assert reads.every - reads.read == reads.unread


def test_saving_copying_and_comparing_use_no_field(tmp_path: Path) -> None:
    original = Run(name="x")
    config, reads = record_reads(original)
    save(config, tmp_path / "config.toml")
    assert load(Run, tmp_path / "config.toml") == config
    assert replace(config, name="y") == Run(name="y")
    assert type(replace(config, name="y")) is Run
    assert pickle.loads(pickle.dumps(config)) == original  # noqa: S301
    assert copy.deepcopy(config) == original
    assert hash(config) == hash(original)
    assert repr(config) == repr(original)
    assert reads.read == set()
    assert list(config.conflicts()) == list(config.training.conflicts()) == []
    assert reads.read == {"training.warmup", "training.epochs"}
