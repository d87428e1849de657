"""The outcome as plain data for `results/faults.json`, and from that data the tables for people."""

from __future__ import annotations

import json
import math
import platform
import statistics
from importlib import metadata
from typing import TYPE_CHECKING, Any

from benches import harness
from benches.faults.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from benches.faults.bench import Outcome
    from benches.faults.closed import Ending
    from benches.faults.score import Clean, Found, Score

    Result = Mapping[str, Any]

SPLITS = {"known": False, "held-out": True, "all": None}
SEEN = ("burst of 20", "20 in a row", "shuffled once", "inputs x100", "NaN", "fp16 overflow", "rate x100",
        "head zeroed", "weight = 50", "weights + noise")  # fmt: skip
KINDS = {fault.name: fault.kind for fault in FAULTS}


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return everything that is worth keeping, as data that JSON can hold."""
    settings = outcome.settings
    names = list(next(iter(outcome.scores.values())))
    return {
        "bench": "faults",
        "command": "python -m benches.faults",
        "machine": harness.machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("flyball", "torch", "numpy")},
        },
        "settings": {"replicas": settings.replicas, "governed": settings.governed, "seed": settings.seed},
        "families": {
            family.name: {
                "split": "held-out" if family.held_out else "known",
                "detectors": {
                    name: {
                        "clean": _clean(one.clean, where=name.startswith("flyball")),
                        "visible, found": _finds(one),
                    }
                    for name, one in outcome.scores[family.name].items()
                },
            }
            for family in settings.families
        },
        "totals": {
            split: {name: _total(outcome.total(name, held_out=held_out)) for name in names}
            for split, held_out in SPLITS.items()
            if held_out is None or any(family.held_out is held_out for family in settings.families)
        },
        "in the loop": {
            fault: {name: _ending(ending) for name, ending in endings.items()}
            for fault, endings in outcome.endings.items()
        },
    }


def write(result: Result, path: Path) -> None:
    """Write the result, one line to each part of a detector's row."""
    text = _indented(result, depth=5)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def tables(result: Result) -> str:
    """Return the whole report in Markdown."""
    parts = [
        ("False alarms and finds, on the same traces for all", detectors_table(result)),
        ("False alarms per 10k clean steps by family: steps / episodes", families_table(result)),
        ("Found by flyball, by family", finds_table(result, "flyball")),
        ("In the loop", loop_table(result)),
    ]
    return "\n\n".join(f"**{title}.**\n\n{table}" for title, table in parts) + "\n"


def readme(result: Result) -> str:
    """Return what `benches/README.md` shows of a result; the other tables are printed by the run."""
    return "\n".join(["", detectors_table(result), ""])


def detectors_table(result: Result, splits: Collection[str] = ("known", "held-out")) -> str:
    """Return one row for each detector and split: false alarms, and the share of the visible faults that it found."""
    rows = []
    for name in next(iter(result["totals"].values())):
        for split in [split for split in result["totals"] if split in splits]:
            one = result["totals"][split][name]
            finds = [_share(one["faults"][_key(fault)]) for fault in SEEN]
            after_nan = one["faults"][_key("NaN")]
            shift = one["faults"]["level shift, applied"]
            rows.append([
                name, split, _rate(one["clean"]), *finds,
                _number(after_nan["refused good"] / max(1, after_nan["runs"])),
                _number(shift["refused"] / max(1, shift["runs"])),
            ])  # fmt: skip
    head = [
        "detector",
        "families",
        "false alarms / 10k",
        *SEEN,
        "good steps refused after NaN",
        "refused of 200 shifted",
    ]
    return table(head, rows, text=2)


def families_table(result: Result) -> str:
    """Return one row for each family, one column for each detector."""
    names = list(next(iter(result["totals"].values())))
    rows = [
        [family, one["split"], str(one["detectors"][names[0]]["clean"]["steps"]),
         *(_rate(one["detectors"][name]["clean"]) for name in names)]
        for family, one in result["families"].items()
    ]  # fmt: skip
    return table(["family", "", "clean steps", *names], rows, text=2)


def finds_table(result: Result, name: str) -> str:
    """Return one row for each family: what one detector found of what was visible."""
    rows = []
    for family, one in result["families"].items():
        faults = one["detectors"][name]["visible, found"]
        cells = [faults[_key(fault)] for fault in SEEN]
        rows.append([family, *(f"{found}/{visible}" for visible, found in cells)])
    return table(["family", *SEEN], rows, text=1)


