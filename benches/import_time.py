"""What `import flyball` costs, beside `import numpy`: each in a fresh interpreter, the import alone."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from benches.harness import Contest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = ("numpy",)

_PROGRAM = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"


def seconds_to_import(module: str) -> float:
    """Import a module in a new interpreter and return the CPU seconds that the import took."""
    program = [sys.executable, "-c", _PROGRAM.format(module)]
    return float(subprocess.run(program, check=True, capture_output=True, text=True).stdout)  # noqa: S603 -- ours


def contests() -> Iterator[Contest[bool]]:
    """Yield the one contest; the answer that must agree is that the import succeeded."""

    def timer(work: Callable[[], object]) -> float:
        return float(str(work()))

    def succeeds(module: str) -> bool:
        return seconds_to_import(module) > 0

    def same(ours: bool, theirs: bool) -> None:  # noqa: FBT001 -- the answer is a bool
        assert ours
        assert theirs

    yield Contest(
        work="a fresh interpreter imports it",
        answers={
            "import flyball": partial(succeeds, "flyball"),
            "import numpy": partial(succeeds, "numpy"),
        },
        same=same,
        timed={
            "import flyball": partial(seconds_to_import, "flyball"),
            "import numpy": partial(seconds_to_import, "numpy"),
        },
        timer=timer,
    )
