"""What the ranks of a run decide as one, and what no wrapper averages for them: the gradients of the objective.

A rank alone decides alone, and none of this costs anything.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch.distributed as dist

from flyball.govern.agreement import Agreement
from flyball.train.distributed import average_over_ranks, world

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import torch

    from flyball.events import Event
    from flyball.govern.governor import Governor
    from flyball.train.signals import Wish


_PATIENCE = 1800.0  # seconds, as torch's own collectives: a rank may be compiling its model


class Together:
    """The ranks, seen from one of them; every method is to be called by all of them, in the same order.

    Args:
        governor: Who has the ranks agree already, if there is one.
        model: What is trained; DDP and `fully_shard` average its gradients.
        objective: Whose parameters, where it has any that are not the model's, are averaged here.
        tell: Where events go.
    """

    def __init__(
        self,
        governor: Governor | None,
        model: torch.nn.Module,
        objective: torch.nn.Module,
        tell: Callable[[Event], None],
    ) -> None:
        self._governed = governor is not None
        self._agreement = Agreement.of_this_run(_PATIENCE, tell) if governor is None else governor.agreement
        of_model = {id(parameter) for parameter in model.parameters()}
        self._shared = [p for p in objective.parameters() if id(p) not in of_model] if world()[1] > 1 else []
        for parameter in self._shared:
            dist.broadcast(parameter.detach(), 0)

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self._agreement is None

    def naming_ranks(self) -> AbstractContextManager[None]:
        """Return what names the rank that is gone where the others fail because of it."""
        return nullcontext() if self._agreement is None else self._agreement.naming_ranks()

    def stop(self, wish: Wish) -> str | None:
        """Return the signal to stop for, if any rank has got one; all know it after the same step."""
        agreement = self._agreement
        if agreement is None:
            return wish.signal
        if self._governed:
            agreement.stop = wish.signal is not None  # said with the governor's next message
            return (wish.signal or "SIGTERM") if agreement.stopped else None
        return (wish.signal or "SIGTERM") if self.any(wish.signal is not None) else None

    def any(self, flag: bool) -> bool:  # noqa: FBT001 -- what is asked of all ranks
        """Say whether a rank says so."""
        return flag if self._agreement is None else not self._agreement.every(not flag)[0]

    def average_gradients(self) -> None:
        """Give the objective's parameters the mean of the gradients that the ranks have for them."""
        if self._shared:
            average_over_ranks([parameter.grad for parameter in self._shared if parameter.grad is not None])
