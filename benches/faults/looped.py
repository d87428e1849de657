"""The loop closed: real trainings with torch's optimizers, real faults, and a guard that acts on what it sees.

The healthy run is trained once, plainly. Since a healthy governed run is the same bit for bit, each guard is put where
it would stand about a hundred steps before the fault, and goes on from there. A hundred updates later, one to three
after the fault, a snapshot is due: whether damage is then trusted is counted too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch

from benches.faults.fleet import Fleet
from benches.faults.training import Batch, Training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benches.faults.faults import Fault
    from benches.faults.guards import Done, Guard
    from benches.faults.task import Task

    Make = Callable[[Training, list[tuple[float, float]]], Guard]

BEFORE = 200  # clean steps that a value must lie above to be visible
WITHIN = 6
AFTER = 60
LAST = 20  # batches that the end of a run is measured on
QUIET = 50  # steps at the end of a shift that must be silent
CADENCE = 100


@dataclass
class Runs:
    """What became of one fault under one guard, in sums over runs.

    Attributes:
        runs: How many there were.
        bad: How many bad steps they had.
        bad_visible: How many of those were visible.
        bad_refused: How many of the visible ones were refused.
        bad_all_refused: How many of all bad ones were refused.
        good_refused: How many good steps were refused, the steps of the run before the fault included.
        rolled: In how many runs there was a rollback.
        rollbacks: How many there were.
        stopped: How many runs were stopped with the reason.
        visible: For damaged states, how many were visible.
        found: How many of those were rolled back within six steps.
        due: How many of the visible ones had a snapshot due before that, one to three steps after the damage.
        trusted: How many of these snapshots came to be trusted.
        untouched: In how many the first step of the fault left every parameter, moment and buffer as it was.
        broken: How many ended with a parameter or buffer that is not finite.
        silent: In how many the last fifty steps were neither refused nor rolled back.
        excess: For positive losses: the logarithm of the loss at the end over that of the clean run on the same
            batches, both raised by a twentieth of the first loss.
    """

    runs: int = 0
    bad: int = 0
    bad_visible: int = 0
    bad_refused: int = 0
    bad_all_refused: int = 0
    good_refused: int = 0
    rolled: int = 0
    rollbacks: int = 0
    stopped: int = 0
    visible: int = 0
    found: int = 0
    due: int = 0
    trusted: int = 0
    untouched: int = 0
    broken: int = 0
    silent: int = 0
    excess: list[float] = field(default_factory=list)

    def add(self, other: Runs) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Clean:
    """What a guard did to healthy runs.

    Attributes:
        steps: How many steps they had.
        refused: How many of them were refused.
        rollbacks: How many rollbacks there were.
        stopped: How many runs were stopped.
        asked: How many batches were served again.
    """

    steps: int = 0
    refused: int = 0
    rollbacks: int = 0
    stopped: int = 0
    asked: int = 0

    def add(self, other: Clean) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(frozen=True)
class Healthy:
    """A healthy run up to a fault, and where it would have gone.

    Attributes:
        task: The family.
        start: The step at which guards take over.
        position: The step of the fault.
        past: Loss and norm of every step before `position`.
        state: The training at `start`.
        struck: The training at `position`.
        batches: All batches from `start` on.
        ends: The state of the clean run by step, where a fault ends.
        first: The loss of the first step.
    """

    task: Task
    start: int
    position: int
    past: list[tuple[float, float]]
    state: dict[str, Any]
    struck: dict[str, Any]
    batches: list[Batch]
    ends: Mapping[int, dict[str, Any]]

    def part(self, first: int, last: int) -> list[Batch]:
        """Return the batches of these steps."""
        return self.batches[first - self.start : last - self.start]


def length(fault: Fault) -> int:
    """Return how many steps of a fault are run."""
    return fault.steps if fault.kind == "slow" else max(AFTER, 2 * len(fault.bad) + AFTER // 2)


def healthy(family: type[Task], replica: int, seed: int, faults: Sequence[Fault]) -> Healthy:
    """Train a family plainly to beyond the last step of the longest fault."""
    task = family(1, 1000 * seed + replica)
    position = BEFORE + 40 + 160 * (replica % 3)
    start = position - CADENCE + 1 + replica % 3
    ends = {position + length(fault) for fault in faults}
    training = Training(task)
    past, states, batches = [], {}, []
    for step in range(max(ends) + 1):
        if step in {start, position} | ends:
            states[step] = training.state()
        batch = training.batch(step)
        if step >= start:
            batches.append(batch)
        numbers = training.backward(batch)
        training.update()
        if step < position:
            past.append(numbers)
    batches += [training.batch(step) for step in range(max(ends) + 1, max(ends) + LAST)]
    return Healthy(task, start, position, past, states[start], states[position], batches, states)


def spoilt(run: Healthy, fault: Fault) -> list[Batch]:
    """Return the batches from the start to the end of the fault, the bad ones spoilt."""
    batches = run.part(run.start, run.position + length(fault))
    for index, (number, inputs, targets) in enumerate(batches):
        if number - run.position in fault.bad:
            generator = run.task.generator(f"{fault.name} {number}")
            batches[index] = Batch(number, *fault.spoil(inputs, targets, generator))
    return batches


def visible(run: Healthy, fault: Fault, batches: list[Batch]) -> list[bool]:
    """Say for the first steps of a fault, bad ones left out, whether loss or norm lies above all that was before."""
    highest = [max(numbers) for numbers in zip(*run.past[-BEFORE:], strict=True)]
    training = Training(run.task, run.struck)
    training.model.strike(fault, run.position)
    over = []
    for batch in batches[run.position - run.start :][: max(fault.bad, default=4) + 2]:
        step = batch.number - run.position
        loss = training.model(batch)
        loss.backward()
        if fault.kind == "gradient" and step in fault.bad:
            training.model.grind(fault, step)
        limit = run.task.recipe.clip
        norm = torch.nn.utils.clip_grad_norm_(training.model.parameters(), math.inf if limit is None else limit)
        values = float(loss.detach()), float(norm)
        over.append(any(not value <= high for value, high in zip(values, highest, strict=True)))
        if step in fault.bad:
            training.optimizer.zero_grad()
            continue
        for group in training.optimizer.param_groups:
            group["lr"] *= fault.rate(step)
        training.update()
    return over


def drive(run: Healthy, fault: Fault, make: Make, batches: list[Batch], over: list[bool]) -> Runs:
    """Have a guard govern the run through a fault, and say what became of it."""
    drive = _Drive(run, fault, make)
    drive.go(batches)
    return drive.result(over)


class _Drive:
    """One run under one guard; steps are counted from the fault on."""

    def __init__(self, run: Healthy, fault: Fault, make: Make) -> None:
        self.run, self.fault = run, fault
        self.training = Training(run.task, run.state)
        self.guard = make(self.training, run.past[: run.start])
        self.step = run.start - 1 - run.position
        self.refused: dict[int, bool] = {}
        self.rolled: list[int] = []
        self.stopped = self.untouched = self.trusted = False
        self.before: dict[str, Any] = {}
        self.damaged_from = 0

    def go(self, batches: list[Batch]) -> None:
        for batch in self.guard.feed(batches):
            probing = self.guard.probing
            if not probing:
                self.step = batch.number - self.run.position
            done = self._take(batch, factor=1.0 if probing or self.step < 0 else self.fault.rate(self.step))
            if done.stopped:
                self.stopped = True
                break
            if done.rolled_back:
                self.rolled.append(self.step)
            if not probing:
                self._after(done)
            if self.step >= 0 and not any(step >= 0 for step in self.rolled):
                self.trusted = self.guard.committed > self.damaged_from

    def _take(self, batch: Batch, factor: float) -> Done:
        model, groups = self.training.model, self.training.optimizer.param_groups
        loss = model(batch)
        loss.backward()
        if not self.guard.probing and self.fault.kind == "gradient" and self.step in self.fault.bad:
            model.grind(self.fault, self.step)
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= factor
        done = self.guard.step(loss)
        if done.refused and not done.rolled_back:  # an update or a restore sets the rate anew
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
        return done

    def _after(self, done: Done) -> None:
        self.refused[self.step] = done.refused
        if self.step == 0:
            self.untouched = same(self.before, self.training)
        if self.step == -1:
            self.training.model.strike(self.fault, self.run.position)
            self.before, self.damaged_from = self.training.state(), self.guard.updates

    def result(self, over: list[bool]) -> Runs:
        fault, refused = self.fault, self.refused
        shown = [step for step in fault.bad if step < len(over) and over[step]]
        quiet = range(self.step - QUIET + 1, self.step + 1)
        damaged = fault.kind == "state" and sum(over[fault.shows : fault.shows + 5]) >= 2
        found = damaged and any(0 <= step - fault.shows <= WITHIN for step in self.rolled)
        return Runs(
            runs=1,
            bad=len(fault.bad),
            bad_visible=len(shown),
            bad_refused=sum(refused.get(step, False) for step in shown),
            bad_all_refused=sum(refused.get(step, False) for step in fault.bad),
            good_refused=sum(said for step, said in refused.items() if step not in fault.bad),
            rolled=int(bool(self.rolled)),
            rollbacks=len(self.rolled),
            stopped=int(self.stopped),
            visible=int(damaged),
            found=int(found),
            due=int(damaged),
            trusted=int(damaged and self.trusted),
            untouched=int(self.untouched),
            broken=int(not self.training.model.finite()),
            silent=int(not any(refused.get(step, False) or step in self.rolled for step in quiet)),
            excess=[] if self.run.task.signed or self.stopped else [_excess(self.run, fault, self.training)],
        )


def same(before: dict[str, Any], training: Training) -> bool:
    """Tell whether model and optimizer are bit for bit as they were."""
    now = training.state()
    flat = [_tensors(one) for one in (before["model"], now["model"], before["optimizer"], now["optimizer"])]
    pairs = [(flat[0], flat[1]), (flat[2], flat[3])]
    return all(
        len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        for one, other in pairs
    )


def _tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree.nan_to_num()]
    if isinstance(tree, dict):
        return [tensor for one in tree.values() for tensor in _tensors(one)]
    return [tensor for one in tree for tensor in _tensors(one)] if isinstance(tree, list | tuple) else []


def _excess(run: Healthy, fault: Fault, training: Training) -> float:
    end = run.position + length(fault)
    batches = run.part(end, end + LAST)
    clean = Training(run.task, run.ends[end]).mean_loss(batches)
    offset = 0.05 * run.past[0][0]
    ratio = (training.mean_loss(batches) + offset) / (clean + offset)
    return math.log(ratio) if math.isfinite(ratio) else math.inf


def clean_run(family: type[Task], replica: int, seed: int, make: Make, steps: int | None = None) -> Clean:
    """Govern a whole healthy run from its first step."""
    task = family(1, 1000 * seed + replica, steps)
    training = Training(task)
    guard = make(training, [])
    result = Clean()
    batches = [training.batch(step) for step in range(task.steps)]
    for batch in guard.feed(batches):
        probing = guard.probing
        loss = training.model(batch)
        loss.backward()
        done = guard.step(loss)
        result.rollbacks += done.rolled_back
        result.asked += probing
        result.steps += not probing
        result.refused += not probing and done.refused
        if done.stopped:
            result.stopped += 1
            break
    return result


def possible(task: Task, faults: Sequence[Fault]) -> list[Fault]:
    """Return the faults that a family can have."""
    fleet = Fleet.launch(task)
    return [fault for fault in faults if fault.possible(fleet)]
