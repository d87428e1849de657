"""How often a run may be rolled back, and what is tried next when it did not help."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyball.errors import GovernorExhausted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyball.govern.policy import Policy

# Steps over which a lowered rate rises back to what the user's schedule says.
_RAMP = 100


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a rollback does besides going back.

    Args:
        number: The how-manieth within the window, from 1.
        older: How many of the newest snapshots are passed over.
        rate: What the learning rate is multiplied with at first; it rises back to 1 over a hundred steps.
    """

    number: int
    older: int
    rate: float


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """What a rollback did.

    Args:
        snapshot_id: The snapshot that the run went back to.
        step: The step at which it happened.
        taken_at: The update after which the snapshot was taken.
        reason: Why.
        attempt: The how-manieth rollback within the window of the policy.
        learning_rate_factor: What the learning rate is multiplied with at first.
        passed_over: Snapshots that could not be restored, and why.
        seconds: How long it took.
    """

    snapshot_id: int
    step: int
    taken_at: int
    reason: str
    attempt: int
    learning_rate_factor: float
    passed_over: tuple[str, ...]
    seconds: float


@dataclass(slots=True)
class Ladder:
    """The budget of rollbacks, and the rungs: first the same rate, then a lower one, then also an older snapshot.

    Replaying the same state on the same data would fail in the same way (and does: that is how studied systems loop),
    so every rollback changes something: the batch that led to it is never served again, and from the second one within
    the window on the rate is lowered.

    Args:
        policy: The budget and the factor of the rate.
    """

    policy: Policy
    _steps: deque[int] = field(default_factory=deque)
    _history: list[str] = field(default_factory=list)
    _rate: float = 1.0
    _since: int = 0

    def climb(self, step: int, reason: str) -> Attempt:
        """Take the next rung.

        Raises:
            GovernorExhausted: The budget is spent; the message lists what happened.
        """
        while self._steps and step - self._steps[0] >= self.policy.rollback_window:
            self._steps.popleft()
        self._history.append(f"step {step}: {reason}")
        if len(self._steps) >= self.policy.max_rollbacks:
            raise GovernorExhausted(
                f"{len(self._steps)} rollbacks within {self.policy.rollback_window} steps did not help, and the next "
                f"would be needed at step {step}: " + "; ".join(self._history[-(len(self._steps) + 1) :]) + ". Look at "
                "the data and the learning rate from the first of these steps on; `max_rollbacks` is the budget"
            )
        self._steps.append(step)
        number = len(self._steps)
        self._rate = 1.0 if number == 1 else self.policy.lr_backoff ** (number - 1)
        self._since = step
        return Attempt(number, older=max(0, number - 2), rate=self._rate)

    def rate(self, step: int) -> float:
        """Return what the learning rate is to be multiplied with at a step."""
        risen = min(1.0, (step - self._since) / _RAMP)
        return self._rate + (1.0 - self._rate) * risen if self._rate < 1.0 else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return what was spent, as plain data."""
        return {"steps": list(self._steps), "history": list(self._history), "rate": self._rate, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another one has spent."""
        self._steps, self._history = deque(state["steps"]), list(state["history"])
        self._rate, self._since = state["rate"], state["since"]
