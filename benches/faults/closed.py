"""In the loop: every detector governs a copy of the same run, and what it refuses really is refused."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benches.faults.detector import Clips, Remedy
from benches.faults.faults import FAULTS, Fault
from benches.faults.fleet import Fleet
from benches.faults.traces import faulty_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from benches.faults.detector import Detector
    from benches.faults.fleet import Measured

LAST = 20
NAMES = ("shuffled once", "burst of 20", "20 in a row", "inputs x100", "NaN", "inf", "rate x100",
         "head zeroed", "weight = 50")  # fmt: skip
HEALTHY = Fault()
GOVERNED = (HEALTHY, *(fault for fault in FAULTS if fault.name in NAMES))
UNGUARDED = "nobody"


@dataclass
class Ending:
    """How the runs of one detector ended, in sums over runs.

    Attributes:
        runs: How many there were.
        refused_bad: How many bad steps were refused.
        refused_good: How many good steps were.
        stopped: How many runs were stopped for a person to restart; nothing is counted after that.
        dead: How many ended with a weight that is not finite.
        poisoned: How many ended with a running statistic that is not finite.
        untouched: In how many the first step of the fault left every weight and moment as it was, bit for bit.
        excess: For runs that went on to the end, with a positive loss: the logarithm of the mean of the last 20
            losses over that of the same run without fault or detector, both raised by a twentieth of the loss at the
            start of training; infinite where it is not finite.
    """

    runs: int
    refused_bad: int
    refused_good: int
    stopped: int
    dead: int
    poisoned: int
    untouched: int
    excess: list[float]

    def add(self, other: Ending) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Nobody:
    """No detector."""

    remedy = Remedy.SKIP

    def observe(self, loss: float, norm: float) -> bool:
        del loss, norm
        return False


def govern(
    fleet: Fleet, stood: Mapping[str, list[Detector]], fault: Fault, *, replicas: int, steps: int = 150
) -> dict[str, Ending]:
    """Run one fault under every detector at once, one lane to each replica of each, and say how they ended.

    Args:
        fleet: The healthy run at some step.
        stood: For each detector's name, how it stood there, for each replica.
        fault: What goes wrong from there on.
        replicas: How many replicas of the fleet are used.
        steps: How long they go on.
    """
    names = [UNGUARDED, *stood]
    guards: list[Detector] = [Nobody() for _ in range(replicas)]
    guards += [copy.deepcopy(one) for name in stood for one in stood[name][:replicas]]
    wanted = _clean_ending(fleet.fork(torch.arange(replicas)), steps).repeat(len(names))
    start = Fleet.launch(fleet.task)
    offset = 0.05 * float(start.measure(*start.batch()).losses.median())  # what is far below the start is all one
    fleet = fleet.fork(torch.arange(replicas).repeat(len(names)))
    fault.strike(fleet, fleet.task.generator(f"{fault.name} at {fleet.step}"))
    stopped = untouched = torch.zeros(len(guards), dtype=torch.bool)
    stops = torch.tensor([guard.remedy is Remedy.STOP for guard in guards])
    bad, good, last = torch.zeros(len(guards)), torch.zeros(len(guards)), torch.zeros(len(guards))
    for step in range(steps):
        measured = faulty_step(fleet, fault, step)
        pairs = zip(measured.losses.tolist(), measured.norms.tolist(), strict=True)
        said = torch.tensor([guard.observe(*pair) for guard, pair in zip(guards, pairs, strict=True)]) & ~stopped
        stopped = stopped | (said & stops)
        before = fleet.weights, fleet.moments
        carry_out(fleet, measured, guards, said | stopped, rate=fault.rate(step))
        if step == 0:
            untouched = (fleet.weights == before[0]).all(1) & (fleet.moments == before[1]).flatten(1).all(1)
        if step in fault.bad:
            bad += said
        else:
            good += said
        if step >= steps - LAST:
            last += measured.losses / LAST
    excess = ((last + offset) / (wanted + offset)).log().nan_to_num(nan=math.inf, posinf=math.inf)
    dead = ~fleet.weights.isfinite().all(1)
    poisoned = torch.zeros_like(dead)
    for buffer in fleet.buffers.values():
        poisoned |= ~buffer.isfinite().all(1)
    endings = {}
    for index, name in enumerate(names):
        lanes = slice(index * replicas, (index + 1) * replicas)
        endings[name] = Ending(
            runs=replicas,
            refused_bad=int(bad[lanes].sum()),
            refused_good=int(good[lanes].sum()),
            stopped=int(stopped[lanes].sum()),
            dead=int(dead[lanes].sum()),
            poisoned=int(poisoned[lanes].sum()),
            untouched=int(untouched[lanes].sum()),
            excess=[] if fleet.task.signed else excess[lanes][~stopped[lanes]].tolist(),
        )
    return endings


def carry_out(fleet: Fleet, measured: Measured, guards: list[Detector], refused: Tensor, *, rate: float) -> None:
    """Update every lane as its detector's remedy has it."""

    def where(remedy: Remedy) -> Tensor:
        return refused & torch.tensor([guard.remedy is remedy for guard in guards])

    gradient = fleet.clipped(measured, fleet.task.recipe.clip)
    clip = where(Remedy.CLIP)
    if clip.any():
        own = math.inf if fleet.task.recipe.clip is None else fleet.task.recipe.clip
        limits = torch.tensor([min(own, guard.limit) if isinstance(guard, Clips) else own for guard in guards])
        gradient = torch.where(clip[:, None], fleet.clipped(measured, limits), gradient)
    weights, moments = fleet.moved(gradient, rate)
    factor = where(Remedy.FACTOR)
    still = refused & ~clip & ~factor
    times_zero = fleet.weights + 0.0 * (weights - fleet.weights), fleet.moments + 0.0 * (moments - fleet.moments)
    weights = torch.where(factor[:, None], times_zero[0], weights)
    moments = torch.where(factor[:, None, None], times_zero[1], moments)
    fleet.weights = torch.where(still[:, None], fleet.weights, weights)
    fleet.moments = torch.where(still[:, None, None], fleet.moments, moments)
    fleet.updates = fleet.updates + (~(still | factor)).float()
    restored = where(Remedy.RESTORE) | where(Remedy.STOP)
    for name, buffer in measured.buffers.items():
        fleet.buffers[name] = torch.where(restored[:, None], fleet.buffers[name], buffer)
    fleet.step += 1


def _clean_ending(fleet: Fleet, steps: int) -> Tensor:
    last = torch.zeros(len(fleet.weights))
    for step in range(steps):
        measured = fleet.measure(*fleet.batch())
        if step >= steps - LAST:
            last += measured.losses / LAST
        fleet.apply(measured)
    return last
