"""A governor for PyTorch training, with a Rust core.

This page is the front door. A name is loaded when it is first touched (PEP 562), so
``import flyball`` costs next to nothing and imports neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyball import data as data
    from flyball import errors as errors
    from flyball import events as events
    from flyball import govern as govern
    from flyball import measure as measure
    from flyball import objective as objective
    from flyball import scan as scan
    from flyball._native import __version__ as __version__
    from flyball.errors import ConfigError as ConfigError
    from flyball.errors import FlyballError as FlyballError
    from flyball.evaluation import Evaluation as Evaluation
    from flyball.evaluation import evaluate as evaluate
    from flyball.events import Journal as Journal
    from flyball.govern import Policy as Policy
    from flyball.govern import Verdict as Verdict
    from flyball.govern import Vitals as Vitals
    from flyball.govern.governor import Governor as Governor
    from flyball.scan import Pack as Pack
    from flyball.scan import Scanner as Scanner
    from flyball.train import Trainer as Trainer

__all__ = [
    "ConfigError",
    "Evaluation",
    "FlyballError",
    "Governor",
    "Journal",
    "Pack",
    "Policy",
    "Scanner",
    "Trainer",
    "Verdict",
    "Vitals",
    "__version__",
    "data",
    "errors",
    "evaluate",
    "events",
    "govern",
    "measure",
    "objective",
    "scan",
]

# Where each name lives; a name that equals the last part of its module is that module.
_HOMES = {
    "ConfigError": "flyball.errors",
    "Evaluation": "flyball.evaluation",
    "FlyballError": "flyball.errors",
    "Governor": "flyball.govern.governor",
    "Journal": "flyball.events",
    "Pack": "flyball.scan",
    "Policy": "flyball.govern",
    "Scanner": "flyball.scan",
    "Trainer": "flyball.train",
    "Verdict": "flyball.govern",
    "Vitals": "flyball.govern",
    "__version__": "flyball._native",
    "data": "flyball.data",
    "errors": "flyball.errors",
    "evaluate": "flyball.evaluation",
    "events": "flyball.events",
    "govern": "flyball.govern",
    "measure": "flyball.measure",
    "objective": "flyball.objective",
    "scan": "flyball.scan",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flyball' has no attribute {name!r}")
    module = import_module(home)
    value = module if home == f"flyball.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
