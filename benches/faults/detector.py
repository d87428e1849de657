"""What a detector is here, and flyball's own."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flyball.govern.policy import Policy
from flyball.govern.verdict import Action
from flyball.govern.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Remedy(Enum):
    """What is done with the update of a step that was refused.

    RESTORE: nothing of the step remains, running statistics included.
    SKIP: weights and moments stay; the forward has already moved the running statistics.
    FACTOR: the update is computed and multiplied by zero, so a value that is not finite goes through.
    CLIP: the gradient is scaled down to the detector's `limit`, and applied.
    STOP: the run ends, and a person restarts it.
    """

    RESTORE = "restore"
    SKIP = "skip"
    FACTOR = "times zero"
    CLIP = "clip"
    STOP = "stop"


class Detector(Protocol):
    """Judges every step by its loss and its gradient norm before clipping."""

    @property
    def remedy(self) -> Remedy:
        """What is done with a step that is refused."""

    def observe(self, loss: float, norm: float) -> bool:
        """Return whether the step is refused."""


@runtime_checkable
class Clips(Protocol):
    """A detector that clips where others refuse."""

    @property
    def limit(self) -> float:
        """The norm that the gradient of this step is clipped to."""


class Flyball:
    """flyball's detector alone: no feed, no probing, no rollback; a step that is not applied is refused.

    As its governor does it, refusing puts the running statistics back.
    """

    remedy = Remedy.RESTORE

    def __init__(self, budget: float = Policy().budget) -> None:
        self.vitals = Vitals(Policy(budget=budget))

    def observe(self, loss: float, norm: float) -> bool:
        return self.vitals.observe(loss, norm).action is not Action.APPLY


def detectors() -> Mapping[str, Callable[[], Detector]]:
    """Return every contestant by its name in the tables, ours first."""
    from benches.faults import rivals

    return {
        "flyball": Flyball,
        "flyball, budget 10": lambda: Flyball(10.0),
        "OLMo-core, 6 sigma": rivals.SkipStep,
        "OLMo-core, 20 sigma": lambda: rivals.SkipStep(sigmas=20.0),
        "ZClip": rivals.ZClip,
        "Lightning SpikeDetection": rivals.SpikeDetection,
        "Megatron, factor 10": rivals.FactorTen,
        "LLM Foundry KillLossSpike": rivals.KillLossSpike,
        "loss > 3x mean": rivals.Multiple,
        "non-finite only": rivals.NonFinite,
    }
