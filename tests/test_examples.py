"""The examples run, as a user types them, and say what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

COMMANDS = {
    "two_lines.py": (["1"], "accuracy"),
    "digits.py": (["run", "2"], "completed; the best epoch is"),
    "resume.py": (["runs"], "broken off after step 57\nthe weights are equal, bit for bit"),
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_an_example_runs_and_keeps_its_promise(name: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn holds the digits")
    arguments, promise = COMMANDS[name]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert promise in done.stdout
