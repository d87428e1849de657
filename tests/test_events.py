"""Events and their journal: nothing torn, nothing silent, and training never waits."""

from __future__ import annotations

import copy
import errno
import gc
import json
import logging
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass
from enum import IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InputError, JournalError, RunExistsError, RunFolderError
from flyball.events import (
    EpochFinished,
    Estimate,
    Evaluated,
    Event,
    EventsDropped,
    Journal,
    Record,
    RunFailed,
    RunFinished,
    RunStarted,
    StepSample,
    UnknownEvent,
    event,
    known_events,
    read,
)
from flyball.events.strict_json import decode, encode, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0  # seconds until something that must happen counts as hung
ENOSPC = errno.ENOSPC

EVENTS: list[Event] = [
    RunStarted(
        name="digits",
        seed=7,
        device="cpu",
        versions={"python": "3.11", "numpy": "2.0"},
        config={"learning_rate": 0.1, "layers": [64, 32], "note": None, "$float": "nan"},
    ),
    StepSample(step=3, epoch=0, loss=2.25, learning_rate=0.1, grad_norm=1.5),
    StepSample(step=4, epoch=0, loss=math.inf, learning_rate=0.1),
    EpochFinished(epoch=0, step=9, train_loss=None, seconds=1.5, validation={"accuracy": 0.5}),
    Evaluated(
        split="test",
        measurements={"nll": 0.25, "accuracy": Estimate(value=0.9, low=0.8, high=0.95)},
    ),
    RunFinished(reason="completed", seconds=12.5),
    RunFailed(error="KeyboardInterrupt", message=""),
    EventsDropped(count=2, total=5, reason="the queue was full"),
]


@event("test.everything", version=3)
class Everything(Event):
    """One field of every type."""

    text: str
    flag: bool
    count: int
    maybe: float | None
    names: Sequence[str]
    table: Mapping[str, Mapping[str, int]]
    estimates: Sequence[Estimate | None]
    anything: object = None
    more: Sequence[int] | None = None


def sample(step: int) -> StepSample:
    return StepSample(step=step, epoch=0, loss=1.0 / (step + 1), learning_rate=0.1)


def steps(records: list[Record]) -> list[int]:
    return [record.event.step for record in records if isinstance(record.event, StepSample)]


def check_accounts(records: list[Record]) -> None:
    """Every `seq` is there, or the line before its gap says how many are not."""
    expected = 0
    for record in records:
        assert record.seq == expected
        expected += 1
        if isinstance(record.event, EventsDropped):
            expected += record.event.count


def run_python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Disk:
    """Stands in for `os.write` in a journal's thread: answers as told, then as the real one.

    An answer is the number of bytes to take, or below zero that of the error to raise; when they
    have run out, a broken disk is full.
    """

    def __init__(self, answers: Sequence[int] = (), *, broken: bool = False) -> None:
        self.answers = list(answers)
        self.broken = broken
        self.reached = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.real = os.write

    def __call__(self, descriptor: int, data: memoryview) -> int:
        if not threading.current_thread().name.startswith("flyball-journal"):
            return self.real(descriptor, data)
        self.reached.set()
        assert self.open.wait(PATIENCE)
        answer = self.answers.pop(0) if self.answers else -ENOSPC if self.broken else len(data)
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return self.real(descriptor, data[:answer]) if answer else 0


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    with mock.patch.object(os, "write", made):
        yield made
        made.broken = False
        made.open.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


# -- kinds of events ---------------------------------------------------------------------------


def test_a_kind_is_defined_once() -> None:
    with pytest.raises(TypeError, match=r"`train\.step` is taken by `.*StepSample`"):

        @event("train.step", version=2)
        class Again(Event):
            pass

    assert known_events()["train.step"] is StepSample


def test_an_event_is_a_frozen_slotted_keyword_only_record() -> None:
    finished = RunFinished(reason="completed", seconds=1.0)
    assert (finished.kind, finished.version) == ("run.finished", 1)
    assert not hasattr(finished, "__dict__")
    with pytest.raises(FrozenInstanceError):
        finished.seconds = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        RunFinished("completed", 1.0)  # type: ignore[call-arg]
    assert pickle.loads(pickle.dumps(finished)) == finished  # noqa: S301


