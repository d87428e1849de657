"""The terminal view: plain lines that fit, and say nothing that was not measured."""

from __future__ import annotations

import pytest

from flyball.events import EpochFinished, Estimate, Evaluated, RunFinished, RunStarted
from flyball.govern.records import RolledBack, VerdictGiven
from flyball.observe.terminal import Terminal


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def test_a_run_reads_from_top_to_bottom_in_sixty_columns(narrow: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    narrow.show(RunStarted(name="digits", seed=3, device="cpu", versions={}, config={}))
    narrow.show(EpochFinished(epoch=1, step=17, train_loss=0.5, seconds=1.0, validation={"accuracy": 0.9}))
    narrow.show(
        Evaluated(
            split="test",
            measurements={
                "accuracy": Estimate(value=0.9, low=0.8, high=0.95),
                "commonest class": 0.1,
            },
        )
    )
    narrow.show(RunFinished(reason="completed", seconds=2.0))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 60
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "digits on cpu, seed 3"
    assert lines[1] == "epoch 1 loss 0.5000 accuracy 0.9000"
    assert "accuracy 0.9000 0.8000 to 0.9500" in lines
    assert "commonest class 0.1000" in lines
    assert lines[-1] == "completed in 2.0 s"


def test_an_epoch_that_trained_nothing_shows_no_loss(narrow: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    narrow.show(EpochFinished(epoch=1, step=0, train_loss=None, seconds=1.0, validation={}))
    assert "nothing trained" in capsys.readouterr().out


def test_what_the_governor_does_is_one_line_each(narrow: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    text = "step 7: ANOMALY loss: 9 is 8 scales above its recent level 0.1 (threshold 3); the batch is left out"
    for reasons in (["loss", "asking"], ["loss", "data"]):
        narrow.show(
            VerdictGiven(step=7, level="ANOMALY", action="skip", reasons=reasons, text=text, position="epoch 0")
        )
    narrow.show(
        RolledBack(
            step=9, reason="damage", snapshot=1, taken_at=4, back_to=5, attempt=1, learning_rate_factor=1.0, seconds=0.1
        )
    )
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2, "a question that is open is not news"
    assert shown[0].startswith("step 7: ANOMALY loss: 9 is 8 scales")
    assert len(shown[0]) <= 60
    assert shown[1] == "step 9: rolled back to step 5"


def test_a_model_that_says_nothing_has_no_table(narrow: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    narrow.show(Evaluated(split="test", measurements={}))
    assert "nothing to measure" in capsys.readouterr().out


def test_a_long_path_stays_in_one_piece_to_be_copied(narrow: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    narrow.line("run folder  " + "a very long folder/" * 8 + "[bold]")
    assert capsys.readouterr().out.count("\n") == 1
