"""The floors of the house: imports go downward only, no circles, and no torch at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flyball

PACKAGE = Path(flyball.__file__).parent

# From the ground up. A room imports from lower floors and from itself, never from beside or above.
FLOORS = (
    ("_native", "errors"),
    ("files", "nested"),
    ("events", "config", "device", "run_folder", "batch", "outputs"),
    ("kernels", "data"),
    ("measure", "govern", "scan", "attack", "explain"),
    ("objective", "grow", "vision", "spectral"),
    ("evaluation",),
    ("train",),
    ("safety", "observe"),
    ("integrate", "demo"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(("flyball", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"  # the front door looks into every room, lazily
}


def imports_of(tree: ast.AST, known: set[str]) -> set[str]:
    """Every flyball module that is imported anywhere in a tree, inside functions and for types too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known or whole == "flyball._native" else node.module or "")
    return {name for name in found if name.split(".")[0] == "flyball"}


GRAPH = {name: imports_of(ast.parse(path.read_text(encoding="utf-8")), set(MODULES)) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(name) for name in MODULES} <= FLOOR_OF.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downward_only(module: str) -> None:
    for imported in GRAPH[module]:
        assert imported != "flyball", f"{module} enters through the front door; name the room it needs"
        here, there = room_of(module), room_of(imported)
        assert here == there or FLOOR_OF[there] < FLOOR_OF[here], f"{module} imports {imported}, which is not below it"


def test_no_import_runs_in_a_circle() -> None:
    # A package's front page imports its own modules, so they are the same node as far as circles go.
    graph = {name: imported - {name.rsplit(".", 1)[0]} for name, imported in GRAPH.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {error.args[1]}")


def test_the_page_on_the_house_shows_these_floors() -> None:
    page = (PACKAGE.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = page.split("## The floors")[1].split("```")[1].strip("\n").splitlines()
    # A room's name stands before two spaces; what follows the last room is the remark.
    rooms = {room for line in drawn for room in line.split() if room in FLOOR_OF}
    assert rooms == set(FLOOR_OF)
    assert [
        sorted(room for room in floor if room in line.split())
        for line, floor in zip(reversed(drawn), FLOORS, strict=True)
    ] == [sorted(floor) for floor in FLOORS]


def test_the_check_sees_an_import_that_goes_up() -> None:
    found = imports_of(ast.parse("def f():\n    from flyball import cli"), {"flyball.cli"})
    assert found == {"flyball.cli"}
    assert FLOOR_OF["cli"] > FLOOR_OF["measure"]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import flyball", {"torch", "numpy", "yaml", "rich"}),
        ("import flyball.cli", {"torch", "numpy", "yaml", "rich"}),
        ("import flyball.errors, flyball.events, flyball.config", {"torch", "numpy", "yaml"}),
        ("import flyball.measure, flyball.data", {"torch", "sklearn"}),
        ("import flyball; flyball.measure.Classification(3)", {"torch"}),
        ("import flyball; flyball.Scanner().scan('')", {"torch", "numpy"}),
    ],
)
def test_what_is_not_needed_is_not_imported(statement: str, absent: set[str]) -> None:
    program = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert absent.isdisjoint(loaded.stdout.split())


def test_the_front_door_lists_what_it_opens() -> None:
    assert set(flyball.__all__) == set(flyball._HOMES)
    assert dir(flyball) == sorted(flyball.__all__)
    for name in flyball.__all__:
        assert getattr(flyball, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Govenor'"):
        flyball.Govenor  # noqa: B018 -- touching it is the test
