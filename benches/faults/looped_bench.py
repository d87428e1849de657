"""`python -m benches.faults closed`: every family, every fault, every guard, in the loop; and what is kept of it."""

from __future__ import annotations

import logging
import math
import platform
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from benches import harness
from benches.faults.families import FAMILIES
from benches.faults.faults import FAULTS, Fault
from benches.faults.looped import Clean, Runs, clean_run, drive, healthy, possible, spoilt, visible
from benches.faults.report import table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benches.faults.looped import Make
    from benches.faults.task import Task

    Result = Mapping[str, Any]

DAMAGE = ("rate x100", "head zeroed", "weight = 50", "weights + noise")
ENDS = ("shuffled once", "burst of 20", "20 in a row", "inputs x100", "NaN", "fp16 overflow", *DAMAGE, "rate +2 %",
        "level shift")  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How large a run is.

    Args:
        replicas: Runs of each family and fault.
        clean: Whole healthy runs of each family.
        clean_steps: Their length; by default each family's own.
        seed: Decides everything that is drawn.
        families: Which families; by default all.
        faults: Which faults; by default all that a family can have.
    """

    replicas: int = 3
    clean: int = 1
    clean_steps: int | None = None
    seed: int = 0
    families: tuple[type[Task], ...] = FAMILIES
    faults: tuple[Fault, ...] = FAULTS


@dataclass
class Outcome:
    """What came out: by guard healthy runs, and by guard and fault the others."""

    settings: Settings
    clean: dict[str, Clean] = field(default_factory=dict)
    runs: dict[str, dict[str, Runs]] = field(default_factory=dict)
    seconds: float = 0.0


def named(parts: list[str]) -> tuple[type[Task], ...]:
    """Return the families whose names contain one of these.

    Raises:
        ValueError: A part is in no name.
    """
    for part in parts:
        if not any(part in family.name for family in FAMILIES):
            names = ", ".join(f"`{family.name}`" for family in FAMILIES)
            raise ValueError(f"no family is named like `{part}`: there are {names}")
    return tuple(family for family in FAMILIES if not parts or any(part in family.name for part in parts))


def run(settings: Settings, guards: Mapping[str, Make], say: Callable[[str], object]) -> Outcome:
    """Run the bench on one thread, and tell of every family when it is done."""
    torch.set_num_threads(1)
    log = logging.getLogger("flyball")
    level = log.level
    log.setLevel(logging.ERROR)  # rollbacks are what is counted here
    try:
        return _run(settings, guards, say)
    finally:
        log.setLevel(level)


def _run(settings: Settings, guards: Mapping[str, Make], say: Callable[[str], object]) -> Outcome:
    outcome = Outcome(settings, {name: Clean() for name in guards}, {name: {} for name in guards})
    started = time.process_time()
    for family in settings.families:
        began = time.process_time()
        for replica in range(settings.replicas):
            faults = possible(family(1, 0), settings.faults)
            whole = healthy(family, replica, settings.seed, faults)
            for fault in faults:
                batches = spoilt(whole, fault)
                over = visible(whole, fault, batches)
                for name, make in guards.items():
                    runs = drive(whole, fault, make, batches, over)
                    outcome.runs[name].setdefault(fault.name, Runs()).add(runs)
        for replica in range(settings.clean):
            for name, make in guards.items():
                if name != "nobody":
                    one = clean_run(family, 500 + replica, settings.seed, make, settings.clean_steps)
                    outcome.clean[name].add(one)
        say(f"{family.name}: {time.process_time() - began:.0f} s")
    outcome.seconds = time.process_time() - started
    return outcome


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return everything that is worth keeping, as data that JSON can hold."""
    settings = outcome.settings
    return {
        "bench": "closed",
        "command": _command(settings),
        "machine": harness.machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("flyball", "torch", "numpy")},
        },
        "settings": {"replicas": settings.replicas, "clean": settings.clean, "seed": settings.seed},
        "families": [family.name for family in settings.families],
        "clean": {name: vars(clean) for name, clean in outcome.clean.items() if clean.steps},
        "runs": {name: {fault: _kept(runs) for fault, runs in faults.items()} for name, faults in outcome.runs.items()},
    }


def upper_bound(events: int, confidence: float = 0.95) -> float:
    """Return the largest mean of a Poisson number of which so few events are not yet unlikely."""
    low, high = 0.0, 10.0 + 3.0 * events
    for _ in range(60):
        middle = 0.5 * (low + high)
        likely = sum(math.exp(-middle + k * math.log(middle) - math.lgamma(k + 1)) for k in range(events + 1))
        low, high = (middle, high) if likely > 1.0 - confidence else (low, middle)
    return high


def needless(clean: Clean) -> str:
    """Return how often a guard acted on healthy runs, each with the largest rate that is not yet unlikely."""
    per = 1e4 / clean.steps
    lines = [f"{clean.steps} clean steps, {_number(per * clean.asked)} batches served again per 10k\n"]
    for what, events in (("refused", clean.refused), ("rolled back", clean.rollbacks), ("stopped", clean.stopped)):
        bound = per * upper_bound(events)
        lines.append(f"{what}: {events}, {_number(per * events)} per 10k, at most {_number(bound)} (95 %)\n")
    return "".join(lines)


