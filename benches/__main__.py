"""`python -m benches [--rounds N] [NAME ...]`: run benchmarks, write their results, render the table."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from benches import harness

# Each is a module with `contests()` and `PACKAGES`, the rivals whose versions are recorded.
NAMES = (
    "agreement",
    "classification",
    "governor",
    "import_time",
    "multi_label",
    "objective",
    "observe",
    "ranking",
    "scan",
    "selective",
    "snapshot",
    "trainer",
)


def main() -> int:
    """Run the benchmarks that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=25, help="how often each contestant is timed (default: 25)")
    options = parser.parse_args()
    for name in options.names or NAMES:
        sys.stdout.write(f"{name}\n")
        bench = import_module(f"benches.{name}")
        rows = [row for contest in bench.contests() for row in harness.hold(contest, rounds=options.rounds)]
        for row in rows:
            sys.stdout.write(f"  {row.work}: {row.rival} takes {row.ratio:.3g} times ours\n")
        harness.record(name, rows, packages=bench.PACKAGES)
    harness.render()
    return 0


if __name__ == "__main__":
    sys.exit(main())
