"""`python -m benches.faults [open | closed | clean]`: run the fault bench, write its result, print its tables.

`open` (the default) shows recorded traces to every detector; `closed` has guards govern real trainings; `clean` has
ours govern healthy ones alone, as many as are asked for, which bounds how often it acts without need.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benches import harness
from benches.faults import looped_bench, report
from benches.faults.bench import QUICK, Settings, run
from benches.faults.detector import detectors
from benches.faults.guards import guards


def main(arguments: list[str] | None = None) -> int:
    """Run a part of the bench; what is not the whole part is written only where it is told to."""
    parser = argparse.ArgumentParser(prog="python -m benches.faults", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("open", "closed", "clean"), default="open")
    parser.add_argument("--quick", action="store_true", help="two small families, seconds: to see that it works")
    parser.add_argument("--seed", type=int, default=0, help="decides data and starts (default: 0)")
    parser.add_argument("--out", type=Path, help="where the result goes (default: results, if nothing is left out)")
    closed = parser.add_argument_group("closed and clean")
    closed.add_argument("--families", nargs="+", default=[], help="parts of the names of families (default: all)")
    closed.add_argument("--replicas", type=int, default=3, help="runs of each family and fault (default: 3)")
    closed.add_argument("--clean", type=int, default=1, help="whole healthy runs of each family (default: 1)")
    options = parser.parse_args(arguments)
    return {"open": _open, "closed": _closed, "clean": _clean}[options.part](options)


def _open(options: argparse.Namespace) -> int:
    settings = replace(QUICK if options.quick else Settings(), seed=options.seed)
    outcome = run(settings, detectors(), _say)
    _say(f"{outcome.seconds:.0f} s of CPU time")
    result = report.summary(outcome)
    path = options.out or (None if options.quick else harness.RESULTS / "faults.json")
    if path is not None:
        report.write(result, path)
    if path == harness.RESULTS / "faults.json":
        harness.fill("faults", report.readme(result))
    sys.stdout.write(report.tables(result))
    return 0


def _closed(options: argparse.Namespace) -> int:
    families = looped_bench.named(options.families or (["batch 8", "BatchNorm"] if options.quick else []))
    settings = looped_bench.Settings(
        replicas=1 if options.quick else options.replicas,
        clean=options.clean,
        clean_steps=150 if options.quick else None,
        seed=options.seed,
        families=families,
    )
    outcome = looped_bench.run(settings, guards(), _say)
    _say(f"{outcome.seconds:.0f} s of CPU time")
    result = looped_bench.summary(outcome)
    whole = not options.families and not options.quick
    path = options.out or (harness.RESULTS / "closed.json" if whole else None)
    if path is not None:
        report.write(result, path)
    if path == harness.RESULTS / "closed.json":
        harness.fill("closed", looped_bench.tables(result))
    sys.stdout.write(looped_bench.tables(result))
    return 0


def _clean(options: argparse.Namespace) -> int:
    settings = looped_bench.Settings(
        replicas=0,
        clean=options.clean,
        clean_steps=150 if options.quick else None,
        seed=options.seed,
        families=looped_bench.named(options.families or (["batch 8"] if options.quick else [])),
    )
    outcome = looped_bench.run(settings, {"flyball": guards()["flyball"]}, _say)
    sys.stdout.write(looped_bench.needless(outcome.clean["flyball"]))
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
