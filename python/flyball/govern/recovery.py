"""How often a run may be rolled back, and what is different each time.

Replaying the same state on the same data would fail in the same way (and does: that is how studied systems loop), so
every rollback changes something. What it is at first is the policy's `recovery`:

    skip        the data go on where they stood, and so does chance; what led to it is never served again
    lr_backoff  the data come again from the snapshot on, at a lowered learning rate
    reseed      the data come again, and what is drawn for them (dropout, augmentation) is drawn anew
    replay      the data come again with the same random state: exactly as it was, to see it happen

Further rollbacks within the window climb: a lowered rate from the second on (with `lr_backoff` one step lower each
time), an older snapshot from the third on. Where data cannot come again they go on.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flyball.errors import GovernorExhausted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flyball.govern.policy import Policy

# Steps over which a lowered rate rises back to what the user's schedule says.
_RAMP = 100


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a rollback does besides going back.

    Args:
        number: The how-manieth within the window, from 1.
        total: The how-manieth of all.
        older: How many of the newest snapshots are passed over.
        rate: What the learning rate is multiplied with at first; it rises back to 1 over a hundred steps.
    """

    number: int
    total: int
    older: int
    rate: float


@dataclass(slots=True)
class Ladder:
    """The budget of rollbacks, and the rungs.

    Args:
        policy: The budget and the factor of the rate.
    """

    policy: Policy
    _steps: deque[int] = field(default_factory=deque)
    _history: list[str] = field(default_factory=list)
    _total: int = 0
    _rate: float = 1.0
    _since: int = 0

    def climb(self, step: int, reason: str) -> Attempt:
        """Take the next rung.

        Raises:
            GovernorExhausted: The budget is spent; the message lists what happened.
        """
        window = self.policy.rollback_window
        self._steps = deque(at for at in self._steps if step - at < window)
        spent = len(self._steps)
        if spent >= self.policy.max_rollbacks:
            raise GovernorExhausted(
                f"{spent} rollbacks within {window} steps did not help, and the next would be needed at step {step}: "
                + "; ".join([*self._history[-spent:], f"step {step}: {reason}"])
                + ". Look at the data and the learning rate from the first of these steps on; `max_rollbacks` is the "
                "budget"
            )
        self._steps.append(step)
        self._history = [*self._history[-spent:], f"step {step}: {reason}"] if spent else [f"step {step}: {reason}"]
        self._total += 1
        number = spent + 1
        self._rate = self.policy.lr_backoff ** (number if self.policy.recovery == "lr_backoff" else number - 1)
        self._since = step
        return Attempt(number, self._total, older=max(0, number - 2), rate=self._rate)

    def climbed(self, outcome: str) -> None:
        """Note what came of the rung, for the last word."""
        self._history[-1] += f" ({outcome})"

    def rate(self, step: int) -> float:
        """Return what the learning rate is to be multiplied with at a step."""
        if self._rate >= 1.0:
            return 1.0
        risen = min(1.0, (step - self._since) / _RAMP)
        return self._rate + (1.0 - self._rate) * risen

    def state_dict(self) -> dict[str, Any]:
        """Return what was spent, as plain data."""
        return {
            "steps": list(self._steps),
            "history": list(self._history),
            "total": self._total,
            "rate": self._rate,
            "since": self._since,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another one has spent; nothing is taken over from a state that lacks something."""
        steps, history = deque[int](state["steps"]), list[str](state["history"])
        self._total, self._rate, self._since = state["total"], state["rate"], state["since"]
        self._steps, self._history = steps, history


def reseed(attempt: Attempt, generators: Iterable[torch.Generator]) -> None:
    """Give every generator a state that it never had: from its present one, and the number of the rollback."""
    draw = hashlib.blake2b(torch.get_rng_state().numpy().tobytes(), salt=b"flyball reseed", digest_size=8)
    draw.update(attempt.total.to_bytes(8, "little"))
    seed = int.from_bytes(draw.digest(), "little") >> 1
    torch.manual_seed(seed)  # that of every GPU too
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 -- the global one is what others use
    for number, generator in enumerate(generators, 1):
        generator.manual_seed(seed + number)
