"""`python -m benches.faults [--quick] [--seed N]`: run the fault bench, write its result, print its tables."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benches import harness
from benches.faults import report
from benches.faults.bench import QUICK, Settings, run
from benches.faults.detector import detectors


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; a quick one is written only where it is told to."""
    parser = argparse.ArgumentParser(prog="python -m benches.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small families, seconds: to see that it works")
    parser.add_argument("--seed", type=int, default=0, help="decides data and starts (default: 0)")
    parser.add_argument("--out", type=Path, help="where the result goes (default: results/faults.json, if not quick)")
    options = parser.parse_args(arguments)
    settings = replace(QUICK if options.quick else Settings(), seed=options.seed)
    outcome = run(settings, detectors(), lambda line: sys.stderr.write(f"{line}\n"))
    sys.stderr.write(f"{outcome.seconds:.0f} s of CPU time\n")
    result = report.summary(outcome)
    path = options.out or (None if options.quick else harness.RESULTS / "faults.json")
    if path is not None:
        report.write(result, path)
    if path == harness.RESULTS / "faults.json":
        harness.fill("faults", report.readme(result))
    sys.stdout.write(report.tables(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
