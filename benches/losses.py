"""`python -m benches.losses RUN RUN [--within R]`: compare the losses of two runs, step by step.

A change to numerics shows the same losses, or says why not. RUN is a run folder or a journal. Of a step that was made
twice, after a resume, the last one counts. The exit code is 0 where all losses are equal bit for bit (or within the
relative difference R), 1 where they are not, and 2 where there is nothing to compare.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from flyball import run_folder
from flyball.errors import FlyballError
from flyball.events import RunStarted, StepSample, read

EQUAL, DIFFERENT, NOTHING = 0, 1, 2


@dataclass(frozen=True)
class Comparison:
    """How two traces differ.

    Args:
        steps: How many steps both have.
        alone: How many steps only one of them has.
        first: The first step at which they differ, and both losses there; None where they are equal.
        largest: The largest relative difference, infinite where one is no number and the other is.
        at: Its step.
    """

    steps: int
    alone: int
    first: tuple[int, float, float] | None
    largest: float
    at: int | None

    def __str__(self) -> str:
        """Say it in a line or three."""
        lines = [f"{self.steps} steps compared"]
        if self.alone:
            lines.append(f"{self.alone} steps are in one of them only")
        if self.first is None:
            lines.append("the losses are equal, bit for bit")
        else:
            step, one, other = self.first
            lines.append(f"first difference at step {step}: {one!r} and {other!r}")
            lines.append(f"largest relative difference: {self.largest:.3g}, at step {self.at}")
        return "\n".join(lines)


def trace(path: Path) -> dict[int, float]:
    """Read the loss of each step of a run, as it was made last.

    Raises:
        FlyballError: The journal is damaged.
        OSError: It cannot be read.
    """
    losses: dict[int, float] = {}
    for record in read(path / run_folder.JOURNAL if path.is_dir() else path):
        if isinstance(record.event, RunStarted):
            losses = {}
        elif isinstance(record.event, StepSample):
            losses[record.event.step] = record.event.loss
    return losses


def compare(one: dict[int, float], other: dict[int, float]) -> Comparison:
    """Compare two traces at the steps that both have; NaN is equal to NaN."""
    both = sorted(one.keys() & other.keys())
    different = [step for step in both if not _same(one[step], other[step])]
    gaps = [(_gap(one[step], other[step]), step) for step in different]
    largest, at = max(gaps, key=lambda gap: gap[0], default=(0.0, None))
    first = (different[0], one[different[0]], other[different[0]]) if different else None
    return Comparison(len(both), len(one.keys() ^ other.keys()), first, largest, at)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _gap(one: float, other: float) -> float:
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def main(arguments: list[str] | None = None) -> int:
    """Compare two runs, say how they differ, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.losses", description=__doc__)
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--within", type=float, default=0.0, metavar="R", help="the relative difference that may be")
    options = parser.parse_args(arguments)
    try:
        found = compare(*map(trace, options.runs))
    except (OSError, FlyballError) as error:
        sys.stderr.write(f"{error}\n")
        return NOTHING
    if not found.steps:
        sys.stderr.write("the runs have no step in common: there is nothing to compare\n")
        return NOTHING
    sys.stdout.write(f"{found}\n")
    return EQUAL if not found.alone and found.largest <= options.within else DIFFERENT


if __name__ == "__main__":
    sys.exit(main())
