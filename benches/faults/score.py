"""How a detector did on recorded traces: what it refused, what of it was right, and how late.

A fault is *visible* if its values lie above everything in the 200 clean steps before, on loss or on norm: for a bad
step its own values, for damaged state two of the first five, for something slow two of any five. What is not visible is
left out of the shares that were found; no detector of these two numbers could be blamed for it.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from benches.faults.traces import positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benches.faults.detector import Detector
    from benches.faults.traces import Forked, Numbers, Recording

    Flags = NDArray[np.bool_]

GAP = 10
BEFORE = 200
WITHIN = 50


@dataclass
class Clean:
    """False alarms on healthy runs.

    Attributes:
        steps: How many clean steps were seen.
        refused: How many of them were refused.
        episodes: The same, with refusals at most ten steps apart counted once.
        where: The first step of each episode, with the replica.
    """

    steps: int = 0
    refused: int = 0
    episodes: int = 0
    where: list[tuple[int, int]] = field(default_factory=list)

    def add(self, other: Clean) -> None:
        self.steps += other.steps
        self.refused += other.refused
        self.episodes += other.episodes


@dataclass
class Found:
    """What became of one fault, summed over replicas and positions.

    Attributes:
        runs: How many forks there were.
        bad: How many bad steps they had, or damaged states.
        visible: How many of those were visible.
        found: How many of the visible ones were refused: bad steps at once, damage within 50 steps.
        soon: The same within 6 steps.
        lags: For damage found: the steps from the first that could show it to the refusal.
        refused_good: How many refusals hit steps that were good.
        refused: How many steps were refused in all.
    """

    runs: int = 0
    bad: int = 0
    visible: int = 0
    found: int = 0
    soon: int = 0
    lags: list[int] = field(default_factory=list)
    refused_good: int = 0
    refused: int = 0

    def add(self, other: Found) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Score:
    """One detector on one family, or on several."""

    clean: Clean = field(default_factory=Clean)
    faults: dict[tuple[str, bool], Found] = field(default_factory=lambda: defaultdict(Found))

    def add(self, other: Score) -> None:
        self.clean.add(other.clean)
        for key, found in other.faults.items():
            self.faults[key].add(found)


def episodes(steps: list[int]) -> list[int]:
    """Return the first step of each episode of ascending steps."""
    return [step for step, before in zip(steps, [-GAP - 1, *steps], strict=False) if step - before > GAP]


def above(recording: Recording, forked: Forked) -> Flags:
    """Return, for steps x replicas of a fork, what lies above the 200 clean steps before it; not finite is above."""
    before = slice(max(0, forked.position - BEFORE), forked.position)
    over = np.zeros(forked.losses.shape, dtype=np.bool_)
    for clean, faulty in ((recording.losses, forked.losses), (recording.norms, forked.norms)):
        over |= ~(faulty <= clean[before].max(axis=0))
    return over


def score(make: Callable[[], Detector], recording: Recording) -> tuple[Score, dict[int, list[Detector]]]:
    """Show one detector everything that was recorded of a family; return also how it stood at each position."""
    result, stood = Score(), {}
    lanes = [make() for _ in range(recording.losses.shape[1])]
    refused: list[list[int]] = [[] for _ in lanes]
    for step in range(len(recording.losses)):
        if step in positions(len(recording.losses)):
            stood[step] = copy.deepcopy(lanes)
        for lane, detector in enumerate(lanes):
            if detector.observe(float(recording.losses[step, lane]), float(recording.norms[step, lane])):
                refused[lane].append(step)
    for lane, steps in enumerate(refused):
        first = episodes(steps)
        clean = Clean(len(recording.losses), len(steps), len(first))
        result.clean.add(clean)
        result.clean.where += [(lane, step) for step in first]
    for forked in recording.forks:
        over = above(recording, forked)
        for lane, detector in enumerate(stood[forked.position]):
            said = refusals(copy.deepcopy(detector), forked.losses[:, lane], forked.norms[:, lane])
            result.faults[forked.fault.name, forked.applied].add(judge(forked, said, over[:, lane]))
    return result, stood


def refusals(detector: Detector, losses: Numbers, norms: Numbers) -> Flags:
    """Return which steps a detector refuses."""
    return np.array([detector.observe(*pair) for pair in zip(losses.tolist(), norms.tolist(), strict=True)])


def judge(forked: Forked, said: Flags, over: Flags) -> Found:
    """Compare what a detector said with what was visible, for one replica of one fork."""
    fault = forked.fault
    bad = np.zeros(len(said), dtype=np.bool_)
    bad[sorted(fault.bad)] = True
    result = Found(runs=1, refused=int(said.sum()), refused_good=int((said & ~bad).sum()))
    if fault.kind in {"batch", "gradient"}:
        visible = bad & over
        result.bad, result.visible = int(bad.sum()), int(visible.sum())
        result.found = result.soon = int((visible & said).sum())
        return result
    result.bad = 1
    after = over[fault.shows :]
    in_five = np.convolve(after, np.ones(5), mode="full")  # element k: how many of the five up to step k
    result.visible = int((in_five[:5] if fault.kind == "state" else in_five).max() >= 2)
    seen = np.flatnonzero(said[fault.shows :])
    if result.visible and len(seen):
        lag = int(seen[0])
        result.lags = [lag]
        result.found = int(fault.kind == "slow" or lag < WITHIN)
        result.soon = int(lag <= 6)
        if not result.found:
            result.lags = []
    return result
