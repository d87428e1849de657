"""Who governs a real training: flyball's `Governor`, a rule that rolls back at once, or nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from benches.faults.rivals import SkipStep
from flyball.errors import GovernorExhausted
from flyball.govern.governor import Governor
from flyball.govern.policy import Policy
from flyball.govern.records import RolledBack, SnapshotCommitted
from flyball.govern.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from benches.faults.training import Batch, Training
    from flyball.events import Event


class Done(NamedTuple):
    """What became of a step."""

    refused: bool = False
    rolled_back: bool = False
    stopped: bool = False


class Guard(Protocol):
    """Stands where `optimizer.step()` stood."""

    def feed(self, batches: list[Batch]) -> Iterable[Batch]:
        """Serve the batches."""

    @property
    def probing(self) -> bool:
        """Whether the batch that is out was served before, and is not trained on."""

    def step(self, loss: Tensor) -> Done:
        """Judge the step whose gradients are there, and do what follows."""

    @property
    def committed(self) -> int:
        """After how many updates the newest state that it would go back to was taken."""

    @property
    def updates(self) -> int:
        """How many updates are in the weights."""


@dataclass
class _Newest:
    """A journal that keeps what was done to snapshots."""

    committed: int = 0
    rolled_back: bool = False

    def write(self, event: Event, /) -> None:
        if isinstance(event, SnapshotCommitted):
            self.committed = event.taken_at
        elif isinstance(event, RolledBack):
            self.committed, self.rolled_back = event.taken_at, True


class Governed:
    """flyball, as a user would use it, going on in the middle of a run.

    Args:
        training: What is trained.
        past: Losses and norms of the steps so far: a healthy governed run is the plain run, so that its detector now
            stands where these have brought it.
        policy: flyball's, by default the default one.
    """

    def __init__(self, training: Training, past: list[tuple[float, float]], policy: Policy | None = None) -> None:
        self._events = _Newest()
        self._governor = Governor(
            training.model,
            training.optimizer,
            scheduler=training.scheduler,
            max_norm=training.task.recipe.clip,
            policy=policy,
            journal=self._events,
        )
        for loss, norm in past:
            self._governor.vitals.observe(loss, norm)
        known = self._governor.state_dict()
        self._governor.load_state_dict({**known, "steps": len(past), "updates": len(past)})

    def feed(self, batches: list[Batch]) -> Iterable[Batch]:
        return self._governor.feed(batches)

    @property
    def probing(self) -> bool:
        return self._governor.probing

    @property
    def committed(self) -> int:
        return self._events.committed

    @property
    def updates(self) -> int:
        return self._governor.updates

    def step(self, loss: Tensor) -> Done:
        self._events.rolled_back = False
        try:
            verdict = self._governor.step(loss)
        except GovernorExhausted:
            return Done(refused=True, stopped=True)
        return Done(verdict.action is not Action.APPLY, self._events.rolled_back)


@dataclass
class Immediate:
    """OLMo-core's rule, and a rollback at every refusal: the newest state that four accepted steps followed.

    The window of the rule keeps what it has seen when the state goes back, values that are not finite included.
    """

    training: Training
    past: list[tuple[float, float]]
    every: int = 100
    probation: int = 4
    probing: bool = False
    updates: int = 0
    committed: int = 0
    rule: SkipStep = field(default_factory=SkipStep)

    def __post_init__(self) -> None:
        for loss, norm in self.past:
            self.rule.observe(loss, norm)
        self.updates = self.committed = len(self.past)
        self._good = self.training.state()
        self._candidate: tuple[int, dict[str, Any]] | None = None

    def feed(self, batches: list[Batch]) -> Iterable[Batch]:
        return batches

    def step(self, loss: Tensor) -> Done:
        training = self.training
        norm = _norm(training)
        if self.rule.observe(float(loss.detach()), norm):
            training.restore(self._good)
            training.optimizer.zero_grad()
            self.updates, self._candidate = self.committed, None
            return Done(refused=True, rolled_back=True)
        training.update()
        self.updates += 1
        if self._candidate is not None and self.updates - self._candidate[0] >= self.probation:
            self.committed, self._good = self._candidate
            self._candidate = None
        if self.updates - self.committed >= self.every and self._candidate is None:
            self._candidate = self.updates, training.state()
        return Done()


@dataclass
class Nobody:
    """No guard: every update is applied."""

    training: Training
    past: list[tuple[float, float]]
    probing: bool = False
    updates: int = 0
    committed: int = 0

    def feed(self, batches: list[Batch]) -> Iterable[Batch]:
        return batches

    def step(self, loss: Tensor) -> Done:
        del loss
        _norm(self.training)
        self.training.update()
        self.updates += 1
        return Done()


def _norm(training: Training) -> float:
    """Clip as the family does, and return the norm before."""
    from torch.nn.utils import clip_grad_norm_

    limit = training.task.recipe.clip
    return float(clip_grad_norm_(training.model.parameters(), float("inf") if limit is None else limit))


def guards() -> Mapping[str, Callable[[Training, list[tuple[float, float]]], Guard]]:
    """Return every guard by its name in the tables, ours first."""
    return {
        "flyball": Governed,
        "flyball, no diagnosis": lambda training, past: Governed(training, past, Policy(diagnosis=False)),
        "OLMo-core, rolls back": Immediate,
        "nobody": Nobody,
    }
