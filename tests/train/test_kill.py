"""Killed at random instants, also inside a checkpoint write, a run that is resumed is the run that was not killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# How many; `FLYBALL_KILLS=200` is the long run.
KILLS = int(os.environ.get("FLYBALL_KILLS", "6"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forked")
def test_a_run_that_is_killed_and_resumed_is_the_run_that_was_not_killed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).parent / "killing.py"),
        str(KILLS),
        "7",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = json.loads(done.stdout)
    assert count["kills"] == KILLS
    assert count["failed"] == 0, done.stderr
    assert count["same"] == count["runs"], count
    assert count["lost"] == 0, count