def loop_table(result: Result) -> str:
    """Return one row for each detector: for each fault how its runs ended."""
    faults = result["in the loop"]
    rows = []
    for name in next(iter(faults.values())):
        cells = []
        for endings in faults.values():
            one = endings[name]
            cells.append(
                f"{_number(one['refused bad'] / one['runs'])} / {_number(one['refused good'] / one['runs'])}"
                f" / {_percent(one['stopped'], one['runs'])} / {_percent(one['dead'], one['runs'])}"
                f" / {_final(one)}"
            )
        rows.append([name, *cells])
    lead = (
        "Bad steps refused / good steps refused, a run / runs stopped / runs whose weights ended not finite / final "
        "loss over that of the clean run, below which nine of ten runs ended that were not stopped. No one rolls back."
        "\n\n"
    )
    return lead + table(["detector", *faults], rows, text=1)


def _key(fault: str) -> str:
    refused = KINDS[fault] in {"batch", "gradient"}
    return f"{fault}, {'refused' if refused else 'applied'}"


def _clean(clean: Clean, *, where: bool) -> dict[str, Any]:
    found = {"steps": clean.steps, "refused": clean.refused, "episodes": clean.episodes}
    return found | ({"where": clean.where} if where else {})


def _faults(score: Score) -> dict[str, dict[str, Any]]:
    return {
        f"{fault}, {'applied' if applied else 'refused'}": _found(found)
        for (fault, applied), found in score.faults.items()
    }


def _finds(score: Score) -> dict[str, tuple[int, int]]:
    kept = {_key(name): (name, KINDS[name] not in {"batch", "gradient"}) for name in KINDS}
    return {
        key: (score.faults[name].visible, score.faults[name].found)
        for key, name in kept.items()
        if name in score.faults
    }


def _found(found: Found) -> dict[str, Any]:
    result: dict[str, Any] = {
        "runs": found.runs, "bad": found.bad, "visible": found.visible, "found": found.found, "soon": found.soon,
        "refused": found.refused, "refused good": found.refused_good,
    }  # fmt: skip
    if found.lags:
        result["lag"] = {"median": statistics.median(found.lags), "most": max(found.lags)}
    return result


def _total(score: Score) -> dict[str, Any]:
    return {"clean": _clean(score.clean, where=False), "faults": _faults(score)}


def _ending(ending: Ending) -> dict[str, Any]:
    return {
        "runs": ending.runs, "refused bad": ending.refused_bad, "refused good": ending.refused_good,
        "stopped": ending.stopped, "dead": ending.dead, "poisoned statistics": ending.poisoned,
        "untouched by the first step": ending.untouched, "went on": len(ending.excess),
        "final loss": {str(share): _quantile(ending.excess, share) for share in (0.5, 0.9)},
    }  # fmt: skip


def _quantile(excess: list[float], share: float) -> float | str | None:
    """Return a quantile of the ratios, as JSON can hold it: "infinite" where the runs of that rank died."""
    if not excess:
        return None
    logarithm = sorted(excess)[min(len(excess) - 1, int(share * len(excess)))]
    return "infinite" if math.isinf(logarithm) else round(math.exp(logarithm), 3)


def _indented(value: object, depth: int, margin: str = "") -> str:
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, allow_nan=False)
    inner = margin + " "
    parts = [f"{inner}{json.dumps(key)}: {_indented(one, depth - 1, inner)}" for key, one in value.items()]
    return "{\n" + ",\n".join(parts) + f"\n{margin}}}"


def _final(ending: Mapping[str, Any]) -> str:
    ratio = ending["final loss"]["0.9"]
    if ratio is None:
        return "-"
    return ratio if isinstance(ratio, str) else f"x{ratio:.2f}"


def _share(found: Mapping[str, Any]) -> str:
    return "-" if not found["visible"] else f"{found['found'] / found['visible']:.2f}"


def _rate(clean: Mapping[str, Any]) -> str:
    return " / ".join(_number(1e4 * clean[one] / clean["steps"]) for one in ("refused", "episodes"))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, text: int) -> str:
    """Return a table in Markdown, the first columns of which are text."""
    names = list(head)
    rule = ["---"] * text + ["---:"] * (len(names) - text)
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, rule, *map(list, rows)])
