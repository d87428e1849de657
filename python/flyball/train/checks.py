"""What a trainer is given, looked at before anything is done with it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from flyball.errors import ConfigError, InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from flyball.train.history import EarlyStopping

_LOG = logging.getLogger("flyball.train")


def arguments(
    model: torch.nn.Module,
    *,
    accumulate: int,
    checkpoint_every: int | None,
    keep: int,
    refresh: bool | int,
    on_oom: str,
    channels_last: bool,
    run: str | os.PathLike[str] | None,
    stopping: EarlyStopping | None,
) -> None:
    """Refuse what cannot be meant.

    Raises:
        InputError: An argument is out of its range.
        ConfigError: Two contradict each other.
    """
    for name, value in (("accumulate", accumulate), ("checkpoint_every", checkpoint_every), ("keep", keep)):
        if value is not None and value < 1:
            raise InputError(f"`{name}` is {value}: give 1 or more")
    if refresh is not False and refresh < 1:
        raise InputError(f"`refresh` is {refresh}: give True, False, or how many batches, at least 1")
    if on_oom not in {"raise", "skip", "split"}:
        raise InputError(f"`on_oom` is {on_oom!r}: use 'raise', 'skip' or 'split'")
    if run is None and (checkpoint_every is not None or (stopping is not None and stopping.restore)):
        what = "`checkpoint_every`" if checkpoint_every is not None else "`stopping` with `restore`"
        raise ConfigError(f"{what} writes checkpoints, and `run` is None: name the folder of the run in `run=`")
    if channels_last and isinstance(model, torch.nn.parallel.DistributedDataParallel):
        raise ConfigError(
            "`channels_last` is True, and `model` is wrapped already: lay it out before, with "
            "`model.to(memory_format=torch.channels_last)`, and wrap it then"
        )


def device_of(model: torch.nn.Module) -> torch.device:
    """Return where a model is; the CPU if it has nothing that could be anywhere."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def length_of(loader: object) -> int | None:
    """Return how many batches a loader has, None if it does not know."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def monitored(measured: Mapping[str, float], name: str) -> float:
    """Return the measurement of a name.

    Raises:
        InputError: There is none; the message says what there is.
    """
    if name not in measured:
        raise InputError(
            f"`monitor` is {name!r}, which was not measured: use one of {', '.join(f'`{one}`' for one in measured)}"
        )
    return measured[name]


def tell_of_the_unowned(modules: Sequence[torch.nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Warn of parameters that could be trained and are not."""
    owned = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    names = [
        name
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in owned
    ]
    if names:
        shown = ", ".join(f"`{name}`" for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        _LOG.warning("no optimizer owns %s: give it to one, or set its `requires_grad` to False", shown)
