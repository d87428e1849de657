"""A pack that means harm is refused, or planned and scanned with, within bounded time and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="this system has no limits on processes")

HEAD = "[pack]\nname = 'p'\nversion = '1'\n"
# What the process may take: seconds of a processor, and bytes of memory, of which Python and NumPy hold some.
SECONDS, MEMORY = 60, 3 << 30

PROGRAM = """
import resource, sys
seconds, memory = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
from flyball.errors import PackError
from flyball.scan import Pack, Scanner
text = sys.stdin.read()
try:
    scanner = Scanner(Pack.from_toml(text))
except PackError as error:
    print("refused:", error)
else:
    print("flagged:", scanner.flagged("aaaa bbbb kill " * 200), scanner.flagged("."))
"""


def rules(*patterns: str) -> str:
    return HEAD + "".join(f"[[rule]]\nid = '{n}'\ncategory = 'c'\npattern = '{p}'\n" for n, p in enumerate(patterns))


@pytest.mark.parametrize(
    ("pack", "answer"),
    [
        pytest.param(HEAD + "x = " + "[" * 200_000, "refused: `pack`, line 4", id="arrays in arrays"),
        pytest.param(HEAD + "x = " + "{a=" * 100_000, "refused: `pack`, line 4", id="tables in tables"),
        pytest.param(HEAD + "x" + ".a" * 200_000 + " = 1", "refused: `pack`", id="a key with many dots"),
        pytest.param(rules("(" * 2000 + "a" + ")" * 2000), "deeper than 16", id="groups in groups"),
        pytest.param(rules("(?:(?:(?:a{256}){256}){256}){256}b"), "repeats are written out", id="repeats of repeats"),
        pytest.param(rules(*(f"(?:a|b|c{n}){{0,250}}z{{0,250}}q{n}" for n in range(2000))), "a pack to", id="parts"),
        pytest.param(
            HEAD + f"[[rule]]\nid = 'w'\ncategory = 'c'\nwords = {[f'w{n}' for n in range(500_000)]}",
            "keep it to 4096", id="words",
        ),
        pytest.param(rules(*("(?:a|b)?" * 30 + f"k{n}" for n in range(300))), "flagged: False False", id="branches"),
        pytest.param(rules(*(f".*a.*b.*{n}.*" for n in range(300))), "flagged: False False", id="gaps without end"),
        pytest.param(rules(*(f"[a-z]{{{n},}}[0-9]" for n in range(1, 200))), "flagged: False False", id="slow rules"),
        pytest.param(rules(*(f"kill{'.{0,256}' * 3}w{n}" for n in range(300))), "flagged: False False", id="wide gaps"),
    ],
)  # fmt: skip
def test_a_hostile_pack_takes_bounded_time_and_memory(pack: str, answer: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(SECONDS), str(MEMORY)]
    done = subprocess.run(command, input=pack, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert answer in done.stdout
