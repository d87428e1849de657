"""The `flyball` command.

Exit codes: 0 fine, 1 it failed, 2 wrong use, 3 found something, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.errors import ConfigError, FlyballError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyball.measure import ClassificationResult

FINE, FAILED, WRONG_USE, FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    What flyball or the system refuses is one line on standard error; `--traceback` shows the rest.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a failure can be answered, and not when Python ends
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    except OSError as error:
        # What Python still wants to flush at its end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return FINE  # whoever read this has left
        sys.stderr.write(f"error: standard output cannot be written ({error.strerror})\n")
        return FAILED


def _run(arguments: Sequence[str] | None) -> int:
    front = parser()
    options, rest = front.parse_known_args(arguments)
    # argparse takes positional arguments in one row only; settings and paths may stand anywhere.
    if unknown := [text for text in rest if text.startswith("-")]:
        front.error(f"unrecognized arguments: {' '.join(unknown)}")
    getattr(options, options.positional).extend(rest)
    try:
        return int(options.run(options))
    except (FlyballError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        if options.traceback:
            traceback.print_exc()
        else:
            sys.stderr.write(f"error: {error}\n")
        return WRONG_USE if isinstance(error, ConfigError) else FAILED


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")

    front = argparse.ArgumentParser(prog="flyball", description="A governor for PyTorch training.", allow_abbrev=False)
    front.add_argument("--version", action=_Version)
    commands = front.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        parents=[shared],
        allow_abbrev=False,
        help="train, evaluate and draw on real data, in under a minute",
        description="Train a small network on 1,797 handwritten digits twice, on the same stream with faults in it: "
        "without a governor, and with one. Evaluate both on a test split that they have not seen, and leave a run "
        "folder: the configuration, the journals, the weights and a picture.",
    )
    demo.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="a setting, as in training.epochs=3")
    demo.add_argument("--config", type=Path, metavar="FILE", help="a TOML or YAML file of settings")
    demo.add_argument(
        "--run", dest="folder", type=Path, metavar="FOLDER",
        help="where the run goes (default: a new folder under runs)",
    )  # fmt: skip
    demo.add_argument("--settings", dest="list_settings", action="store_true",
                      help="print every setting with its value, as TOML, and stop")  # fmt: skip
    demo.set_defaults(run=_demo, positional="settings")
    scan = commands.add_parser(
        "scan",
        parents=[shared],
        allow_abbrev=False,
        help="find the rules of a pack in text files, Parquet files, or what is piped in",
        description="Scan the lines of text files, or a column of Parquet files, in constant memory, and print what "
        "was found. The exit code is 0 if nothing was found, 3 if something was, 1 if a file could not be read to its "
        "end (the others are scanned all the same), and 2 for wrong use.",
    )
    scan.add_argument("paths", nargs="*", metavar="FILE", help="a text file, a .parquet file, or - for standard input")
    scan.add_argument("--pack", default="default", help="the name of a pack, or a TOML file (default: default)")
    scan.add_argument("--column", help="the column of a Parquet file")
    scan.add_argument("--format", choices=("text", "jsonl"), default="text", help="what is printed (default: text)")
    scan.add_argument("--parquet", type=Path, metavar="FILE", help="write the findings to a Parquet file instead")
    scan.add_argument("--threads", type=int, help="how many threads scan (default: all)")
    scan.set_defaults(run=_scan, positional="paths")
    report = commands.add_parser(
        "report",
        parents=[shared],
        allow_abbrev=False,
        help="write what happened in a run, or in several, as one HTML file",
        description="Read the journals of runs and write one self-contained HTML file: the curve with what was left "
        "out and undone, each intervention with its evidence and cost, the evaluation with intervals, and the "
        "comparison of several runs.",
    )
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a journal")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where it goes (default: report.html in the first run folder)"
    )
    report.set_defaults(run=_report, positional="runs")
    rules = commands.add_parser(
        "rules",
        parents=[shared],
        allow_abbrev=False,
        help="lint, show, test, bench and explain the rules of a pack",
        description="lint [PACK]: what is wrong with a pack, with file and line. test [PACK]: run its examples. show "
        "[RULE ...]: its rules, or all of one. bench [SET ...]: how well it separates labelled texts, by family, with "
        "intervals. explain TEXT: which rules find what, slot by slot, and what lowers them. The exit code is 3 if "
        "something is wrong with the pack.",
    )
    rules.add_argument("action", choices=("lint", "show", "test", "bench", "explain"), help="what to do")
    rules.add_argument("texts", nargs="*", metavar="ARGUMENT", help="a pack, rules, labelled sets, or a text")
    rules.add_argument("--pack", default="default", help="the name of a pack, or a TOML file (default: default)")
    rules.add_argument("--half", choices=("open", "locked", "both"), default="both",
                       help="which half of the labelled sets `bench` counts (default: both)")  # fmt: skip
    rules.set_defaults(run=_rules, positional="texts")
    return front


class _Version(argparse.Action):
    """Print the version; read from the compiled module only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and stop")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from flyball._native import __version__

        sys.stdout.write(f"flyball {__version__}\n")
        parser.exit()


def _demo(options: argparse.Namespace) -> int:
    from flyball import demo
    from flyball.config import load, to_toml
    from flyball.observe.terminal import Terminal

    config = load(demo.DemoConfig, options.config, overrides=options.settings)
    if options.list_settings:
        sys.stdout.write(to_toml(config))
        return FINE
    import torch

    # For a model this small a second thread mostly waits, and on a busy machine it waits for long.
    torch.set_num_threads(1)
    logging.getLogger("flyball.govern").setLevel(logging.ERROR)  # the view says what the governor does
    # A batch system that ends the run is to find the reason in its journal.
    signal.signal(signal.SIGTERM, _terminated)
    view = Terminal()
    outcome = demo.run(config, options.folder, view.show)
    rows = [
        ("test accuracy", _accuracy(outcome.ungoverned), _accuracy(outcome.governed)),
        ("batches left out", "0", str(outcome.left_out)),
        ("rollbacks", "0", str(outcome.rollbacks)),
        ("steps lost to them", "0", str(outcome.steps_lost)),
    ]
    view.table("the same faulty stream, twice", ("", "without", "governed"), rows)
    numbers = demo.told(outcome)
    view.table("the test split, with 95 % intervals", ("", "without", "governed"), numbers)
    view.paragraph(f"governed against without: {outcome.comparison.mcnemar}")
    view.line(f"difference of accuracy {outcome.comparison.difference}\n")
    view.line(f"run folder  {outcome.folder}")
    view.line(f"picture     {outcome.picture}")
    view.line(f"report      {outcome.report}")
    return FINE


def _rules(options: argparse.Namespace) -> int:
    from flyball.scan.rules.command import run

    return FOUND if run(options) else FINE


def _scan(options: argparse.Namespace) -> int:
    from flyball.scan.command import run

    outcome = run(options)
    if outcome.failed:
        return FAILED  # what was not read may hold anything
    return FOUND if outcome.found else FINE


def _report(options: argparse.Namespace) -> int:
    from flyball.observe.html import write_report

    first = Path(options.runs[0])
    output = options.output or (first if first.is_dir() else first.parent) / "report.html"
    sys.stdout.write(f"{write_report(options.runs, output)}\n")
    return FINE


def _accuracy(result: ClassificationResult | None) -> str:
    return "not a number" if result is None else f"{result.accuracy.value:.4f}"


def _terminated(*_: object) -> None:
    raise SystemExit(TERMINATED)
