"""How a benchmark is run here: rivals interleaved in one process, equal answers first, ratios last.

A machine's speed drifts by more than the differences one wants to see. So every round times every contestant once, in
an order that rotates, and a ratio is taken within a round; the figure is the median of those ratios and the spread is
their quartiles. Time is CPU time of the whole process, all threads, so a rival that uses two cores pays for two.
Absolute CPU times are printed as they are measured and not kept: they say more about the machine than about the code.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"

Answer = TypeVar("Answer")


def cpu_seconds(work: Callable[[], object], *, least: float = 0.02) -> float:
    """Return the CPU seconds of one call, from as many calls as take `least` seconds together."""
    calls = 1
    while True:
        started = time.process_time()
        for _ in range(calls):
            work()
        spent = time.process_time() - started
        if spent >= least:
            return spent / calls
        calls = max(calls * 2, int(calls * 1.2 * least / max(spent, 1e-6)))


@dataclass(frozen=True)
class Contest(Generic[Answer]):
    """One piece of work and everyone who does it; the first contestant is ours.

    Args:
        work: What is done, with its size: the row's name in the table.
        answers: For each contestant, a function that does the work once, from scratch, and returns the answer.
        same: Raises `AssertionError` where two answers differ; called before anything is timed.
        timed: For each contestant, the function that is timed; by default the one of `answers`.
        timer: Turns a function into the seconds it takes.
    """

    work: str
    answers: Mapping[str, Callable[[], Answer]]
    same: Callable[[Answer, Answer], None]
    timed: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    timer: Callable[[Callable[[], object]], float] = cpu_seconds


@dataclass(frozen=True)
class Row:
    """A rival's time over ours: the median of the rounds, and its quartiles."""

    work: str
    ours: str
    rival: str
    ratio: float
    low: float
    high: float
    rounds: int


def hold(contest: Contest[Answer], *, rounds: int) -> list[Row]:
    """Check that all contestants give the same answer, then time them in rotation."""
    ours, *rivals = contest.answers
    reference = contest.answers[ours]()
    for rival in rivals:
        contest.same(reference, contest.answers[rival]())
    work = {**contest.answers, **contest.timed}
    names = list(work)
    for name in names:
        contest.timer(work[name])  # warm-up, not counted
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(contest.timer(work[name]))
    for name in names:
        sys.stdout.write(f"  {contest.work}: {name} {_readable(statistics.median(seconds[name]))}\n")
    rows = []
    for rival in rivals:
        ratios = [theirs / mine for theirs, mine in zip(seconds[rival], seconds[ours], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append(Row(contest.work, ours, rival, middle, low, high, rounds))
    return rows


def record(name: str, rows: list[Row], *, packages: tuple[str, ...]) -> Path:
    """Write the rows of one benchmark to `results/NAME.json`, with versions and machine."""
    path = RESULTS / f"{name}.json"
    content = {
        "bench": name,
        "command": f"python -m benches {name}",
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("flyball", *packages)},
        },
        "rows": [
            {
                "work": row.work, "ours": row.ours, "rival": row.rival, "rounds": row.rounds,
                "ratio": round(row.ratio, 3), "quartiles": [round(row.low, 3), round(row.high, 3)],
            }
            for row in rows
        ],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def render() -> None:
    """Write the table of `benches/README.md` from everything in `results`."""
    lines = [
        "",
        "| bench | work | rival | rival's CPU time / ours | quartiles |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    footers = []
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if "rows" not in result:
            continue  # a bench with tables of its own
        for row in result["rows"]:
            low, high = row["quartiles"]
            lines.append(
                f"| {result['bench']} | {row['work']} | {row['rival']} "
                f"| **{row['ratio']:.3g}** | {low:.3g} to {high:.3g} |"
            )
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        footers.append(f"- `{result['bench']}`: {versions}; {result['machine']}")
    fill("results", "\n".join([*lines, "", *footers, ""]))


def fill(section: str, text: str) -> None:
    """Replace what `benches/README.md` has between the two markers of a section."""
    begin, end = f"<!-- {section}: written by `make bench` -->", f"<!-- end of {section} -->"
    before, rest = README.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """Name the processor and how many of its cores there are."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def _readable(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
