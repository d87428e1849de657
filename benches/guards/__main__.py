"""Bench guards on labelled sets: `python -m benches.guards [--set FILE ...] [--guard module:callable ...]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.guards.guards import Guard, named, older, ours, word_list
from flyball.scan.rules.labelled import LABELS, Example, Share, count, read_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
DEVELOPMENT = ROOT / "tests" / "scan" / "development"
RESULTS = ROOT / "benches" / "results" / "guards.json"
# A curve has a point for each of these shares of look-alikes flagged at most.
ALLOWED = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)


def shown(share: Share) -> dict[str, Any]:
    low, high = share.interval
    return {"count": share.part, "total": share.total, "value": round(share.value, 4) if share.total else None,
            "low": round(low, 4), "high": round(high, 4)}  # fmt: skip


def curve(examples: Sequence[Example], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Return, for each share of look-alikes that may be flagged, what is caught at the lowest such threshold."""
    harmful = [score for example, score in zip(examples, scores, strict=True) if example.label == "harmful"]
    harmless = [score for example, score in zip(examples, scores, strict=True) if example.label == "harmless"]
    points = []
    for allowed in ALLOWED:
        for threshold in sorted({0.0, *harmful, *harmless}):
            wrong = sum(score > threshold for score in harmless)
            if harmless and wrong <= allowed * len(harmless):
                caught = Share(sum(score > threshold for score in harmful), len(harmful))
                points.append({"allowed": allowed, "threshold": threshold, "caught": shown(caught),
                               "flagged": shown(Share(wrong, len(harmless)))})  # fmt: skip
                break
    return points


def row(guard: Guard, examples: Sequence[Example]) -> dict[str, Any]:
    guard.score("a first text, which may load what the guard needs")
    scores = []
    began = time.process_time()
    for example in examples:
        scores.append(guard.score(example.text))  # noqa: PERF401 -- the loop is what is timed
    seconds = time.process_time() - began
    figures = count(examples, [score > guard.threshold for score in scores])
    size = sum(len(example.text.encode("utf-8", "surrogatepass")) for example in examples)
    return {
        "guard": guard.name,
        "threshold": guard.threshold,
        "youden": round(figures.youden, 3),
        "precision": shown(figures.precision),
        **{label: shown(figures.share(label)) for label in LABELS},
        "groups": {
            label: {group: shown(figures.share(label, group)) for group in figures.groups(label)} for label in LABELS
        },
        "curve": curve(examples, scores),
        "megabytes_per_second": round(size / 1e6 / max(seconds, 1e-9), 2),
        "microseconds_per_text": round(1e6 * seconds / max(len(examples), 1), 2),
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| guard | caught | look-alikes flagged | ordinary text flagged | Youden J | µs per text |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def cell(share: dict[str, Any]) -> str:
        if share["value"] is None:
            return "-"
        return f"{100 * share['value']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"

    lines += [
        f"| {one['guard']} | {cell(one['harmful'])} | {cell(one['harmless'])} | {cell(one['ordinary'])} | "
        f"{one['youden']:.2f} | {one['microseconds_per_text']:.1f} |"
        for one in rows
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benches.guards", description=__doc__)
    parser.add_argument("--set", dest="sets", nargs="+", type=Path, default=[DEVELOPMENT], metavar="FILE",
                        help="labelled sets, files or folders of JSON Lines (default: ours)")  # fmt: skip
    parser.add_argument("--guard", dest="guards", nargs="+", default=[], metavar="MODULE:CALLABLE",
                        help="guards of one's own beside ours; @0.3 behind one is its threshold")  # fmt: skip
    parser.add_argument("--pack", default="default", help="the pack of the scanner")
    parser.add_argument("--half", choices=("open", "locked", "both"), default="locked", help="which half is counted")
    parser.add_argument("--record", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    examples = read_sets(options.sets, options.half)
    rows = [row(guard, examples) for guard in (ours(options.pack), word_list(), older(), *map(named, options.guards))]
    sys.stdout.write("\n".join(table(rows)) + "\n")
    if options.record:
        from flyball.scan import Scanner

        pack = Scanner(options.pack).pack
        found = {
            "pack": [pack.name, pack.version, pack.hash],
            "half": options.half,
            "texts": len(examples),
            "rows": rows,
        }
        RESULTS.write_text(json.dumps({**found, "rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
