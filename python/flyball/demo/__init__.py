"""`flyball demo`: real data, a small model, faults, and the same training with and without a governor."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyball import run_folder
from flyball.config import save, to_mapping
from flyball.demo.settings import Data as Data
from flyball.demo.settings import DemoConfig as DemoConfig
from flyball.demo.settings import Training as Training
from flyball.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from flyball.data import Splits
    from flyball.evaluation import Evaluation
    from flyball.evaluation.comparison import Comparison
    from flyball.events import Estimate, Event
    from flyball.measure import ClassificationResult

__all__ = ["Data", "DemoConfig", "Outcome", "Training", "run", "told"]

_EXAMINED = {
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "macro F1": "macro_f1",
    "MCC": "mcc",
    "NLL": "nll",
    "Brier": "brier",
    "ECE": "ece",
}


@dataclass(frozen=True)
class Outcome:
    """What a demo leaves: the numbers of the test split, and where the files lie.

    Args:
        governed: What the governed model reaches; None if its weights are not numbers.
        ungoverned: What the same training without a governor reaches; None likewise.
        left_out: How many batches the governor left out.
        rollbacks: How often it rolled back.
        steps_lost: How many applied steps the rollbacks took back.
        folder: The run folder; the ungoverned run is in a folder of its own in it.
        picture: Both runs in one picture.
        report: Both runs in one page.
        evaluation: All that is known of the governed model, on the test split.
        rival: The same of the ungoverned one.
        comparison: The governed model against the ungoverned one, sample by sample.
    """

    governed: ClassificationResult | None
    ungoverned: ClassificationResult | None
    left_out: int
    rollbacks: int
    steps_lost: int
    folder: Path
    picture: Path
    report: Path
    evaluation: Evaluation
    rival: Evaluation
    comparison: Comparison


def run(config: DemoConfig, folder: Path | None, show: Callable[[Event], None]) -> Outcome:
    """Train on the digits twice, on the same faulty stream, and leave a run folder.

    Args:
        config: What to do.
        folder: Where the run goes; it must not hold one. By default a new folder under `runs`.
        show: Called with every event as it happens, after the journal has it.

    Raises:
        MissingExtraError: scikit-learn or matplotlib is not installed.
        DeviceError: The device is not present.
        RunFolderError: The folder cannot be created, or holds a run already.
        WriteError: A file cannot be written.
    """
    # Whatever can fail for want of a package or a folder fails here, before any work is done.
    from flyball import data, events
    from flyball.demo.faults import Faults
    from flyball.device import choose_device
    from flyball.govern.records import RolledBack, VerdictGiven
    from flyball.observe import plots
    from flyball.observe.html import write_report

    device = choose_device(config.device)
    splits = data.digits(validation=config.data.validation, test=config.data.test, seed=config.seed)
    folder = run_folder.create_fresh(Path("runs"), config.name) if folder is None else run_folder.create(folder)
    governed = _train(config, splits, device, folder, show, governed=True)
    twin = run_folder.create(folder / "ungoverned")
    ungoverned = _train(config, splits, device, twin, show, governed=False)

    batches = -(-len(splits.train) // config.training.batch_size)
    faults = Faults(config.training.epochs * batches).names if config.faults else {}
    journals = [events.read(one / run_folder.JOURNAL) for one in (folder, twin)]
    picture = folder / "training.png"
    plots.save(plots.governed(*journals, faults=faults), picture)
    report = write_report([folder, twin], folder / "report.html")
    told = [record.event for record in events.read(folder / run_folder.JOURNAL)]
    left_out = {e.step for e in told if isinstance(e, VerdictGiven) and e.action == "skip" and "data" in e.reasons}
    rollbacks = [event for event in told if isinstance(event, RolledBack)]
    return Outcome(
        _numbers(governed),
        _numbers(ungoverned),
        left_out=len(left_out),
        rollbacks=len(rollbacks),
        steps_lost=sum(back.step - back.back_to for back in rollbacks),
        folder=folder,
        picture=picture,
        report=report,
        evaluation=governed,
        rival=ungoverned,
        comparison=governed.compare(ungoverned),
    )


def told(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Return the rows of a table of both evaluations: what is measured, without a governor, governed."""
    both = outcome.rival, outcome.evaluation
    # An answer that is no number is wrong.
    rows = [("wrong answers", *(str(one.selective.risk if one.selective else None) for one in both))]
    rows += [(name, *(_shown(evaluation, name) for evaluation in both)) for name in _EXAMINED]
    return [(name, without, governed) for name, without, governed in rows]


def _shown(evaluation: Evaluation, name: str) -> str:
    result = _numbers(evaluation)
    number = None if result is None else getattr(result, _EXAMINED[name])
    return "not a number" if number is None else str(number)


def _train(
    config: DemoConfig,
    splits: Splits,
    device: torch.device,
    folder: Path,
    show: Callable[[Event], None],
    *,
    governed: bool,
) -> Evaluation:
    from safetensors.torch import save as tensors_to_bytes

    from flyball import events
    from flyball.demo import loop

    started = time.monotonic()
    name = folder.resolve().name or config.name
    with events.Journal(folder / run_folder.JOURNAL, run=name) as journal:

        def emit(event: Event) -> None:
            journal.write(event)
            show(event)

        try:
            save(config, folder / run_folder.CONFIG)
            emit(_start(config, device, governed=governed))
            model = loop.train(splits, config, device, emit, _Told(emit) if governed else None)
            evaluation = loop.examine(model, splits.test, device)
            result = _numbers(evaluation)
            emit(events.Evaluated(split="test", measurements={} if result is None else _measurements(result)))
            weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
            write_whole(folder / run_folder.CHECKPOINTS / "final.safetensors", tensors_to_bytes(weights))
            emit(events.RunFinished(reason="completed", seconds=time.monotonic() - started))
        except BaseException as error:  # an interrupt is an end as well, and the journal says which
            emit(events.RunFailed(error=type(error).__name__, message=str(error)))
            raise
    return evaluation


def _numbers(evaluation: Evaluation) -> ClassificationResult | None:
    """Return what the meter found; None if anything the model says is not a number."""
    return None if evaluation.nonfinite_samples else evaluation.classification


class _Told:
    """What the governor says goes where everything else goes."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self.write = emit


def _start(config: DemoConfig, device: torch.device, *, governed: bool) -> Event:
    import numpy as np
    import torch

    from flyball._native import __version__
    from flyball.events import RunStarted

    versions = {
        "flyball": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return RunStarted(
        name=f"{config.name}, {'governed' if governed else 'not governed'},",
        seed=config.seed,
        device=str(device),
        versions=versions,
        config=to_mapping(config),
    )


def _measurements(result: ClassificationResult) -> dict[str, Estimate | float]:
    """Choose what a person reads first, each number before the one it must beat."""
    return {
        "accuracy": result.accuracy,
        "commonest class": result.majority_rate,
        "top-3 accuracy": result.topk[3],
        "balanced accuracy": result.balanced_accuracy,
        "macro F1": result.macro_f1,
        "NLL": result.nll,
        "NLL of class shares": result.prior_entropy,
    }
