"""Losses and norms of healthy runs and of forks with a fault: recorded once, shown to every detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benches.faults.faults import FAULTS
from benches.faults.fleet import Fleet, Measured

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benches.faults.faults import Fault
    from benches.faults.task import Task

    Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Forked:
    """One fault, begun at one position of the run: steps x replicas.

    Attributes:
        fault: What was done.
        position: The step of the run at which it began.
        applied: Whether the bad steps updated the weights.
        losses: The loss of each step.
        norms: The gradient norm of each step.
    """

    fault: Fault
    position: int
    applied: bool
    losses: Numbers
    norms: Numbers


@dataclass(frozen=True)
class Recording:
    """Everything that was recorded of one family."""

    task: Task
    losses: Numbers
    norms: Numbers
    forks: list[Forked]
    fleets: dict[int, Fleet]


def positions(steps: int) -> tuple[int, ...]:
    """Return the steps at which faults begin: early, in the middle, late; a run that is short has only the middle."""
    middle = int(0.45 * steps)
    return (160, middle, int(0.85 * steps)) if steps >= 1000 else (middle,)


def faulty_step(fleet: Fleet, fault: Fault, step: int) -> Measured:
    """Measure one step of a fork, as the fault leaves it."""
    inputs, targets = fleet.batch()
    if step in fault.bad:
        inputs, targets = fault.spoil(inputs, targets, fleet.task.generator(f"{fault.name} {fleet.step}"))
    measured = fleet.measure(inputs, targets)
    if step in fault.bad and fault.kind == "gradient":
        gradient = fault.grind(measured.gradient, step)
        norms = torch.linalg.vector_norm(gradient, dim=1)
        measured = Measured(measured.losses, norms, gradient, measured.buffers)
    return measured


def fork(fleet: Fleet, fault: Fault, *, applied: bool) -> Forked:
    """Record what a fault does to a copy of the fleet."""
    position, fleet = fleet.step, fleet.fork()
    fault.strike(fleet, fleet.task.generator(f"{fault.name} at {position}"))
    losses, norms = [], []
    for step in range(fault.steps):
        measured = faulty_step(fleet, fault, step)
        losses.append(measured.losses)
        norms.append(measured.norms)
        if step in fault.bad and not applied:
            fleet.skip()
        else:
            fleet.apply(measured, rate=fault.rate(step))
    return Forked(fault, position, applied, _numbers(losses), _numbers(norms))


def record(task: Task, faults: Iterable[Fault] = FAULTS) -> Recording:
    """Train the replicas of a task, and fork the run at each position into each fault."""
    fleet = Fleet.launch(task)
    chosen = [fault for fault in faults if fault.possible(fleet)]
    losses, norms, forks, fleets = [], [], [], {}
    for step in range(task.steps):
        if step in positions(task.steps):
            fleets[step] = fleet.fork()
            for fault in chosen:
                forks += [fork(fleet, fault, applied=applied) for applied in ways(fault)]
        measured = fleet.measure(*fleet.batch())
        losses.append(measured.losses)
        norms.append(measured.norms)
        fleet.apply(measured)
    return Recording(task, _numbers(losses), _numbers(norms), forks, fleets)


def ways(fault: Fault) -> tuple[bool, ...]:
    """Return in which ways a fault is recorded: bad batches once refused and once applied, the rest as it comes."""
    if fault.kind == "batch":
        return False, True
    return (False,) if fault.kind == "gradient" else (True,)


def _numbers(rows: list[Tensor]) -> Numbers:
    return torch.stack(rows).double().numpy()
