"""What `flyball rules` does."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import InputError
from flyball.scan.rules.explain import explain
from flyball.scan.rules.labelled import LABELS, Figures, count, read_sets
from flyball.scan.rules.lint import check, failures
from flyball.scan.scanner import Scanner

if TYPE_CHECKING:
    import argparse

# The set in the repository, where the command runs in a checkout.
DEVELOPMENT = Path("tests/scan/development")


def run(options: argparse.Namespace) -> bool:
    """Do what is asked of a pack, and say whether something is wrong with it."""
    if options.action in ("lint", "test") and options.texts:
        (options.pack, *rest) = options.texts
        if rest:
            raise InputError(f"`{rest[0]}` is too much: `flyball rules {options.action}` takes one pack")
    scanner = Scanner(options.pack, normalise="full", on_long="window")
    return {"lint": _lint, "show": _show, "test": _test, "bench": _bench, "explain": _explain}[options.action](
        scanner, options
    )


def _lint(scanner: Scanner, _options: argparse.Namespace) -> bool:
    problems = check(scanner.pack)
    for problem in problems:
        _print(str(problem))
    errors = sum(problem.level == "error" for problem in problems)
    _say(f"{len(scanner.pack)} rules, {errors} errors, {len(problems) - errors} warnings")
    return errors > 0


def _test(scanner: Scanner, _options: argparse.Namespace) -> bool:
    problems = failures(scanner.pack)
    for problem in problems:
        _print(str(problem))
    examples = sum(len(rule["match"]) + len(rule["no_match"]) for rule in scanner.pack.rules)
    _say(f"{examples} examples of {len(scanner.pack)} rules, {len(problems)} fail")
    return bool(problems)


def _show(scanner: Scanner, options: argparse.Namespace) -> bool:
    pack = scanner.pack
    wanted = options.texts
    if not wanted:
        _print(f"{pack.name} {pack.version} {pack.hash[:12]}: {len(pack)} rules, {len(pack.frames)} frames, flags from "
               f"{pack.flag_at} on")  # fmt: skip
        for rule in pack.rules:
            kind = "" if rule.get("kind", "harm") == "harm" else f" ({rule['kind']})"
            _print(f"  {rule['severity']:<8} {rule['id']}{kind}  {rule.get('intent', rule['family'])}")
        return False
    rules = {rule["id"]: (rule, place) for rule, place in zip(pack.rules, pack.places, strict=True)}
    for name in wanted:
        if name not in rules:
            raise InputError(f"`{name}` is no rule of the pack: `flyball rules show` lists them")
        rule, place = rules[name]
        _print(f"{name}  {f'`{place[0]}`, line {place[1]}' if place else ''}")
        for key, value in rule.items():
            if key != "id" and value not in ("", [], ()):
                _print(f"  {key:<16} {_written(value)}")
    return False


def _written(value: Any) -> str:
    return ("\n" + " " * 19).join(str(one) for one in value) if isinstance(value, list) else str(value)


def _explain(scanner: Scanner, options: argparse.Namespace) -> bool:
    if not options.texts:
        raise InputError("there is no text: pass one, as in `flyball rules explain 'how to ...'`")
    for line in explain(scanner.pack, scanner.scan(" ".join(options.texts))):
        _print(line)
    return False


def _bench(scanner: Scanner, options: argparse.Namespace) -> bool:
    paths = [Path(text) for text in options.texts] or [DEVELOPMENT]
    if not options.texts and not DEVELOPMENT.is_dir():
        raise InputError(f"there is no `{DEVELOPMENT}` here: name a labelled set, a file or folder of JSON Lines")
    examples = read_sets(paths, options.half)
    began = time.perf_counter()
    flags = scanner.scan_batch([example.text for example in examples]).flagged.tolist()
    seconds = time.perf_counter() - began
    for line in table(count(examples, flags)):
        _print(line)
    size = sum(len(example.text.encode("utf-8", "surrogatepass")) for example in examples)
    pack = scanner.pack
    _say(f"{pack.name} {pack.version} {pack.hash[:12]}, {options.half} half: {len(examples)} texts, "
         f"{size / 1e6 / max(seconds, 1e-9):.0f} MB/s")  # fmt: skip
    return False


def table(figures: Figures) -> list[str]:
    """Write figures in lines: the whole, then each group of each label; shares with their intervals at 95 %."""
    named = {"harmful": "caught", "harmless": "look-alikes flagged", "help": "help-seeking flagged",
             "ordinary": "ordinary text flagged"}  # fmt: skip
    lines = [f"{named[label]:<24} {figures.share(label)}" for label in LABELS if figures.share(label).total]
    if figures.share("harmful").total and figures.share("harmless").total:
        lines.append(f"{'Youden J':<24} {figures.youden:.3f}")
        lines.append(f"{'precision on this set':<24} {figures.precision}")
    for label in LABELS:
        groups = figures.groups(label)
        if len(groups) > 1:
            lines += ["", f"{label}:"]
            lines += [f"  {group:<30} {figures.share(label, group)}" for group in groups]
    return lines


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
