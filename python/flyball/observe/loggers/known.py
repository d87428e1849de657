"""The loggers that people have. Each imports its package when it is made; none is needed by flyball.

Numbers that are not finite are left out where a package refuses them, and counted nowhere: the journal has them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flyball.errors import MissingExtraError
from flyball.observe.loggers.base import Logger

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from flyball.events import RunStarted

_PURPOSE = "passing a journal on"


class TensorBoard(Logger):
    """Write event files for TensorBoard.

    Args:
        folder: Where they go.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", extra="loggers", purpose=_PURPOSE) from error
        self._writer: Any = SummaryWriter(str(folder))  # type: ignore[no-untyped-call, unused-ignore]

    def begin(self, started: RunStarted) -> None:
        """Write down the settings, as text."""
        rows = "\n".join(f"    {name} = {value}" for name, value in _flat(started.config).items())
        self._writer.add_text("settings", f"{started.name} on {started.device}, seed {started.seed}\n\n{rows}", 0)

    def log(self, step: int, values: Mapping[str, float], text: str) -> None:
        """Add a scalar for each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if text:
            self._writer.add_text("governor", text, step)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WandB(Logger):
    """Log to Weights & Biases; offline unless you say otherwise, so that nothing leaves the machine unasked.

    Args:
        project: The project.
        settings: What else `wandb.init` takes; ``mode="online"`` talks to its server.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self, project: str, **settings: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", extra="loggers", purpose=_PURPOSE) from error
        self._run: Any = wandb.init(project=project, **{"mode": "offline", **settings})
        # A verdict is about a step that is over; wandb's own counter never goes back.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def begin(self, started: RunStarted) -> None:
        """Write down the settings."""
        self._run.config.update(_flat(started.config))

    def log(self, step: int, values: Mapping[str, float], text: str) -> None:
        """Log a row, with the step as one of its numbers."""
        self._run.log({"step": step, **values, **({"governor/said": text} if text else {})})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow(Logger):
    """Log to MLflow; to a file of this machine unless you name a server.

    Args:
        experiment: The experiment.
        tracking: Where to, as MLflow's tracking URI.
        name: What the run is called.

    Raises:
        MissingExtraError: mlflow is not installed.
    """

    def __init__(self, experiment: str, *, tracking: str = "sqlite:///mlflow.db", name: str | None = None) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError as error:
            raise MissingExtraError("mlflow", extra="loggers", purpose=_PURPOSE) from error
        self._client: Any = MlflowClient(tracking_uri=tracking)  # a client of its own: no global run is begun
        self._metric, self._param = Metric, Param
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self._run: str = self._client.create_run(number, run_name=name).info.run_id
        self._waiting: list[Any] = []

    def begin(self, started: RunStarted) -> None:
        """Write down the settings; MLflow takes a hundred at a time and values of 6000 letters."""
        params = [self._param(name, str(value)[:6000]) for name, value in _flat(started.config).items()]
        for first in range(0, len(params), 100):
            self._client.log_batch(self._run, params=params[first : first + 100])

    def log(self, step: int, values: Mapping[str, float], text: str) -> None:
        """Log the numbers, a thousand at a time: each call is a transaction."""
        import time

        now = int(time.time() * 1000)
        allowed = {name: _allowed(name) for name in values}
        self._waiting += [self._metric(allowed[name], value, now, step) for name, value in values.items()]
        if text:
            self._client.set_tag(self._run, f"governor.{step}", text[:5000])
        if len(self._waiting) >= 1000:
            self._flush()

    def close(self) -> None:
        """Log what waits, and end the run."""
        self._flush()
        self._client.set_terminated(self._run)

    def _flush(self) -> None:
        for first in range(0, len(self._waiting), 1000):
            self._client.log_batch(self._run, metrics=self._waiting[first : first + 1000])
        self._waiting = []


class Trackio(Logger):
    """Log to trackio, in its folder on this machine.

    Args:
        project: The project.
        settings: What else `trackio.init` takes.

    Raises:
        MissingExtraError: trackio is not installed.
    """

    def __init__(self, project: str, **settings: Any) -> None:
        try:
            import trackio
        except ImportError as error:
            raise MissingExtraError("trackio", extra="loggers", purpose=_PURPOSE) from error
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self._trackio = trackio
        self._run: Any = trackio.init(project=project, **{**quiet, **settings})

    def begin(self, started: RunStarted) -> None:
        """Write down the settings."""
        self._run.config.update(_flat(started.config))

    def log(self, step: int, values: Mapping[str, float], text: str) -> None:
        """Log a row."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._run.log({**finite, **({"governor/said": text} if text else {})}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat


def _allowed(name: str) -> str:
    """MLflow takes letters, digits and a few signs."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
