"""Loggers read the journal and never touch the run; each is tested against the real package, offline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from flyball.events import EpochFinished, Estimate, Evaluated, Event, Journal, RunStarted, StepSample
from flyball.govern.records import RolledBack, VerdictGiven
from flyball.observe.loggers import Following, Logger, MLflow, TensorBoard, Trackio, WandB, send

RUN: list[Event] = [
    RunStarted(name="r", seed=1, device="cpu", versions={}, config={"rate": 0.5, "deep": {"name": "x"}, "none": None}),
    StepSample(step=1, epoch=1, loss=2.0, learning_rate=0.1, grad_norm=3.0),
    VerdictGiven(step=1, level="ANOMALY", action="skip", reasons=["data"], text="step 1: left out", position=None),
    StepSample(step=2, epoch=1, loss=1.0, learning_rate=0.1),
    RolledBack(
        step=2, reason="damage", snapshot=1, taken_at=0, back_to=0, attempt=1, learning_rate_factor=1.0, seconds=0.1
    ),
    EpochFinished(epoch=1, step=2, train_loss=1.5, seconds=1.0, validation={"accuracy": 0.5}),
    Evaluated(split="test", measurements={"macro F1 (%)": Estimate(value=0.9, low=0.8, high=0.95)}),
]  # fmt: skip


class Kept(Logger):
    """Keep what comes."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float], str]] = []
        self.started: list[RunStarted] = []
        self.closed = 0
        self.came = threading.Event()

    def begin(self, started: RunStarted) -> None:
        self.started.append(started)

    def log(self, step: int, values: Mapping[str, float], text: str) -> None:
        self.told.append((step, dict(values), text))
        self.came.set()

    def close(self) -> None:
        self.closed += 1


class Broken(Logger):
    """Fail always."""

    def __init__(self) -> None:
        self.asked = 0

    def log(self, step: int, values: Mapping[str, float], text: str) -> None:  # noqa: ARG002
        self.asked += 1
        raise OSError("no network")


def journal(folder: Path, events: list[Event]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "events.jsonl", run="r") as written:
        for event in events:
            written.write(event)
    return folder


def test_a_logger_gets_every_number_once_and_in_order(tmp_path: Path) -> None:
    kept = Kept()
    assert send(journal(tmp_path, RUN), kept) == 0
    assert kept.told == [
        (1, {"train/loss": 2.0, "train/learning_rate": 0.1, "train/grad_norm": 3.0}, ""),
        (1, {"governor/level": 2.0}, "step 1: left out"),
        (2, {"train/loss": 1.0, "train/learning_rate": 0.1}, ""),
        (2, {"governor/steps_lost": 2.0}, "rolled back to step 0: damage"),
        (2, {"epoch": 1.0, "validation/accuracy": 0.5, "epoch_loss": 1.5}, ""),
        (2, {"test/macro F1 (%)": 0.9, "test/macro F1 (%)/low": 0.8, "test/macro F1 (%)/high": 0.95}, ""),
    ]
    assert (len(kept.started), kept.closed) == (1, 1)


def test_what_is_followed_is_what_is_sent_though_the_journal_came_later(tmp_path: Path) -> None:
    live, after = Kept(), Kept()
    following = Following(tmp_path / "run", live, every=0.01)
    (tmp_path / "run").mkdir()
    with Journal(tmp_path / "run" / "events.jsonl", run="r") as written:
        for event in RUN:
            written.write(event)
        assert written.flush(10)
        assert live.came.wait(10), "numbers come while the run goes on"
    following.close()
    send(tmp_path / "run", after)
    assert live.told == after.told
    assert (live.closed, following.lost) == (1, 0)


def test_a_logger_that_fails_is_disabled_loudly_and_the_others_get_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, kept = Broken(), Kept()
    steps: list[Event] = [StepSample(step=n, epoch=1, loss=1.0, learning_rate=0.1) for n in range(20)]
    with caplog.at_level(logging.WARNING, "flyball.observe"):
        assert send(journal(tmp_path, steps), broken, kept) == 20
    assert broken.asked == 8
    assert len(kept.told) == 20
    assert "the logger `Broken` failed (OSError('no network')), and it is not asked again" in caplog.messages[-1]


def test_a_damaged_journal_ends_what_is_followed_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (journal(tmp_path, RUN) / "events.jsonl").open("a") as damaged:
        damaged.write("no event\n")
    kept = Kept()
    with caplog.at_level(logging.ERROR, "flyball.observe"), Following(tmp_path, kept, every=0.01):
        pass
    assert (len(kept.told), kept.closed) == (6, 1)
    assert "events.jsonl:8` is not an event" in caplog.text


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_back_what_was_sent(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert send(journal(tmp_path / "run", RUN), TensorBoard(tmp_path / "board")) == 0
    found = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]
    assert [one.step for one in found.Scalars("governor/level")] == [1]
    assert any("governor" in tag for tag in found.Tags()["tensors"])


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_takes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandB("p", dir=str(tmp_path))
    assert send(journal(tmp_path / "run", RUN), logger) == 0
    assert logger._run.config["deep.name"] == "x"
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert all(name in written.read_bytes() for name in (b"train/loss", b"governor/steps_lost", b"step 1: left out"))


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_back_what_was_sent(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    logger = MLflow("e", tracking=tracking)
    assert send(journal(tmp_path / "run", RUN), logger) == 0
    client = MlflowClient(tracking_uri=tracking)
    found = client.get_metric_history(logger._run, "train/loss")
    assert [(one.step, one.value) for one in found] == [(1, 2.0), (2, 1.0)]
    run = client.get_run(logger._run)
    assert (run.data.params["rate"], run.info.status) == ("0.5", "FINISHED")
    assert run.data.tags["governor.1"] == "step 1: left out"


@needs("trackio")
@pytest.mark.filterwarnings("ignore")
def test_trackio_reads_back_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    assert send(journal(tmp_path / "run", RUN), Trackio("p", name="n")) == 0
    assert list((tmp_path / "trackio").glob("p*.db")), "it lies in the folder of this machine"
