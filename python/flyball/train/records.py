"""What a trainer writes into the journal, beside what every run does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flyball.events import Event, event


@event("checkpoint.saved", version=1)
class CheckpointSaved(Event):
    """A checkpoint is on the disk, whole; training was held up for `blocked` seconds of the `seconds` it took."""

    step: int
    checkpoint: str
    bytes: int
    blocked: float
    seconds: float


@event("checkpoint.failed", version=1)
class CheckpointFailed(Event):
    """A checkpoint was not written; the ones from before are as they were."""

    step: int
    reason: str


@event("run.resumed", version=1)
class RunResumed(Event):
    """A run goes on from a checkpoint; what the journal has of later steps is done again."""

    step: int
    epoch: int
    checkpoint: str
    passed_over: Sequence[str]
    accepted: Sequence[str]
    versions: Mapping[str, str]
