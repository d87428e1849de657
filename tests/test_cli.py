"""The command: exit codes, one-line errors, and honest behaviour in pipes, narrow windows and on Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyball import cli, events

# Each test starts a real process: exit codes, pipes and signals exist only there.
FLYBALL = [sys.executable, "-m", "flyball"]
QUICK = ["demo", "training.epochs=1", "training.batch_size=256"]


def flyball(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLYBALL, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_the_commands_and_costs_no_torch(tmp_path: Path) -> None:
    done = flyball("--help", cwd=tmp_path, COLUMNS="60")
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


def test_the_installed_command_is_the_same_command(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("flyball")
    installed = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert installed.stdout == flyball("--version", cwd=tmp_path).stdout
    assert re.fullmatch(r"flyball \d+\.\d+\.\d+\n", installed.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--rnu", "x"], "unrecognized arguments: --rnu"),
        (["demo", "training.epoch=3"], "training.epochs"),
        (["demo", "training.epochs=0"], "at least 1"),
        (["demo", "seed=99999999999999999999999"], "`seed`"),
        (["demo", "name=../escape"], "`name` is '../escape'"),
        (["demo", "data.test=0.9", "data.validation=0.9"], "leaves nothing to train on"),
        (["demo", "training.epochs=many"], "many"),
        (["demo", "training.epochs"], "training.epochs"),
        (["demo", "--config", "absent.toml"], "absent.toml"),
    ],
)
def test_wrong_use_is_code_2_and_says_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = flyball(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_code_1_and_one_line_and_the_traceback_is_for_the_asking(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.toml").write_text("")
    done = flyball(*QUICK, "--run", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: `.` already holds a run")
    told = flyball(*QUICK, "--run", ".", "--traceback", cwd=tmp_path)
    assert told.returncode == 1
    assert "RunExistsError" in told.stderr


def test_a_run_that_cannot_be_saved_by_its_governor_says_so_with_code_1_and_in_its_journal(tmp_path: Path) -> None:
    settings = ("training.learning_rate=1e30", "training.epochs=20", "training.batch_size=256")
    done = flyball("demo", *settings, "--run", "r", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: 3 rollbacks within 1000 steps did not help, .*\n", done.stderr)
    last = [record.event for record in events.read(tmp_path / "r" / "events.jsonl")][-1]
    assert isinstance(last, events.RunFailed)
    assert last.error == "GovernorExhausted"


def test_settings_are_printed_as_a_file_that_can_be_given_back(tmp_path: Path) -> None:
    printed = flyball("demo", "training.learning_rate=5e-4", "--settings", cwd=tmp_path)
    (tmp_path / "settings.toml").write_text(printed.stdout)
    again = flyball("demo", "--config", "settings.toml", "--settings", cwd=tmp_path)
    assert again.stdout == printed.stdout
    assert "learning_rate = 0.0005" in printed.stdout


def test_piped_output_is_plain_lines_of_sixty_columns(tmp_path: Path) -> None:
    done = flyball(*QUICK, "--run", "r", cwd=tmp_path, COLUMNS="60")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_emphasis_and_no_color_is_heeded(tmp_path: Path, *, no_color: bool) -> None:
    outer, inner = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", **({"NO_COLOR": "1"} if no_color else {})}
    with subprocess.Popen([*FLYBALL, *QUICK, "--run", "r"], cwd=tmp_path, stdout=inner, env=environment) as process:
        os.close(inner)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side has closed
            while chunk := os.read(outer, 4096):
                shown += chunk
        os.close(outer)
    assert process.returncode == 0
    assert b"\x1b[1m" in shown
    colours = re.findall(rb"\x1b\[[0-9;]*[349][0-7]m", shown)
    assert colours == []


def test_standard_output_on_a_full_disk_does_not_stop_the_run(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*FLYBALL, *QUICK, "--run", "r"], cwd=tmp_path, stdout=full, check=False)
    assert done.returncode == 0
    last = [record.event for record in events.read(tmp_path / "r" / "events.jsonl")][-1]
    assert isinstance(last, events.RunFinished)


@pytest.mark.parametrize("arguments", [["--version"], ["demo", "--settings"], ["--help"]])
def test_a_pipe_that_nobody_reads_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*FLYBALL, *arguments], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_standard_output_that_cannot_be_written_is_code_1_and_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*FLYBALL, "--version"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written (No space left on device)\n"


def test_settings_may_stand_before_and_after_options(tmp_path: Path) -> None:
    printed = flyball("demo", "seed=1", "--settings", "training.epochs=7", cwd=tmp_path)
    assert "seed = 1\n" in printed.stdout
    assert "epochs = 7\n" in printed.stdout


def test_a_reader_that_goes_away_does_not_stop_the_run(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*FLYBALL, *QUICK, "training.epochs=3", "--run", "r"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
    assert (tmp_path / "r" / "training.png").exists()
    process.stderr.close()


def stopped(cwd: Path, number: signal.Signals) -> tuple[int, str]:
    """Signal a demo in the middle of its training; return its exit code and what it said to standard error."""
    # A shell that runs the tests in the background has them ignore Ctrl-C, and their children too.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from flyball.cli import main"
    )
    command = [sys.executable, "-c", f"{program}; sys.exit(main())", "demo", "training.epochs=1000", "--run", "r"]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None
        process.send_signal(number)
        try:
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, stderr


def test_ctrl_c_is_code_130_with_a_whole_journal_and_nothing_half_written(tmp_path: Path) -> None:
    assert stopped(tmp_path, signal.SIGINT) == (130, "\ninterrupted\n")
    lines = (tmp_path / "r" / "events.jsonl").read_text().splitlines(keepends=True)
    assert all(line.endswith("\n") and json.loads(line) for line in lines)
    assert json.loads(lines[-1])["data"]["error"] == "KeyboardInterrupt"
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["r", "r/checkpoints", "r/config.toml", "r/events.jsonl"]


def test_a_terminated_run_says_so_in_its_journal(tmp_path: Path) -> None:
    assert stopped(tmp_path, signal.SIGTERM) == (143, "")
    last = [record.event for record in events.read(tmp_path / "r" / "events.jsonl")][-1]
    assert isinstance(last, events.RunFailed)
    assert last.error == "SystemExit"


def test_a_run_whose_weights_cannot_be_saved_has_failed(tmp_path: Path) -> None:
    # What cannot be written, here because a folder stands in its place.
    (tmp_path / "r" / "checkpoints" / "final.safetensors").mkdir(parents=True)
    done = flyball(*QUICK, "--run", "r", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: `r/\S+safetensors` cannot be written \(Is a directory\): .*\n", done.stderr)
    assert "completed" not in done.stdout
    last = [record.event for record in events.read(tmp_path / "r" / "events.jsonl")][-1]
    assert isinstance(last, events.RunFailed)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise KeyError("a bug")

    monkeypatch.setattr(cli, "_demo", broken)
    with pytest.raises(KeyError):
        cli.main(["demo"])
