"""The `flyball` command. Exit codes: 0 fine, 1 it failed, 2 wrong use, 130 interrupted."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.errors import ConfigError, FlyballError

if TYPE_CHECKING:
    from collections.abc import Sequence

FINE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    What flyball or the system refuses is one line on standard error; `--traceback` shows the rest.
    """
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    except (FlyballError, OSError) as error:
        if options.traceback:
            raise
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
        description="Train a small network on 1,797 handwritten digits, evaluate it on a test split that it has "
        "not seen, and leave a run folder: the configuration, the journal, the weights and a picture.",
    )
    demo.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="a setting, as in training.epochs=3")
    demo.add_argument("--config", type=Path, metavar="FILE", help="a TOML or YAML file of settings")
    demo.add_argument(
        "--run", dest="folder", type=Path, metavar="FOLDER",
        help="where the run goes (default: a new folder under runs)",
    )  # fmt: skip
    demo.add_argument("--settings", dest="list_settings", action="store_true",
                      help="print every setting with its value, as TOML, and stop")  # fmt: skip
    demo.set_defaults(run=_demo)
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
    from flyball import demo, run_folder
    from flyball.config import load, to_toml
    from flyball.observe.terminal import Terminal

    config = load(demo.DemoConfig, options.config, overrides=options.settings)
    if options.list_settings:
        sys.stdout.write(to_toml(config))
        return FINE
    view = Terminal()
    folder = options.folder or run_folder.fresh(Path("runs"), config.name)
    outcome = demo.run(config, folder, view.show)
    view.line(f"run folder  {os.path.relpath(outcome.folder)}")
    view.line(f"picture     {os.path.relpath(outcome.picture)}")
    return FINE