def test_a_field_that_no_line_could_hold_is_refused_at_definition() -> None:
    with pytest.raises(TypeError, match="cannot hold a field of type"):

        @event("test.unholdable", version=1)
        class Unholdable(Event):
            when: set[int]

    with pytest.raises(TypeError, match="cannot hold a field of type"):

        @event("test.numbered", version=1)
        class Numbered(Event):
            table: Mapping[int, str]

    with pytest.raises(TypeError, match="cannot have a field `version`"):

        @event("test.reserved", version=1)
        class Reserved(Event):
            version: int  # type: ignore[misc]

    assert not {"test.unholdable", "test.numbered", "test.reserved"} & known_events().keys()


def test_what_the_caller_changes_later_is_not_in_the_event() -> None:
    config: dict[str, object] = {"layers": [1, 2], "nested": {"a": 1}}
    started = RunStarted(name="x", seed=None, device="cpu", versions={}, config=config)
    layers = config["layers"]
    assert isinstance(layers, list)
    layers.append(3)
    config["more"] = 1
    assert started.config == {"layers": [1, 2], "nested": {"a": 1}}

    more = [1]
    everything = Everything(text="", flag=True, count=0, maybe=None, names=(), table={}, estimates=[], more=more)
    more.append(2)
    assert (everything.names, everything.more) == ([], [1])


@pytest.mark.parametrize("given_event", EVENTS, ids=lambda made: made.kind)
def test_every_event_reads_back_as_it_was_written(given_event: Event, path: Path) -> None:
    with Journal(path, run="a", rank=3) as journal:
        journal.write(given_event, step=11)
    (record,) = read(path)
    assert record.event == given_event
    assert (record.run, record.rank, record.seq, record.step) == ("a", 3, 0, 11)


texts = st.text(max_size=8) | st.sampled_from(["$float", "$$float", "$", "nan", '"$'])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_strict_json_gives_back_exactly_what_it_was_given(value: object) -> None:
    text = encode(plain(value))
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert text.isascii()
    assert "\n" not in text
    assert repr(decode(text)) == repr(value)  # NaN equals nothing, but looks like itself


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Everything,
        text=texts,
        flag=st.booleans(),
        count=st.integers(),
        maybe=st.none() | st.floats(allow_nan=False),
        names=st.lists(texts, max_size=3),
        table=st.dictionaries(texts, st.dictionaries(texts, st.integers()), max_size=3),
        estimates=st.lists(
            st.none()
            | st.builds(
                Estimate,
                value=st.floats(allow_nan=False),
                low=st.floats(allow_nan=False),
                high=st.floats(allow_nan=False),
            ),
            max_size=3,
        ),
        anything=st.none() | st.lists(st.dictionaries(texts, st.integers())),
    )
)
def test_fields_of_every_type_read_back_as_they_were_written(given_event: Everything) -> None:
    data = decode(encode(plain(given_event.to_data())))
    assert isinstance(data, dict)
    assert Everything.from_data(data) == given_event


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 2


@dataclass
class Size:
    width: int
    depth: float


def test_numbers_of_numpy_and_paths_and_enumerations_are_written_as_what_they_hold() -> None:
    given_value = {
        "float32": np.float32(0.5),
        "float64": np.float64(0.25),
        "int": np.int64(3),
        "bool": np.bool_(True),  # noqa: FBT003
        "array": np.array(1.5),
        "path": PurePosixPath("a/b"),
        Colour.RED: Colour.RED,
        "level": Level.HIGH,
        "size": Size(2, 0.5),
        "pair": (1, 2),
    }
    assert plain(given_value) == {
        "float32": 0.5,
        "float64": 0.25,
        "int": 3,
        "bool": True,
        "array": 1.5,
        "path": "a/b",
        "red": "red",
        "level": 2,
        "size": {"width": 2, "depth": 0.5},
        "pair": [1, 2],
    }


