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
from flyball.demo import loop
from flyball.demo.faults import Faults
from flyball.errors import RunExistsError
from flyball.events import Event
from flyball.govern.records import RolledBack, VerdictGiven
from flyball.measure import ClassificationResult
from support.recording import record_reads

QUICK = demo.DemoConfig(training=demo.Training(epochs=1, batch_size=256))


def ignore(_: Event) -> None:
    """Show an event to nobody."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> demo.Outcome:
    return demo.run(demo.DemoConfig(device="cpu"), tmp_path_factory.mktemp("runs") / "demo", ignore)


def governed(outcome: demo.Outcome) -> ClassificationResult:
    assert outcome.governed is not None
    return outcome.governed


def told(folder: Path) -> list[Event | events.UnknownEvent]:
    return [record.event for record in events.read(folder / "events.jsonl")]


def test_the_governed_run_reaches_97_percent_on_images_it_has_not_seen(outcome: demo.Outcome) -> None:
    result = governed(outcome)
    assert result.samples == 359
    assert result.accuracy.value >= 0.97
    assert result.accuracy.low > result.majority_rate
    assert result.nll.high < result.prior_entropy


def test_the_ungoverned_run_on_the_same_stream_does_not_live(outcome: demo.Outcome) -> None:
    assert outcome.ungoverned is None


def test_it_ends_with_both_evaluations_and_a_paired_test(outcome: demo.Outcome) -> None:
    rows = {name: (without, with_governor) for name, without, with_governor in demo.told(outcome)}
    assert rows["accuracy"] == ("not a number", str(governed(outcome).accuracy))
    assert rows["wrong answers"] == ("1.0000 [0.9894, 1.0000]", "0.0000 [0.0000, 0.0106]")
    assert outcome.comparison.gained == governed(outcome).confusion.trace()
    assert outcome.comparison.mcnemar.p_value < 1e-9


def test_every_bad_batch_is_left_out_and_the_damage_is_undone_once(outcome: demo.Outcome) -> None:
    steps = 17 * demo.DemoConfig().training.epochs
    faults = Faults(steps)
    spoken = [event for event in told(outcome.folder) if isinstance(event, VerdictGiven)]
    left_out = {event.step for event in spoken if event.action == "skip" and "data" in event.reasons}
    assert left_out == faults.mislabelled | {faults.poisoned}
    (rollback,) = (event for event in told(outcome.folder) if isinstance(event, RolledBack))
    assert 0 < rollback.step - faults.zeroed <= 6
    assert (outcome.left_out, outcome.rollbacks) == (11, 1)
    assert outcome.steps_lost == rollback.step - rollback.back_to


def test_without_faults_the_governor_changes_nothing(tmp_path: Path) -> None:
    config = replace(QUICK, faults=False, device="cpu")
    outcome = demo.run(config, tmp_path / "run", ignore)
    one, other = (
        load_file(folder / "checkpoints" / "final.safetensors")
        for folder in (outcome.folder, outcome.folder / "ungoverned")
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (outcome.left_out, outcome.rollbacks, outcome.steps_lost) == (0, 0, 0)


def test_the_run_folder_holds_both_runs_whole(outcome: demo.Outcome) -> None:
    found = sorted(str(path.relative_to(outcome.folder)) for path in outcome.folder.rglob("*") if path.is_file())
    run = ["checkpoints/final.safetensors", "config.toml", "events.jsonl"]
    assert found == sorted([*run, "report.html", "training.png", *(f"ungoverned/{name}" for name in run)])
    assert load(demo.DemoConfig, outcome.folder / "config.toml") == demo.DemoConfig(device="cpu")


def test_the_journal_tells_the_run_from_start_to_end(outcome: demo.Outcome) -> None:
    story = told(outcome.folder)
    epochs = demo.DemoConfig().training.epochs
    assert isinstance(story[0], events.RunStarted)
    assert story[0].versions["torch"] == torch.__version__
    assert [event.step for event in story if isinstance(event, events.StepSample)] == list(range(17 * epochs))
    assert sum(isinstance(event, events.EpochFinished) for event in story) == epochs
    (evaluated,) = (event for event in story if isinstance(event, events.Evaluated))
    accuracy = evaluated.measurements["accuracy"]
    assert isinstance(accuracy, events.Estimate)
    assert accuracy.value == governed(outcome).accuracy.value
    assert isinstance(story[-1], events.RunFinished)


def test_the_weights_that_are_kept_are_the_weights_that_were_measured(outcome: demo.Outcome) -> None:
    model = loop.build_model(seed=1)
    model.load_state_dict(load_file(outcome.folder / "checkpoints" / "final.safetensors"))
    again = loop.evaluate(model, digits().test, torch.device("cpu"))
    assert again is not None
    assert (again.confusion == governed(outcome).confusion).all()
    assert again.nll == governed(outcome).nll


def test_a_run_is_a_function_of_its_seed_and_draws_from_no_global_generator(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> tuple[np.ndarray, float]:
        result = governed(demo.run(replace(QUICK, seed=seed, device="cpu"), tmp_path / name, ignore))
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
    assert governed(outcome).samples == 359
    assert "cannot be written" in caplog.text
    assert "events are lost" in caplog.text
    reader = events.read(tmp_path / "run" / "events.jsonl")
    assert all(record.event for record in reader)
    assert reader.torn
