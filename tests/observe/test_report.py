"""The story of a run and the page that tells it: nothing lost, nothing invented, nothing fetched."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball import cli
from flyball.errors import InputError, JournalError, WriteError
from flyball.events import (
    EpochFinished,
    Estimate,
    Evaluated,
    Event,
    Journal,
    RunFailed,
    RunFinished,
    RunStarted,
    StepSample,
)
from flyball.govern.records import RolledBack, VerdictGiven
from flyball.observe import read_story
from flyball.observe.html import page, write_report
from flyball.observe.story import Fate
from flyball.observe.svg import Chart, Line, Mark, thinned
from flyball.train.records import RunResumed

EVIL = "<script>alert('&amp;')</script>"


def step(number: int, loss: float) -> Event:
    return StepSample(step=number, epoch=1, loss=loss, learning_rate=0.1)


def spoken(number: int, action: str, *reasons: str) -> Event:
    text = f"step {number}: ANOMALY the state was asked; loss: 9 is 8 scales above {EVIL}; the batch is left out"
    return VerdictGiven(step=number, level="ANOMALY", action=action, reasons=reasons, text=text, position=None)


def back(at: int, to: int) -> Event:
    return RolledBack(
        step=at, reason="damage", snapshot=1, taken_at=to, back_to=to, attempt=1, learning_rate_factor=1.0, seconds=0.1
    )


def resumed(after: int) -> Event:
    return RunResumed(step=after, epoch=0, checkpoint="c", passed_over=(), accepted=(), versions={})


START = RunStarted(
    name=EVIL, seed=7, device="cpu", versions={"torch": "9"}, config={"rate": 0.5, "deep": {"name": EVIL}}
)
RUN: list[Event] = [
    START,
    step(0, 2.0),
    spoken(1, "skip", "loss", "asking"),
    step(1, math.nan),
    spoken(1, "skip", "data"),
    step(2, 1.0),
    step(3, 1.1),
    spoken(4, "rollback", "state"),
    back(at=5, to=2),
    step(4, 5.0),
    step(5, 0.9),
    EpochFinished(epoch=1, step=5, train_loss=1.0, seconds=1.0, validation={"accuracy": 0.5, "loss": 1.0}),
    Evaluated(split="test", measurements={"accuracy": Estimate(value=0.9, low=0.8, high=0.95), "NLL": 0.3}),
    RunFinished(reason="completed", seconds=3.0),
]


def run(folder: Path, events: list[Event], name: str = "run") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "events.jsonl", run=name) as journal:
        for event in events:
            journal.write(event)
    return folder


def test_every_step_has_the_fate_that_the_governor_gave_it(tmp_path: Path) -> None:
    story = read_story(run(tmp_path, RUN))
    assert dict(zip(story.step.tolist(), story.fate.tolist(), strict=True)) == {
        0: Fate.KEPT,
        1: Fate.LEFT_OUT,
        2: Fate.ABANDONED,
        3: Fate.ABANDONED,
        4: Fate.LEFT_OUT,
        5: Fate.KEPT,
    }
    assert [one.what for one in story.happenings] == ["skip", "watch", "rollback"]
    assert (story.left_out, story.steps_lost, story.outcome) == (2, 3, "completed")


def test_a_loop_that_counts_from_one_is_told_in_its_own_numbers(tmp_path: Path) -> None:
    events = [step(1, 2.0), spoken(1, "skip", "data"), step(2, 9.0), step(3, 1.0)]
    story = read_story(run(tmp_path, events))
    assert story.fate.tolist() == [Fate.KEPT, Fate.LEFT_OUT, Fate.KEPT]
    assert story.happenings[0].step == 2


def test_steps_that_were_made_again_after_a_resume_count_once(tmp_path: Path) -> None:
    events = [
        START,
        *(step(n, 1.0) for n in (1, 2, 3)),
        resumed(1),
        step(2, 1.0),
        resumed(1),
        step(2, 1.0),
        step(3, 1.0),
    ]
    story = read_story(run(tmp_path, events))
    assert story.step[story.fate == Fate.KEPT].tolist() == [1, 2, 3]
    assert [one.cost for one in story.happenings] == ["2 steps made again", "1 steps made again"]
    assert story.outcome.startswith("no end in the journal")


def test_what_was_settled_of_a_step_is_told_once(tmp_path: Path) -> None:
    story = read_story(run(tmp_path, RUN))
    assert [one.event.reasons for one in story.happenings if one.what == "skip"] == [["data"]]


class Page(HTMLParser):
    """What a browser would do with a page: which tags are open, and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{name}={value}" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag not in {"meta", "line", "path", "circle", "rect", "link", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"line", "path", "circle", "rect"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_whole_fetches_nothing_and_runs_nothing_that_a_journal_says(tmp_path: Path) -> None:
    both = [read_story(run(tmp_path / name, RUN, name)) for name in ("a", "b")]
    for stories in (both, both[:1]):
        text = page(stories)
        found = Page(text)
        assert found.open == []
        assert found.fetched == []
        assert found.tags.count("script") == 1
        assert "url(" not in text and "@import" not in text
        assert EVIL in found.words