def test_numbers_of_numpy_fit_fields_of_numbers(path: Path) -> None:
    with Journal(path, run="a") as journal:
        journal.write(
            StepSample(
                step=np.int64(2),  # type: ignore[arg-type]
                epoch=0,
                loss=np.float32("nan"),  # type: ignore[arg-type]
                learning_rate=1,
            ),
        )
    (record,) = read(path)
    assert isinstance(record.event, StepSample)
    assert math.isnan(record.event.loss)
    assert isinstance(record.event.learning_rate, float)
    assert record.step == 2


# -- what cannot be encoded --------------------------------------------------------------------


def holding(value: object) -> RunStarted:
    return RunStarted(name="x", seed=0, device="cpu", versions={}, config={"it": value})


def holding_itself() -> RunStarted:
    value: list[object] = []
    value.append(value)
    return holding(value)


UNFIT: list[tuple[str, Event]] = [
    ("no JSON form", holding(object())),
    ("no JSON form", holding({1, 2})),
    ("no JSON form", holding(np.datetime64("2020-01-01"))),
    ("not a string", holding({1: "a", "1": "b"})),
    (r"shape \(2,\)", holding(np.zeros(2))),
    ("recursion", holding_itself()),
    ("digits", holding(10**5000)),
    ("too large", StepSample(step=1, epoch=0, loss=10**400, learning_rate=0.1)),
    ("`loss` is a string, not a number", StepSample(step=1, epoch=0, loss="1", learning_rate=0.1)),  # type: ignore[arg-type]
    ("`step` is true or false", StepSample(step=True, epoch=0, loss=1.0, learning_rate=0.1)),
    ("lacks the field `high`", Evaluated(split="a", measurements={"b": {"value": 1, "low": 0}})),  # type: ignore[dict-item]
    ("has no kind", Event()),
    ("to_data", "not an event"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("reason", "unfit"), UNFIT, ids=[reason for reason, _ in UNFIT])
def test_what_cannot_be_encoded_is_counted_reported_once_and_marked_in_its_place(
    reason: str, unfit: Event, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal(path, run="a") as journal:
        for step, given_event in enumerate([sample(0), unfit, sample(2), unfit, sample(4)]):
            journal.write(given_event, step=step)
        assert journal.flush(PATIENCE)
        assert journal.dropped == 2
    records = list(read(path))
    assert steps(records) == [0, 2, 4]
    check_accounts(records)
    marks = [record.event for record in records if isinstance(record.event, EventsDropped)]
    assert [(mark.count, mark.total) for mark in marks] == [(1, 1), (1, 2)]
    assert re.search(reason, marks[0].reason)
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]


def test_a_step_that_is_no_integer_costs_its_event_and_nothing_else(path: Path) -> None:
    with Journal(path, run="a") as journal:
        journal.write(sample(0), step=1.5)  # type: ignore[arg-type]
        journal.write(sample(1), step=np.int32(7))  # type: ignore[arg-type]
    lost, kept = read(path)
    assert isinstance(lost.event, EventsDropped)
    assert (lost.step, kept.step) == (None, 7)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_is_loud_and_training_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class OddError(Exception):
        pass

    class Odd:
        def item(self) -> NoReturn:
            raise OddError

    with Journal(path, run="a") as journal:
        journal.write(sample(0))
        assert journal.flush(PATIENCE)
        journal.write(holding(Odd()))
        assert not journal.flush(PATIENCE)
        journal.write(sample(1))
        assert not journal.flush()
        assert journal.dropped == 2
    assert "last 1 events are lost" in caplog.text
    assert steps(list(read(path))) == [0]


# -- the journal as a file ---------------------------------------------------------------------


def test_a_journal_never_overwrites(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(RunExistsError, match=r"events\.jsonl` exists.*choose another run folder"):
        Journal(path, run="a")
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named_with_its_remedy(path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"No such file.*create it, or choose another"):
        Journal(path.parent / "missing" / path.name, run="a")
    path.write_text("")
    with pytest.raises(RunFolderError, match="Not a directory"):
        Journal(path / "below", run="a")
    refusal = PermissionError(errno.EACCES, "Permission denied")
    with (
        mock.patch.object(os, "open", side_effect=refusal),
        pytest.raises(RunFolderError, match=re.escape(f"`{path.parent}` (Permission denied)")),
    ):
        Journal(path, run="a")


def test_arguments_out_of_range_are_refused_before_a_file_is_made(path: Path) -> None:
    makers: dict[str, Callable[[], Journal]] = {
        "run": lambda: Journal(path, run=""),
        "rank": lambda: Journal(path, run="a", rank=-1),
        "capacity": lambda: Journal(path, run="a", capacity=0),
        "flush_every": lambda: Journal(path, run="a", flush_every=math.nan),
    }
    for name, make in makers.items():
        with pytest.raises(InputError, match=f"^`{name}` is"):
            make()
    assert not path.exists()


def test_closing_is_idempotent_and_writing_afterwards_is_refused(path: Path) -> None:
    journal = Journal(path, run="a")
    journal.write(sample(0))
    states = [journal.closed]
    for _ in range(2):
        journal.close()
        states.append(journal.closed)
    assert states == [False, True, True]
    assert journal.flush()
    with pytest.raises(JournalError, match="is closed"):
        journal.write(sample(1))
    assert steps(list(read(path))) == [0]


def test_an_exception_in_the_block_closes_the_journal_all_the_same(path: Path) -> None:
    def fail() -> NoReturn:
        with Journal(path, run="a") as journal:
            journal.write(sample(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert steps(list(read(path))) == [0]


def test_times_are_taken_when_an_event_is_written_and_never_run_backwards(path: Path) -> None:
    with Journal(path, run="a", flush_every=60.0) as journal:
        for step in range(100):
            journal.write(sample(step))
    instants = [record.monotonic for record in read(path)]
    assert instants == sorted(instants)
    assert len(set(instants)) > 1


def test_threads_share_a_journal_and_each_keeps_its_order(path: Path) -> None:
    def emit(journal: Journal, epoch: int) -> None:
        for step in range(300):
            journal.write(StepSample(step=step, epoch=epoch, loss=0.0, learning_rate=0.1))

    with Journal(path, run="a", flush_every=0.001) as journal:
        threads = [threading.Thread(target=emit, args=(journal, epoch)) for epoch in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    records = list(read(path))
    check_accounts(records)
    samples = [record.event for record in records if isinstance(record.event, StepSample)]
    for epoch in range(4):
        assert [made.step for made in samples if made.epoch == epoch] == list(range(300))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_signal_handler_may_write_while_a_write_is_under_way(path: Path) -> None:
    handled = 0

    with Journal(path, run="a", capacity=10_000_000, flush_every=0.001) as journal:

        def handle(*_: object) -> None:
            nonlocal handled
            handled += 1
            journal.write(RunFailed(error="SIGALRM", message=str(handled)))
            journal.flush(0.0)

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        written = 0
        try:
            while handled < 30:
                journal.write(sample(written))
                written += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
    records = list(read(path))
    assert steps(records) == list(range(written))
    assert len(records) == written + handled


def test_a_journal_is_not_pickled_or_copied(path: Path) -> None:
    with Journal(path, run="a") as journal:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                attempt(journal)


# -- a full queue ------------------------------------------------------------------------------


def test_a_full_queue_drops_and_counts_and_the_file_says_so_in_its_place(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.open.clear()
    journal = Journal(path, run="a", capacity=2)
    journal.write(sample(0))
    assert disk.reached.wait(PATIENCE)  # the thread holds event 0 and waits for the disk
    for step in range(1, 6):
        journal.write(sample(step))
    assert journal.dropped == 3
    disk.open.set()
    assert journal.flush(PATIENCE)
    journal.write(sample(6))
    journal.close()
    records = list(read(path))
    assert steps(records) == [0, 1, 2, 6]
    assert records[3].event == EventsDropped(count=3, total=3, reason="the queue was full")
    check_accounts(records)
    assert "3 events were dropped" in caplog.text


@settings(max_examples=25, deadline=None)
@given(capacity=st.integers(1, 8), bursts=st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_every_event_is_in_the_file_or_in_its_counts(capacity: int, bursts: list[int]) -> None:
    logging.getLogger("flyball.events").disabled = True
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "events.jsonl")
            with Journal(path, run="a", capacity=capacity) as journal:
                for burst in bursts:
                    for step in range(burst):
                        journal.write(sample(step))
                    assert journal.flush(PATIENCE)
            records = list(read(path))
    finally:
        logging.getLogger("flyball.events").disabled = False
    check_accounts(records)
    assert len(steps(records)) + journal.dropped == sum(bursts)
    marks = [record.event for record in records if isinstance(record.event, EventsDropped)]
    assert sum(mark.count for mark in marks) == journal.dropped


# -- a disk that refuses -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(
        st.integers(0, 400) | st.sampled_from([-errno.ENOSPC, -errno.EIO, -errno.EINTR]),
        max_size=12,
    ),
    bursts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_partial_and_failing_writes_lose_repeat_and_tear_nothing(answers: list[int], bursts: list[int]) -> None:
    logging.getLogger("flyball.events").disabled = True
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "events.jsonl")
            with mock.patch.object(os, "write", Disk(answers)):
                step = 0
                with Journal(path, run="a", flush_every=0.001) as journal:
                    for burst in bursts:
                        for _ in range(burst):
                            journal.write(sample(step))
                            step += 1
                        journal.flush()
                    assert journal.flush(PATIENCE)
                    assert journal.error is None
            reader = read(path)
            records = list(reader)
    finally:
        logging.getLogger("flyball.events").disabled = False
    assert reader.torn == 0
    assert steps(records) == list(range(step))
    check_accounts(records)


def test_a_full_disk_is_loud_once_an_episode_and_the_file_goes_on_where_it_stopped(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(path, run="a")
    disk.answers, disk.broken = [100], True
    journal.write(sample(0))
    assert not journal.flush()
    error = journal.error
    assert error is not None
    assert error.errno == ENOSPC
    assert path.stat().st_size == 100
    journal.write(sample(1))
    disk.broken = False
    assert journal.flush(PATIENCE)  # a flush with a timeout outlives the episode
    assert journal.error is None
    disk.answers = [-ENOSPC]
    journal.write(sample(2))
    assert journal.flush(PATIENCE)
    journal.close()
    levels = [entry.levelno for entry in caplog.records]
    assert levels == [logging.ERROR, logging.WARNING] * 2
    message = caplog.records[0].getMessage()
    assert str(path) in message
    assert "No space left" in message
    assert "training goes on" in message
    reader = read(path)
    assert steps(list(reader)) == [0, 1, 2]
    assert reader.torn == 0


def test_memory_is_bounded_while_the_disk_is_full(path: Path, disk: Disk) -> None:
    disk.broken = True
    journal = Journal(path, run="a", capacity=5)
    journal.write(sample(0))
    assert not journal.flush()
    for step in range(1, 100):
        journal.write(sample(step))
    assert journal.dropped == 94
    disk.broken = False
    assert journal.flush(PATIENCE)
    journal.close()
    records = list(read(path))
    assert steps(records) == [0, 1, 2, 3, 4, 5]
    check_accounts(records)


def test_closing_on_a_full_disk_ends_and_says_how_many_events_are_lost(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.open.clear()
    journal = Journal(path, run="a", capacity=4, flush_every=60.0)
    for step in range(2):
        journal.write(sample(step))  # the second wakes the thread, which takes both
    assert disk.reached.wait(PATIENCE)
    journal.write(holding(object()))
    for step in range(3, 8):
        journal.write(sample(step))  # three fit beside the one that has no JSON form, two do not
    disk.answers, disk.broken = [250], True  # the first line, and a piece of the second
    disk.open.set()
    assert not journal.flush()
    assert journal.dropped == 2
    journal.close(timeout=0.0)
    assert "its last 7 events are lost ([Errno 28] No space left on device)" in caplog.text
    assert journal.dropped == 7
    assert not journal.flush()
    reader = read(path)
    assert steps(list(reader)) == [0]
    assert reader.torn is not None
    assert reader.torn > 0


def test_closing_gives_a_disk_the_time_to_recover(path: Path, disk: Disk) -> None:
    journal = Journal(path, run="a", flush_every=0.001)
    disk.answers = [30, -ENOSPC, -errno.EIO, 40, -ENOSPC]
    journal.write(sample(0))
    journal.close(timeout=PATIENCE)
    assert steps(list(read(path))) == [0]
    assert journal.dropped == 0


def test_a_log_handler_may_flush_and_close_the_journal_that_it_hears_of(path: Path, disk: Disk) -> None:
    answers = []

    class Impatient(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            if entry.levelno == logging.ERROR:
                answers.append(journal.flush())
                journal.close()

    handler = Impatient()
    log = logging.getLogger("flyball.events")
    log.addHandler(handler)
    try:
        journal = Journal(path, run="a")
        disk.answers = [-ENOSPC]
        journal.write(sample(0))
        assert disk.reached.wait(PATIENCE)
        journal.close()
    finally:
        log.removeHandler(handler)
    assert answers == [False]
    assert steps(list(read(path))) == [0]


def test_closing_waits_no_longer_than_told_for_a_disk_that_does_not_answer(
    path: Path, disk: Disk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyball.events.journal._JOIN_GRACE", 0.0)
    disk.open.clear()
    journal = Journal(path, run="a", capacity=2)
    journal.write(sample(0))
    assert disk.reached.wait(PATIENCE)
    journal.close(timeout=0.0)
    assert "its disk does not answer" in caplog.text
    disk.open.set()
    assert journal.flush(PATIENCE)
    journal.close()
    assert steps(list(read(path))) == [0]


def test_a_failing_sync_is_loud(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mock.patch.object(os, "fsync", side_effect=OSError(errno.EIO, "Input/output error")):
        Journal(path, run="a").close()
    assert "may not outlive a power cut" in caplog.text


LIMITED = """
import resource, signal, sys
from flyball.events import Journal, RunFinished

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
journal = Journal(sys.argv[1], run="a")
for step in range(40):
    journal.write(RunFinished(reason="completed", seconds=step), step=step)
assert not journal.flush()
assert journal.error is not None
size = journal.path.stat().st_size
assert size == 1000, size
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert journal.flush(30)
assert journal.error is None and journal.dropped == 0
journal.close()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on file sizes")
def test_a_real_limit_on_the_file_is_survived_without_a_torn_line(path: Path) -> None:
    done = run_python(LIMITED, path)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stderr  # without logging configured, too
    reader = read(path)
    assert [record.step for record in reader] == list(range(40))
    assert reader.torn == 0


# -- the end of a process ----------------------------------------------------------------------

UNCLOSED = """
import sys
from flyball.events import Journal, RunFinished

journal = Journal(sys.argv[1], run="a", flush_every=3600.0)
for step in range(500):
    journal.write(RunFinished(reason="completed", seconds=step), step=step)
if sys.argv[2] == "error":
    raise RuntimeError("on purpose")
"""


@pytest.mark.parametrize("how", ["plain", "error"])
def test_a_journal_that_was_never_closed_is_complete_after_the_interpreter_ends(how: str, path: Path) -> None:
    done = run_python(UNCLOSED, path, how)
    assert done.returncode == (how == "error"), done.stderr
    assert [record.step for record in read(path)] == list(range(500))


def test_a_journal_that_nobody_holds_is_closed_complete(path: Path) -> None:
    journal = Journal(path, run="a", flush_every=3600.0)
    journal.write(sample(0))
    thread = journal._writer.thread
    del journal
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert steps(list(read(path))) == [0]


ENDLESS = """
import itertools, sys
from flyball.events import Journal, RunFinished

journal = Journal(sys.argv[1], run="a", flush_every=0.0005)
for step in itertools.count():
    journal.write(RunFinished(reason="completed", seconds=step), step=step)
    if step == 2000:
        journal.flush()
        print("going", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_leaves_a_journal_that_reads_and_accounts_for_every_event(
    path: Path,
) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        process.kill()
        assert process.wait(PATIENCE) == -signal.SIGKILL
    reader = read(path)
    records = list(reader)
    check_accounts(records)
    assert len(records) > 2000
    whole = path.read_bytes()
    assert reader.torn == len(whole) - whole.rfind(b"\n") - 1


FORKED = """
import os, sys, threading
from flyball.errors import JournalError
from flyball.events import Journal, RunFinished

def finished(step):
    return RunFinished(reason="completed", seconds=step)

journal = Journal(sys.argv[1], run="a", flush_every=3600.0)
journal.write(finished(0))

held, release = threading.Event(), threading.Event()

def hold():
    with journal._writer.lock:
        held.set()
        release.wait(30)

thread = threading.Thread(target=hold)
if sys.argv[2] == "locked":
    thread.start()
    held.wait(30)
child = os.fork()
if child == 0:
    for refused in (lambda: journal.write(finished(1)), journal.flush):
        try:
            refused()
        except JournalError as error:
            assert "open another journal here" in str(error), error
        else:
            os._exit(3)
    assert journal.closed and journal.dropped == 0
    journal.close()
    del journal
    with Journal(sys.argv[1] + ".child", run="b") as own:
        own.write(finished(2))
    sys.exit(0)
release.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
if thread.ident is not None:
    thread.join(30)
journal.write(finished(3))
journal.close()
grandchild = os.fork()
if grandchild == 0:
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["idle", "locked"])
def test_a_forked_child_is_refused_and_leaves_the_file_alone(how: str, path: Path) -> None:
    done = run_python(FORKED, path, how)
    assert (done.returncode, done.stderr) == (0, "")
    records = list(read(path))
    assert [record.event for record in records] == [
        RunFinished(reason="completed", seconds=0.0),
        RunFinished(reason="completed", seconds=3.0),
    ]
    check_accounts(records)
    (own,) = read(f"{path}.child")
    assert own.run == "b"


# -- reading -----------------------------------------------------------------------------------

LINE: dict[str, object] = {
    "kind": "run.finished",
    "version": 1,
    "run": "a",
    "rank": 0,
    "seq": 0,
    "step": None,
    "wall": 1.5,
    "monotonic": 2.5,
    "data": {"reason": "completed", "seconds": 1.0},
}


def line(**changes: object) -> bytes:
    return json.dumps({**LINE, **changes}).encode() + b"\n"


def test_a_journal_cut_at_any_byte_yields_exactly_its_complete_lines(path: Path) -> None:
    with Journal(path, run="a") as journal:
        for given_event in EVENTS:
            journal.write(given_event)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == len(EVENTS)
    cut_path = path.with_name("cut.jsonl")
    for size in range(len(whole) + 1):
        cut_path.write_bytes(whole[:size])
        complete = sum(end <= size for end in ends)
        reader = read(cut_path)
        assert reader.torn is None
        assert [record.event for record in reader] == EVENTS[:complete]
        assert reader.torn == size - ([0, *ends][complete])


def test_a_journal_cut_at_any_byte_is_gone_on_with_as_if_it_had_ended_there(path: Path) -> None:
    with Journal(path, run="a", capacity=2, flush_every=60.0) as journal:
        for given_event in EVENTS[:5]:
            journal.write(given_event)  # more than it holds: what is missing is counted
    whole = path.read_bytes()
    assert b"telemetry.dropped" in whole
    for size in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:size])
        before = list(read(path))
        with Journal(path, run="b", go_on=True) as journal:
            journal.write(EVENTS[0])
        records = list(read(path))
        assert records[:-1] == before
        assert (records[-1].event, records[-1].run) == (EVENTS[0], "b")
        check_accounts(records)


def test_a_journal_that_does_not_exist_is_begun(path: Path) -> None:
    with Journal(path, run="a", go_on=True) as journal:
        journal.write(EVENTS[0])
    assert [record.seq for record in read(path)] == [0]


def test_a_journal_whose_last_line_is_damaged_is_not_gone_on_with(path: Path) -> None:
    path.write_bytes(line(seq=0) + b"damaged\n")
    with pytest.raises(JournalError, match="cannot be gone on with, as its last line is not an event"):
        Journal(path, run="a", go_on=True)
    assert path.read_bytes().endswith(b"damaged\n")


def test_reading_is_lazy_and_repeatable(path: Path) -> None:
    path.write_bytes(line(seq=0) + b"damaged\n")
    reader = read(path)
    records = iter(reader)
    assert next(records).seq == 0
    for _ in range(2):
        with pytest.raises(JournalError, match=r"events\.jsonl:2"):
            list(reader)
        assert reader.torn is None


def test_an_empty_journal_has_no_records(path: Path) -> None:
    Journal(path, run="a").close()
    reader = read(path)
    assert list(reader) == []
    assert reader.torn == 0


def test_kinds_and_versions_from_elsewhere_are_kept_not_refused(path: Path) -> None:
    path.write_bytes(
        line(kind="from.tomorrow", data={"x": {"$float": "-inf"}})
        + line(seq=1, version=2)
        + line(seq=2, later="a key that a later envelope has")
    )
    assert [record.event for record in read(path)] == [
        UnknownEvent("from.tomorrow", 1, {"x": -math.inf}),
        UnknownEvent("run.finished", 2, {"reason": "completed", "seconds": 1.0}),
        RunFinished(reason="completed", seconds=1.0),
    ]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"\n", "Expecting value"),
        (b"[1]\n", "not an object"),
        (b"\xff\n", "utf-8"),
        (b"[" * 100_000 + b"\n", "recursion"),
        (line()[:-3] + b"\n", "delimiter"),
        (line(data={"reason": "completed"}), "`run.finished` lacks the field `seconds`"),
        (line(data={"reason": "completed", "seconds": "1"}), "`seconds` is a string, not a number"),
        (line(data={"reason": None, "seconds": 1.0}), "`reason` is null, not a string"),
        (line(data={"reason": "a", "seconds": 1.0, "b": 1}), "field `b` that is not known"),
        (line(data=None), "object `data`"),
        (line(seq="0"), "`seq` is a string, not an integer"),
        (line(step=0.5), "`step` is a number, not an integer; `step` is a number, not null"),
        (json.dumps({"kind": "a"}).encode() + b"\n", "lacks `version`"),
        (line(data={"reason": "a", "seconds": math.nan}), "`NaN` is not JSON"),
        (line(data={"reason": "a", "seconds": {"$float": "1"}}), "none of `nan`, `inf`"),
        (line(data={"reason": "a", "seconds": {"$int": "1"}}), r"`\$int` is reserved"),
        (
            line(kind="train.epoch", data={
                "epoch": 0, "step": 0, "train_loss": None, "seconds": 1.0,
                "validation": {"accuracy": "high"},
            }),
            r"`validation\.accuracy` is a string",
        ),
        (
            line(kind="test.everything", version=3, data={
                "text": "", "flag": True, "count": 0, "maybe": 0.5, "names": ["a", 1],
                "table": {}, "estimates": [], "anything": None, "more": None,
            }),
            r"`names\[1\]` is an integer, not a string",
        ),
        (
            line(kind="test.everything", version=3, data={
                "text": "", "flag": True, "count": 0, "maybe": 0.5, "names": {},
                "table": {}, "estimates": [], "anything": None, "more": None,
            }),
            "`names` is an object, not a list",
        ),
        (
            line(kind="test.everything", version=3, data={
                "text": "", "flag": True, "count": 0, "maybe": 0.5, "names": [],
                "table": [], "estimates": [], "anything": None, "more": None,
            }),
            "`table` is a list, not an object",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", [b"", line()], ids=["last", "between"])
def test_a_damaged_line_is_an_error_that_names_file_and_line(
    damaged: bytes,
    reason: str,
    after: bytes,
    path: Path,
) -> None:
    path.write_bytes(line() + damaged + after)
    with pytest.raises(JournalError, match=rf"`{re.escape(str(path))}:2` is not an event: .*{reason}"):
        list(read(path))


def test_a_missing_journal_is_an_ordinary_missing_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(path))


def test_importing_events_imports_neither_numpy_nor_torch() -> None:
    code = "import sys, flyball.events; sys.exit(bool({'numpy', 'torch'} & sys.modules.keys()))"
    assert run_python(code).returncode == 0
