"""The whole bench: record each family once, show it to every detector, and let each govern it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from benches.faults.closed import GOVERNED, govern
from benches.faults.families import FAMILIES
from benches.faults.score import Score, score
from benches.faults.traces import positions, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benches.faults.closed import Ending
    from benches.faults.detector import Detector
    from benches.faults.task import Task


@dataclass(frozen=True)
class Settings:
    """How large a run of the bench is.

    Args:
        replicas: Trainings of each family.
        governed: How many of them are run in the loop, at the middle position.
        governed_steps: How long they go on.
        seed: Decides everything that is drawn.
        steps: The length of every training; by default each family's own.
        families: Which families; by default all.
    """

    replicas: int = 12
    governed: int = 4
    governed_steps: int = 150
    seed: int = 0
    steps: int | None = None
    families: tuple[type[Task], ...] = FAMILIES


QUICK = Settings(replicas=2, governed=1, governed_steps=30, steps=300, families=(FAMILIES[10], FAMILIES[15]))


@dataclass
class Outcome:
    """What came out: scores by family and detector, endings by fault and detector."""

    settings: Settings
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    endings: dict[str, dict[str, Ending]] = field(default_factory=dict)
    seconds: float = 0.0

    def total(self, detector: str, *, held_out: bool | None = None) -> Score:
        """Return the score of one detector over all families, or over those of one kind."""
        result = Score()
        for family in self.settings.families:
            if held_out is None or family.held_out is held_out:
                result.add(self.scores[family.name][detector])
        return result


def run(settings: Settings, contestants: Mapping[str, Callable[[], Detector]], say: Callable[[str], object]) -> Outcome:
    """Run the bench on one thread.

    Args:
        settings: How large it is.
        contestants: The detectors by name.
        say: Called with one line for each family.
    """
    torch.set_num_threads(1)
    outcome = Outcome(settings)
    started = time.process_time()
    for family in settings.families:
        began = time.process_time()
        recording = record(family(settings.replicas, settings.seed, settings.steps))
        recorded = time.process_time()
        at_steps = positions(recording.task.steps)
        middle = at_steps[len(at_steps) // 2]
        stood = {}
        outcome.scores[family.name] = {}
        for name, make in contestants.items():
            outcome.scores[family.name][name], at = score(make, recording)
            stood[name] = at[middle]
        scored = time.process_time()
        for fault in GOVERNED:
            ends = govern(
                recording.fleets[middle], stood, fault, replicas=settings.governed, steps=settings.governed_steps
            )
            for name, ending in ends.items():
                known = outcome.endings.setdefault(fault.name, {}).get(name)
                if known is None:
                    outcome.endings[fault.name][name] = ending
                else:
                    known.add(ending)
        ended = time.process_time()
        say(
            f"{family.name}: {recording.losses.size} clean steps; "
            f"{recorded - began:.0f} s recorded, {scored - recorded:.0f} s judged, {ended - scored:.0f} s governed"
        )
    outcome.seconds = time.process_time() - started
    return outcome
