"""A run is one story: every rank, every attempt, from a folder whose last line may be torn; and it fits into Arrow."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import InputError, JournalError
from flyball.events import Event, Journal, RunStarted, StepSample, UnknownEvent
from flyball.govern.records import VerdictGiven
from flyball.observe import Seam, read
from flyball.train.records import RunResumed

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def step(number: int, loss: float = 1.0, norm: float | None = None) -> StepSample:
    return StepSample(step=number, epoch=1, loss=loss, learning_rate=0.1, grad_norm=norm)


def spoken(number: int) -> Event:
    return VerdictGiven(step=number, level="ANOMALY", action="skip", reasons=["data"], text="", position=None)


def resumed(after: int) -> Event:
    return RunResumed(step=after, epoch=0, checkpoint="c", passed_over=(), accepted=(), versions={})


def write(path: Path, events: list[Event], rank: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Journal(path, run="r", rank=rank) as journal:
        for event in events:
            journal.write(event)
    return path


def steps(records: object) -> list[int]:
    return [one.event.step for one in records if isinstance(one.event, StepSample)]  # type: ignore[attr-defined]


def test_a_resumed_run_is_read_as_the_run_that_led_to_the_last_weights(tmp_path: Path) -> None:
    events = [step(1), spoken(1), step(2), step(3), resumed(1), step(2), resumed(2), step(3)]
    write(tmp_path / "events.jsonl", events)
    found = list(read(tmp_path))
    assert steps(found) == [1, 2, 3]
    assert [one.step for one in found if isinstance(one.event, VerdictGiven)] == [], "a governor counts from 0"
    assert [isinstance(one.event, RunResumed) for one in found].count(True) == 2, "the seams are there to be seen"
    assert steps(read(tmp_path, repeated=True)) == [1, 2, 3, 2, 3]
    assert read(tmp_path).seams() == [Seam(rank=0, seq=4, step=1), Seam(rank=0, seq=6, step=2)]


def test_all_ranks_are_read_in_the_order_of_time_or_one_by_one(tmp_path: Path) -> None:
    for rank, folder in ((0, tmp_path), (1, tmp_path / "ranks" / "1"), (10, tmp_path / "ranks" / "10")):
        write(folder / "events.jsonl", [step(n) for n in range(3)], rank)
    found = list(read(tmp_path))
    assert sorted(one.rank for one in found) == [0, 0, 0, 1, 1, 1, 10, 10, 10]
    assert [one.wall for one in found] == sorted(one.wall for one in found)
    assert {one.rank for one in read(tmp_path, ranks=[10])} == {10}
    with pytest.raises(InputError, match=r"has no journal of rank 2: it has those of \[0, 1, 10\]"):
        read(tmp_path, ranks=[1, 2])


def test_a_torn_last_line_is_left_out_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [step(0), step(1)])
    with path.open("ab") as torn:
        torn.write(b'{"kind":')
    records = read(path)
    assert read(path).torn is None, "nobody has come to the end yet"
    assert steps(records) == [0, 1]
    assert records.torn == 8
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    assert records.to_arrow()["train.step"].num_rows == 2


def test_a_folder_without_a_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no `events.jsonl`: name the folder of a run"):
        read(tmp_path)


@given(st.lists(st.tuples(st.floats(), st.none() | st.floats()), max_size=12), st.integers(1, 2000))
def test_arrow_holds_exactly_the_numbers_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[tuple[float, float | None]], piece: int
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from flyball.observe import tables as module

    folder = tmp_path_factory.mktemp("run")
    write(folder / "events.jsonl", [step(n, loss, norm) for n, (loss, norm) in enumerate(numbers)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", piece)  # wherever the file is cut
        tables = read(folder).to_arrow()
    rows = tables["train.step"].to_pylist() if numbers else []
    assert len(rows) == len(numbers)
    for row, (loss, norm) in zip(rows, numbers, strict=True):
        assert repr(row["loss"]) == repr(loss)
        assert repr(row["grad_norm"]) == repr(norm)
    assert [row["step"] for row in rows] == list(range(len(numbers)))
    assert [row["seq"] for row in rows] == list(range(len(numbers)))


def test_arrow_keeps_every_kind_and_every_version_with_parts_as_json(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    started = RunStarted(name="a", seed=None, device="cpu", versions={"torch": "9"}, config={"rate": math.inf})
    path = write(tmp_path / "events.jsonl", [started, step(0), spoken(0)])
    with path.open("a") as more:
        more.write('{"kind":"train.step","version":99,"run":"r","rank":0,"seq":3,"step":1,"wall":1.0,"monotonic":1.0,'
                   '"data":{"loss":1.5,"run":"mine"}}\n')  # fmt: skip
    assert isinstance([*read(path)][-1].event, UnknownEvent)
    tables = read(path).to_arrow()
    assert set(tables) == {"run.started", "train.step", "vitals.spoken"}
    assert tables["run.started"].to_pylist()[0]["config"] == '{"rate":{"$float":"inf"}}'
    assert tables["vitals.spoken"].to_pylist()[0]["reasons"] == '["data"]'
    assert [row["loss"] for row in tables["train.step"].to_pylist()] == [1.0, 1.5]
    assert tables["train.step"].to_pylist()[1]["run_"] == "mine", "a field that the envelope has too stands apart"


def test_a_damaged_line_is_an_error_in_arrow_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = write(tmp_path / "events.jsonl", [step(0)])
    with path.open("a") as damaged:
        damaged.write("no event\n")
    with pytest.raises(JournalError, match="is not an event"):
        read(path).to_arrow()


def test_a_terminal_that_goes_away_leaves_a_journal_that_reads(tmp_path: Path) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # a test run may ignore it
        "from flyball.events import Journal, StepSample\n"
        "journal = Journal(sys.argv[1], run='r')\n"
        "for n in range(200): journal.write(StepSample(step=n, epoch=1, loss=1.0, learning_rate=0.1))\n"
        "assert journal.flush(30); print('written', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "events.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait() == -signal.SIGHUP
    assert steps(read(tmp_path)) == list(range(200))
