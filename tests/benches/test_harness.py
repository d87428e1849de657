"""The bench harness: no time without an equal answer, rivals in turns, results with their origin."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benches import harness
from benches.__main__ import NAMES
from benches.faults import report
from benches.harness import Contest


def equal(one: int, two: int) -> None:
    assert one == two


def test_a_rival_with_another_answer_is_never_timed() -> None:
    timed: list[str] = []

    def timer(work: Callable[[], object]) -> float:
        timed.append("")
        return float(bool(work()))

    with pytest.raises(AssertionError):
        harness.hold(Contest("sum", {"ours": lambda: 1, "theirs": lambda: 2}, equal, timer=timer), rounds=3)
    assert timed == []


def test_contestants_take_turns_and_the_ratio_is_taken_within_a_turn() -> None:
    order: list[str] = []
    drift = iter(range(1, 1000))

    def work(name: str) -> int:
        order.append(name)
        return 1

    def timer(call: Callable[[], object]) -> float:
        call()
        # A machine that slows down all the time: only a ratio within a turn survives it.
        turn = (next(drift) + 1) // 2
        return turn * (3.0 if order[-1] == "theirs" else 1.0)

    contest = Contest("sum", {"ours": lambda: work("ours"), "theirs": lambda: work("theirs")}, equal, timer=timer)
    (row,) = harness.hold(contest, rounds=4)
    assert order[4:] == ["ours", "theirs", "theirs", "ours"] * 2
    assert (row.ratio, row.low, row.high) == (3.0, 3.0, 3.0)


def test_cpu_time_is_of_one_call_from_as_many_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0

    def work() -> None:
        nonlocal clock
        clock += 0.25

    monkeypatch.setattr(time, "process_time", lambda: clock)
    assert harness.cpu_seconds(work, least=10.0) == 0.25
    assert clock >= 10.0


def test_results_are_written_with_versions_and_machine_and_shown_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: written by `make bench` -->\nold\n<!-- end of results -->\nafter\n")
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(harness, "README", readme)
    row = harness.Row("sum of 3", "flyball", "theirs", 5.1234, 4.9, 5.4, 25)
    path = harness.record("sums", [row], packages=("numpy",))
    harness.render()
    harness.render()
    written = json.loads(path.read_text())
    assert written["versions"].keys() == {"python", "flyball", "numpy"}
    assert written["machine"] == harness.machine()
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("| sums | sum of 3 | theirs | **5.12** | 4.9 to 5.4 |") == 1
    assert "old" not in text


def test_the_table_in_the_readme_is_the_one_of_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = harness.README.read_text()
    copy = tmp_path / "README.md"
    copy.write_text(committed)
    monkeypatch.setattr(harness, "README", copy)
    harness.render()
    assert copy.read_text() == committed
    harness.fill("faults", report.readme(json.loads((harness.RESULTS / "faults.json").read_text())))
    assert copy.read_text() == committed
    assert {path.stem for path in harness.RESULTS.glob("*.json")} == {*NAMES, "closed", "faults"}