def test_the_page_says_what_happened_with_its_cost_and_the_intervals(tmp_path: Path) -> None:
    words = " ".join(Page(page([read_story(run(tmp_path, RUN))])).words.split())
    assert "left 2 batches out and went back once and lost 3 steps" in words
    assert "rolled back to step 2 because of damage" in words
    assert "0.8 to 0.95" in words
    assert "back to 2" in words, "the picture names the way back"


@pytest.mark.parametrize("length", range(1, len(RUN)))
def test_a_run_that_was_cut_anywhere_has_a_page(tmp_path: Path, length: int) -> None:
    folder = run(tmp_path, RUN[:length])
    with (folder / "events.jsonl").open("a") as torn:
        torn.write('{"kind": "train.st')
    words = Page(page([read_story(folder)])).words
    assert "The journal has no end" in words
    assert "18 bytes of a line that was cut short" in words


def test_a_journal_that_the_disk_refused_whole_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    words = Page(page([read_story(tmp_path)])).words
    assert "The journal holds no step" in words
    assert "0 events of 1 process" in words


def test_a_failed_run_says_why_and_a_dead_model_is_no_number(tmp_path: Path) -> None:
    events = [START, step(0, 1.0), step(1, math.nan), Evaluated(split="test", measurements={}),
              RunFailed(error="GovernorExhausted", message="3 rollbacks did not help")]  # fmt: skip
    words = Page(page([read_story(run(tmp_path, events))])).words
    assert "The run failed: GovernorExhausted, 3 rollbacks did not help" in words
    assert "1 step that counted had a loss that is no number" in words
    assert "What the model says is not a number" in words


def test_runs_beside_each_other_show_what_differs(tmp_path: Path) -> None:
    other = [RunStarted(name="b", seed=8, device="cpu", versions={}, config={"rate": 0.25, "deep": {"name": EVIL}})]
    stories = [read_story(run(tmp_path / "a", RUN)), read_story(run(tmp_path / "b", other + RUN[1:]))]
    text = page(stories)
    differs = text.split("What differs")[1].split("</table>")[0]
    assert re.findall(r"<td>(.*?)</td>", differs) == ["rate", "0.5", "0.25", "seed", "7", "8"]


def test_an_old_report_stays_where_the_new_one_cannot_be_made(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", RUN)
    output = write_report([folder], tmp_path / "report.html")
    before = output.read_bytes()
    with (folder / "events.jsonl").open("a") as damaged:
        damaged.write("no event\n")
    with pytest.raises(JournalError, match=r"events.jsonl:15"):
        write_report([folder], output)
    assert output.read_bytes() == before
    with pytest.raises(InputError, match="name at least one run"):
        write_report([], output)
    with pytest.raises(WriteError, match="cannot be written"):
        write_report([run(tmp_path / "b", RUN)], output / "a file is no folder.html")


def test_the_command_writes_into_the_run_folder_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "a", RUN)
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert cli.main(["report", str(tmp_path / "nowhere"), "-o", str(tmp_path / "r.html")]) == 1
    assert "name the folder of a run" in capsys.readouterr().err


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), min_size=1, max_size=3000),
    st.integers(2, 40),
)
def test_thinning_loses_no_extreme_of_any_column_and_no_gap(values: list[float], columns: int) -> None:
    y = np.array(values)
    x = np.arange(len(y), dtype=float)
    few_x, few_y = thinned(x, y, columns)
    assert len(few_x) <= max(4 * columns, 5 * columns)
    assert few_x.tolist() == sorted(few_x.tolist())
    finite = y[np.isfinite(y)]
    if len(finite):
        kept = few_y[np.isfinite(few_y)]
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert bool(np.isfinite(few_y).all()) == bool(np.isfinite(y).all())


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    y = np.array(values)
    x = np.arange(len(y), dtype=float)
    with np.errstate(over="ignore", invalid="ignore"):
        drawn = str(Chart("c", [Line("a", "kept", x, y)], [Mark("cross", 0, values[0], "b")], unit="u"))
    assert "nan" not in re.sub(r"not a number", "", drawn)
    assert "inf" not in drawn
