"""The one real path, bottom to top: data, loop, meter, journal, table, picture."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flyball import demo, events
from flyball.config import load
from flyball.data import digits
from flyball.errors import RunExistsError
from flyball.events import Event
from support.recording import record_reads

QUICK = demo.DemoConfig(training=demo.Training(epochs=1, batch_size=256))


def ignore(_: Event) -> None:
    """Show an event to nobody."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> demo.Outcome:
    return demo.run(demo.DemoConfig(device="cpu"), tmp_path_factory.mktemp("runs") / "demo", ignore)


def test_the_demo_reaches_97_percent_on_images_it_has_not_seen(outcome: demo.Outcome) -> None:
    assert outcome.result.samples == 359
    assert outcome.result.accuracy.value >= 0.97
    assert outcome.result.accuracy.low > outcome.result.majority_rate
    assert outcome.result.nll.high < outcome.result.prior_entropy


def test_the_run_folder_holds_the_whole_run(outcome: demo.Outcome) -> None:
    found = sorted(str(path.relative_to(outcome.folder)) for path in outcome.folder.rglob("*"))
    assert found == [
        "checkpoints",
        "checkpoints/final.safetensors",
        "config.toml",
        "events.jsonl",
        "training.png",
    ]
    assert load(demo.DemoConfig, outcome.folder / "config.toml") == demo.DemoConfig(device="cpu")


def test_the_journal_tells_the_run_from_start_to_end(outcome: demo.Outcome) -> None:
    told = [record.event for record in events.read(outcome.folder / "events.jsonl")]
    epochs = demo.DemoConfig().training.epochs
    assert isinstance(told[0], events.RunStarted)
    assert told[0].versions["torch"] == torch.__version__
    assert [event.step for event in told if isinstance(event, events.StepSample)] == list(range(1, 17 * epochs + 1))
    assert sum(isinstance(event, events.EpochFinished) for event in told) == epochs
    (evaluated,) = (event for event in told if isinstance(event, events.Evaluated))
    accuracy = evaluated.measurements["accuracy"]
    assert isinstance(accuracy, events.Estimate)
    assert accuracy.value == outcome.result.accuracy.value
    assert isinstance(told[-1], events.RunFinished)


def test_the_weights_that_are_kept_are_the_weights_that_were_measured(
    outcome: demo.Outcome,
) -> None:
    model = demo.build_model(seed=1)
    model.load_state_dict(load_file(outcome.folder / "checkpoints" / "final.safetensors"))
    again = demo.evaluate(model, digits().test, torch.device("cpu"))
    assert (again.confusion == outcome.result.confusion).all()
    assert again.nll == outcome.result.nll


def test_a_run_is_a_function_of_its_seed_and_draws_from_no_global_generator(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> tuple[np.ndarray, float]:
        result = demo.run(replace(QUICK, seed=seed, device="cpu"), tmp_path / name, ignore).result
        return result.confusion, result.nll.value

    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = run("one", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    two, other = run("two", seed=1), run("other", seed=2)
    assert (one[0] == two[0]).all()
    assert one[1] == two[1]
    assert one[1] != other[1]


def test_every_setting_of_the_demo_is_read_somewhere(tmp_path: Path) -> None:
    recorded, reads = record_reads(QUICK)
    demo.run(recorded, tmp_path / "run", ignore)
    assert reads.every
    assert not reads.unread


def test_a_run_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("a run\n")
    with pytest.raises(RunExistsError):
        demo.run(QUICK, tmp_path, ignore)
    assert (tmp_path / "events.jsonl").read_text() == "a run\n"


def test_a_full_disk_under_the_journal_is_loud_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.write
    room = [1000]

    def write(descriptor: int, content: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, content[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(events.Journal.close, "__defaults__", (0.2,))
    outcome = demo.run(QUICK, tmp_path / "run", ignore)
    assert outcome.result.samples == 359
    assert "cannot be written" in caplog.text
    assert "events are lost" in caplog.text
    reader = events.read(tmp_path / "run" / "events.jsonl")
    assert all(record.event for record in reader)
    assert reader.torn