def headline(result: Result) -> str:
    """Return what each guard did, one row to a question."""
    names = list(result["runs"])
    rows = [["clean steps refused / 10k"], ["needless rollbacks / 10k (95 % bound)"], ["served again / 10k"]]
    for name in names:
        clean = result["clean"].get(name)
        for row, cell in zip(rows, ["-"] * 3 if clean is None else _clean(clean), strict=True):
            row.append(cell)

    def line(text: str, fault: str, cell: Callable[[Mapping[str, Any]], str]) -> None:
        if all(fault in result["runs"][name] for name in names):
            rows.append([text, *(cell(result["runs"][name][fault]) for name in names)])

    line("20 in a row: runs rolled back", "20 in a row", lambda one: _of(one["rolled"], one["runs"]))
    line("20 in a row: visible bad refused", "20 in a row", lambda one: _of(one["bad_refused"], one["bad_visible"]))
    line("burst of 20: visible bad refused", "burst of 20", lambda one: _of(one["bad_refused"], one["bad_visible"]))
    line("burst of 20: runs rolled back", "burst of 20", lambda one: _of(one["rolled"], one["runs"]))
    for fault in DAMAGE:
        line(f"{fault}: visible, rolled back within 6 steps", fault, lambda one: _of(one["found"], one["visible"]))
    if all(fault in result["runs"][name] for name in names for fault in DAMAGE):
        damage = [[result["runs"][name][fault] for fault in DAMAGE] for name in names]
        sums = [[sum(one[key] for one in of) for key in ("trusted", "due")] for of in damage]
        rows.append(["damaged snapshots trusted", *(_of(*pair) for pair in sums)])
    line("NaN: left as it was, bit for bit", "NaN", lambda one: _of(one["untouched"], one["runs"]))
    line("NaN: good steps refused, a run", "NaN", lambda one: _number(one["good_refused"] / one["runs"]))
    line("NaN: rolled back", "NaN", lambda one: _of(one["rolled"], one["runs"]))
    line("fp16 overflow: rolled back", "fp16 overflow", lambda one: _of(one["rolled"], one["runs"]))
    line("BatchNorm NaN: not finite at the end", "BatchNorm NaN", lambda one: _of(one["broken"], one["runs"]))
    line("rate +2 %: rolled back", "rate +2 %", lambda one: _of(one["rolled"], one["runs"]))
    line("rate +2 %: stopped with the reason", "rate +2 %", lambda one: _of(one["stopped"], one["runs"]))
    line("level shift: refused of 200, a run", "level shift", lambda one: _number(one["bad_all_refused"] / one["runs"]))
    line("level shift: rolled back", "level shift", lambda one: _of(one["rolled"], one["runs"]))
    line("level shift: stopped", "level shift", lambda one: _of(one["stopped"], one["runs"]))
    line("level shift: the last 50 steps silent", "level shift", lambda one: _of(one["silent"], one["runs"]))
    return table(["", *names], rows, text=1)


def ends(result: Result) -> str:
    """Return the loss at the end over that of the clean run: median, and what nine of ten runs stay below."""
    names = list(result["runs"])
    faults = [fault for fault in ENDS if all(fault in result["runs"][name] for name in names)]
    rows = [
        [fault, *(" / ".join(_ratio(end) for end in result["runs"][name][fault]["end"]) for name in names)]
        for fault in faults
    ]
    return table(["loss at the end over that of the clean run: median / 90 %", *names], rows, text=1)


def tables(result: Result) -> str:
    """Return what is printed, and what `benches/README.md` shows."""
    size = result["settings"]
    clean = max((one["steps"] for one in result["clean"].values()), default=0)
    lead = (
        f"{len(result['families'])} families; runs of each with each fault: {size['replicas']}; "
        f"clean steps: {clean}. `{result['command']}`"
    )
    return f"\n{lead}\n\n{headline(result)}\n\n{ends(result)}\n"


def _command(settings: Settings) -> str:
    whole = len(settings.families) == len(FAMILIES)
    parts = "" if whole else " --families " + " ".join(f"'{family.name}'" for family in settings.families)
    return f"python -m benches.faults closed --replicas {settings.replicas} --clean {settings.clean}{parts}"


def _kept(runs: Runs) -> dict[str, Any]:
    found = {name: value for name, value in vars(runs).items() if name != "excess"}
    return {**found, "end": [_quantile(runs.excess, share) for share in (0.5, 0.9)]}


def _quantile(excess: list[float], share: float) -> float | str | None:
    if not excess:
        return None
    logarithm = sorted(excess)[min(len(excess) - 1, int(share * len(excess)))]
    return "infinite" if math.isinf(logarithm) else round(math.exp(logarithm), 3)


def _clean(clean: Mapping[str, int]) -> list[str]:
    per = 1e4 / clean["steps"]
    bound = f"{_number(per * clean['rollbacks'])} ({_number(per * upper_bound(clean['rollbacks']))})"
    return [_number(per * clean["refused"]), bound, _number(per * clean["asked"])]


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.0f} %)" if whole else "")


def _ratio(end: float | str | None) -> str:
    return "-" if end is None else end if isinstance(end, str) else f"{end:.2f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
