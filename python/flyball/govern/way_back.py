"""Going back: the next rung of the ladder, a snapshot restored, and how data and chance go on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyball.errors import GovernorExhausted, RollbackFailed
from flyball.govern import records
from flyball.govern.chance import Chance
from flyball.govern.recovery import Attempt, Ladder, reseed
from flyball.govern.report import RollbackReport, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from flyball.govern.agreement import Agreement
    from flyball.govern.feeding import Feeding
    from flyball.govern.keeper import Keeper, Place
    from flyball.govern.policy import Policy
    from flyball.govern.telling import Teller
    from flyball.govern.update import Update
    from flyball.govern.verdict import Verdict
    from flyball.govern.vitals import Vitals


class WayBack:
    """Take a run back to a state that is known to be good; all of it, or none.

    Args:
        policy: The budget, and what a rollback makes different.
        keeper: Has the snapshots.
        feeding: Serves the data again, where they come again.
        vitals: Is told that the state is another one.
        update: Says whether the parameters are finite, for the last word.
        teller: Where events go.
        agreement: The other ranks; None if there are none.
        generators: The run's own, which `reseed` gives other states.

    Attributes:
        ladder: What was spent so far.
        shifts: What repeats the announcements of another loss, in their order.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        keeper: Keeper,
        feeding: Feeding,
        vitals: Vitals,
        update: Update,
        teller: Teller,
        agreement: Agreement | None,
        generators: Sequence[torch.Generator],
    ) -> None:
        self.ladder = Ladder(policy)
        self.shifts: list[Callable[[], None]] = []
        self._policy = policy
        self._keeper = keeper
        self._feeding = feeding
        self._vitals = vitals
        self._update = update
        self._teller = teller
        self._agreement = agreement
        self._generators = generators

    def go(self, reason: str, verdict: Verdict | None, here: Callable[[], Place]) -> RollbackReport:
        """Take the next rung of the ladder, restore, and let the data go on as the policy says.

        Args:
            reason: Why.
            verdict: What led to it, if it was not asked for.
            here: Says where the run stands.

        Raises:
            GovernorExhausted: The budget of the policy is spent.
            RollbackFailed: No snapshot could be restored.
        """
        left = here()
        attempt = self._climb(left.step, reason)
        now = Chance.now(everything=True)
        try:
            back = self._keeper.go_back(attempt.older, left.step, self._usable)
        except RollbackFailed as error:
            # Each rank says what it sees itself: this one may be the only one that failed.
            message = f"{error}{_broken(finite=self._update.finite())}"
            self._teller.tell(records.RollbackBroken(step=left.step, reason=reason, message=message))
            raise RollbackFailed(message, restored=error.restored, not_restored=error.not_restored) from error
        self._feeding.put_back(back.place.shelves, cleared=back.place.era < len(self.shifts))
        self._go_on(back.place, now, attempt)
        self._vitals.rolled_back()
        for announce in self.shifts[back.place.era :]:
            announce()  # what was announced after the snapshot still holds
        report = reported(
            back,
            attempt,
            left=left,
            now=here(),
            recovery=self._policy.recovery,
            reason=reason,
            verdict=verdict,
        )
        self.ladder.climbed(f"went back to update {report.taken_at}, rate x{attempt.rate:g}")
        self._teller.tell(report.event())
        self._teller.warn("step %d: rolled back to update %d, because of %s", left.step, report.taken_at, reason)
        return report

    def finite(self) -> bool:
        """Say whether every parameter is finite, on every rank."""
        here = self._update.finite()
        return here if self._agreement is None else self._agreement.every(here)[0]

    def _climb(self, step: int, reason: str) -> Attempt:
        try:
            return self.ladder.climb(step, reason)
        except GovernorExhausted as error:
            message = f"{error}{_broken(finite=self.finite())}"
            self._teller.tell(records.Exhausted(step=step, message=message))
            raise GovernorExhausted(message) from None

    def _go_on(self, place: Place, now: Chance, attempt: Attempt) -> None:
        """Let the data go on after a restore, or come again, and chance with them."""
        again = self._policy.recovery != "skip" and self._unreachable(place) is None
        if self._agreement is not None:
            again = self._agreement.every(again)[0]
        if again and place.feed is not None and place.position is not None:
            place.feed.seek(place.position)
        if not again:
            now.put_back()  # the data go on, and so does chance
        if self._policy.recovery == "reseed":
            reseed(attempt, self._generators)

    def _usable(self, place: Place) -> str | None:
        """Say why a run cannot go on from a place."""
        reason = self._unreachable(place) if self._policy.recovery == "replay" else None
        return None if reason is None else f"{reason}, and `recovery` is 'replay'"

    def _unreachable(self, place: Place) -> str | None:
        """Say why the data cannot come again from a place on."""
        if place.feed is not self._feeding.current:
            return "its batches were served by another feed"
        if place.feed is not None and place.position is not None and not place.feed.can_reach(place.position):
            return f"{place.position} cannot be reached any more"
        return None


def _broken(*, finite: bool) -> str:
    """Return what the last word must say beside the reason."""
    return "" if finite else ". A parameter is not finite: resume from a checkpoint"
