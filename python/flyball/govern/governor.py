"""The governor: measures each step, decides before the update, then applies, leaves out or rolls back.

    governor = Governor(model, optimizer, scheduler=scheduler, max_norm=1.0)
    for inputs, targets in governor.feed(loader):
        loss = criterion(model(inputs), targets)
        loss.backward()
        governor.step(loss)

`step` stands where `optimizer.step()` stood. What it does, in order:

    a batch that is served again?   its loss answers the question that is open; nothing else happens
    measure                         unscale, one norm of all gradients
    judge                           the detector, in Rust; nothing has changed yet
    apply                           clip, update, schedule, average; keep the batch; a snapshot now and then
    leave out                       gradients cleared, buffers and random state as before the forward
    in doubt                        ask: a batch that was healthy is served again, untrained
    roll back                       to the newest snapshot that has stood its probation
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from flyball.errors import GovernorExhausted, InputError
from flyball.govern import records
from flyball.govern.admission import admit, checked_norm
from flyball.govern.before import BeforeForward
from flyball.govern.chance import Chance
from flyball.govern.diagnosis import Finding, Reference
from flyball.govern.gradients import first_not_finite
from flyball.govern.inquiry import Inquiry, Outcome, also
from flyball.govern.keeper import Keeper, Place
from flyball.govern.policy import Policy
from flyball.govern.recovery import Ladder, RollbackReport
from flyball.govern.served import Served
from flyball.govern.snapshot import SnapshotInfo, TrainingState
from flyball.govern.update import Update
from flyball.govern.verdict import Action, Level, Verdict
from flyball.govern.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flyball.events import Event
    from flyball.govern.feed import Feed, Kept

_LOG = logging.getLogger("flyball.govern")

B = TypeVar("B")

_DOUBTFUL = 0.5  # a score of half its threshold: applied, but the state it leaves is looked into
_SEVERAL = 3  # steps in a row that were made of several batches
_WATCHED = 16
_DAMAGED = frozenset({"nonfinite-parameters", "nonfinite-buffers", "nonfinite-optimizer"})


class Governor:
    """Govern a training loop: see a bad step, decide before the update, undo damage in the same process.

    Args:
        model: What is trained.
        optimizer: Its optimizer, or several.
        policy: How sensitive it is, how often a state is kept, and what is done when the run goes wrong.
        scheduler: A learning-rate scheduler, stepped after every update; or several.
        scaler: The gradient scaler.
        average: Averaged weights with `update_parameters`, as torch's `AveragedModel`; updated after every update.
        max_norm: Clip the gradients to this norm; not at all if None.
        journal: Where what happens is written.
        extra: Anything else with `state_dict` and `load_state_dict` that belongs to the state of the run, by name.

    Raises:
        InputError: Something cannot be governed, such as an optimizer that asks for a closure.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        policy: Policy | None = None,
        scheduler: Any = None,
        scaler: torch.amp.GradScaler | None = None,
        average: Any = None,
        max_norm: float | None = None,
        journal: records.Sink | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.policy = Policy() if policy is None else policy
        self.vitals = Vitals(self.policy)
        self._model = model
        self._journal = journal
        optimizers, schedulers = _listed(optimizer), [] if scheduler is None else _listed(scheduler)
        modules = [model, *(one for one in (extra or {}).values() if isinstance(one, torch.nn.Module))]
        admit(modules, optimizers, schedulers)
        self._update = Update(
            model, optimizers, schedulers, scaler=scaler, average=average, max_norm=checked_norm(max_norm)
        )
        self._known = len(self._update.parameters)
        self._counters = {"updates": 0}
        self._state = TrainingState(
            model,
            optimizers,
            scheduler=schedulers,
            scaler=scaler,
            average=average,
            counters=self._counters,
            extra=extra,
        )
        self._state.register("vitals", self.vitals)
        self._keeper = Keeper(self._state, self.policy, self._tell)
        self._ladder = Ladder(self.policy)
        self._feeds: dict[int, Served[Any]] = {}
        self._served: Served[Any] | None = None
        self._forward = BeforeForward(modules)
        self._forward.remember(chance=False, everything=False)
        self._born = self._touched()
        self._everything = False
        self._watched = _WATCHED
        self._inquiry = Inquiry(self.policy, self.vitals, self._touched)
        self._unanswered_probe = False
        self._rolled = False
        self._steps = 0
        self._out = 0
        self._several = 0

    @property
    def updates(self) -> int:
        """How many updates are in the weights; a rollback takes it back."""
        return self._counters["updates"]

    @property
    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """The states that can be rolled back to, oldest first."""
        return self._keeper.committed

    @property
    def probing(self) -> bool:
        """Whether the batch that is out is one that is served again, in doubt; `step` takes its loss and no more."""
        return self._served is not None and self._served.probing

    def feed(self, loader: Iterable[B]) -> Feed[B]:
        """Return the loader as something that knows where its data stand; iterate over it in the loader's place.

        The batches pass unchanged. While `.probing` is true the batch that is out is one that was served before: `step`
        takes its loss and nothing else, and a loop that counts or logs should leave it out.
        """
        feed = self._feeds.get(id(loader))
        if feed is None:
            feed = Served(loader, keep=8 if self.policy.diagnosis else 0)
            if self.policy.recovery == "replay" and not feed.rewinds:
                raise InputError(
                    f"`loader` is a `{type(loader).__name__}` that cannot be rewound, and `recovery` is 'replay', "
                    "which must: use 'skip', or a loader that can begin again"
                )
            feed.govern(self._coming, self._serving)
            self._feeds[id(loader)] = feed
        return feed

    def step(self, loss: torch.Tensor | float) -> Verdict:
        """Judge the step whose gradients are there, and apply the update, leave it out, or roll back.

        The gradients are cleared, and the scheduler is stepped if the update was applied.

        Args:
            loss: The loss of this step.

        Raises:
            GovernorExhausted: The budget of the policy is spent and the run still fails.
            RollbackFailed: No snapshot could be restored.
            SnapshotError: The state that training starts from is not finite, or has no room.
            InputError: The loss is no number.
        """
        value = _as_float(loss)
        out, self._out = self._out, 0
        self._count(out)
        if out and (probe := self._probe()) is not None:
            return self._answered(value, probe)
        self._have_a_way_back()
        self._watch_others(out)
        norm = self._update.measure()
        rolled, self._rolled = self._rolled, False
        if rolled and norm is None:
            self._leave_out()  # the gradients were those of the state that was left
            return Verdict(self._steps, "train", Level.OK, Action.SKIP, ("rolled-back",))
        verdict = self._judge(value, None if norm is None else norm.item(), self._update.scale)
        self._steps += 1
        if verdict.action is Action.APPLY:
            return self._applied(verdict, value, norm, keep=out == 1)
        if verdict.level < Level.ANOMALY:
            return self._left_to_the_scaler(verdict)
        return self._refused(verdict, ask=out == 1)

    def observe(self, loss: float, grad_norm: float | None = None, **more: Any) -> Verdict:
        """Judge a loss and a norm, and do nothing about it: the detector alone, as `Vitals.observe`."""
        return self.vitals.observe(loss, grad_norm, **more)

    def snapshot(self) -> SnapshotInfo:
        """Take a snapshot now and trust it at once, without probation.

        Raises:
            SnapshotError: A value is not finite, or there is no room; older snapshots are as they were.
        """
        return self._keeper.keep(self._place())

    def rollback(self, reason: str = "asked for") -> RollbackReport:
        """Go back to the newest snapshot that can be restored; all of the run, or none of it.

        Raises:
            GovernorExhausted: The budget of the policy is spent.
            RollbackFailed: No snapshot could be restored.
        """
        try:
            attempt = self._ladder.climb(self._steps, reason)
        except GovernorExhausted as error:
            self._tell(records.Exhausted(step=self._steps, message=str(error)))
            raise
        now = Chance.now(everything=True)
        back = self._keeper.go_back(attempt.older, self._steps, self._usable)
        place = back.place
        for feed in self._feeds.values():
            feed.withdraw()
        if place.feed is not None and place.shelf is not None:
            place.feed.shelf = place.shelf
        if self.policy.recovery == "skip":
            now.put_back()  # the data go on, and so does chance
        elif place.feed is not None and place.position is not None:
            place.feed.seek(place.position)
        self.vitals.rolled_back()
        self._inquiry.rolled_back()
        self._rolled = True
        self._remember()
        report = RollbackReport(
            snapshot_id=back.info.id,
            step=self._steps,
            taken_at=back.info.step,
            reason=reason,
            attempt=attempt.number,
            learning_rate_factor=attempt.rate,
            passed_over=back.passed_over,
            seconds=back.seconds,
        )
        _LOG.warning("step %d: rolled back to update %d, because of %s", self._steps, back.info.step, reason)
        self._tell(
            records.RolledBack(
                step=report.step,
                reason=reason,
                snapshot=back.info.id,
                taken_at=back.info.step,
                back_to=place.step,
                attempt=attempt.number,
                learning_rate_factor=attempt.rate,
                seconds=back.seconds,
            )
        )
        return report

    def state_dict(self) -> dict[str, Any]:
        """Return what the governor itself remembers, as plain data; the model and the rest are yours to save."""
        return {
            "version": 1,
            "vitals": self.vitals.state_dict(),
            "ladder": self._ladder.state_dict(),
            "steps": self._steps,
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the governor that gave this state stood; snapshots and kept batches begin anew.

        Raises:
            InputError: It is not such a state.
        """
        if state.get("version") != 1:
            raise InputError(f"`version` of the state is {state.get('version')!r}: this flyball reads version 1")
        self.vitals.load_state_dict(state["vitals"])
        self._ladder.load_state_dict(state["ladder"])
        self._steps, self._counters["updates"] = state["steps"], state["updates"]

    def _judge(self, loss: float, norm: float | None, scale: float | None) -> Verdict:
        """Ask the detector; what the forward left in the buffers counts as part of the batch."""
        broken = self._forward.broken()
        if not broken:
            return self.vitals.observe(loss, norm, step=self._steps, amp_scale=scale)
        if all(bool(torch.isfinite(buffer.copy).all()) for buffer in broken):
            # They were finite before this batch, and will be again: it is the batch that is refused.
            verdict = self.vitals.observe(loss, norm, step=self._steps, nonfinite=("gradients",))
            codes = {"nonfinite-gradients": "nonfinite-buffers"}
            return verdict._replace(reasons=tuple(codes.get(code, code) for code in verdict.reasons))
        return self.vitals.observe(loss, norm, step=self._steps, nonfinite=("buffers",))

    def _count(self, out: int) -> None:
        """Say once that batches are not asked where a step is made of several."""
        self._several = self._several + 1 if out > 1 else 0
        if self._several == _SEVERAL and self.policy.diagnosis:
            _LOG.warning(
                "step %d: %d batches are served for one step, so no batch is served again in doubt, and a bad batch "
                "and a damaged state are told apart by the detector alone",
                self._steps,
                out,
            )

    def _watch_others(self, out: int) -> None:
        """Find out in the first steps whether the loop draws from Python's or NumPy's generators."""
        if self._watched and out == 1 and self._forward.chance is not None:
            self._watched -= 1
            self._everything = self._everything or not self._forward.chance.same_others()

    def _probe(self) -> Kept[Any] | None:
        """Return what is served again, if that is what is out."""
        return None if self._served is None else self._served.probe

    def _have_a_way_back(self) -> None:
        """From the first step on there is a place to go back to, and it has the shape of the run."""
        if self._keeper.committed and len(self._update.parameters) == self._known:
            return
        self._known = len(self._update.parameters)
        # Without a feed the first forward has moved the buffers already; what they were is known since the
        # beginning, unless a checkpoint was loaded meanwhile.
        first = not self._keeper.committed and self._touched() == self._born
        with self._forward.in_place() if first else nullcontext():
            self._keeper.keep(self._place())

    def _applied(self, verdict: Verdict, value: float, norm: torch.Tensor | None, *, keep: bool) -> Verdict:
        reference = self.vitals.loss_reference()
        self._update.apply(norm, self._ladder.rate(self._steps))
        self._counters["updates"] += 1
        self._inquiry.applied()
        if verdict.rho >= _DOUBTFUL:
            self._keeper.doubt()
            if keep:
                verdict = self._inquiry.doubt(verdict, self.updates)
        else:
            if keep and reference is not None and self._served is not None and self._forward.chance is not None:
                self._served.keep((Reference(value, *reference), self._forward.chance), updates=self.updates)
            health = self._keeper.healthy(self._place())
            if health.damage is not None:
                return self._roll_back(verdict, health.damage)
            if health.captured and keep:
                self._inquiry.examine(verdict, self.updates)
        if verdict.level > Level.OK:
            self._speak(verdict)
        self._end()
        return verdict

    def _left_to_the_scaler(self, verdict: Verdict) -> Verdict:
        """Let the gradient scaler skip an overflow of its own, and lower its scale."""
        self._update.leave_to_the_scaler()
        self._end()
        return verdict

    def _refused(self, verdict: Verdict, *, ask: bool) -> Verdict:
        if (
            "nonfinite" in verdict.reasons
            and (name := first_not_finite(self._model, self._update.parameters)) is not None
        ):
            verdict = verdict._replace(note=f"the first gradient that is not finite is that of `{name}`")
        self._leave_out()
        if "nonfinite" in verdict.reasons and not self._update.finite():
            verdict = also(verdict, "nonfinite-parameters")._replace(level=Level.PANIC)
        if verdict.level is Level.PANIC and _DAMAGED & set(verdict.reasons):
            return self._roll_back(verdict, ", ".join(verdict.reasons))
        return self._act(self._inquiry.refused(verdict, self.updates, ask=ask))

    def _answered(self, value: float, kept: Kept[Any]) -> Verdict:
        """Take the loss of a batch that was served again, and undo all else that serving it did."""
        self._leave_out()
        self._unanswered_probe = False
        if not self._inquiry.open:  # a rollback in between has closed the question
            return Verdict(self._steps, "train", Level.OK, Action.SKIP, ("asking",))
        outcome = self._inquiry.answered(value, kept)
        if outcome.candidate is Finding.DAMAGED:
            self._keeper.distrust(self._steps, outcome.verdict.note)
        return self._act(outcome)

    def _act(self, outcome: Outcome) -> Verdict:
        """Do what an outcome says."""
        verdict = outcome.verdict
        if verdict.action is Action.ROLLBACK:
            return self._roll_back(verdict, outcome.why)
        if outcome.aloud:
            self._speak(verdict)
        if verdict.action is Action.HALT:
            self._tell(records.Exhausted(step=self._steps, message=outcome.why))
            raise GovernorExhausted(outcome.why)
        return verdict

    def _roll_back(self, verdict: Verdict, reason: str) -> Verdict:
        told = verdict._replace(level=Level.PANIC, action=Action.ROLLBACK)
        self._speak(told)
        self.rollback(reason)
        return told

    def _coming(self, feed: Served[Any]) -> None:
        """Before the feed reads on: put right what a loop that went on without a step has left."""
        self._served = self._inquiry.feed = feed
        if self._unanswered_probe:
            self._inquiry.close()
            self._unanswered_probe, self._out = False, 0
            self._leave_out()
        if self._out and all(parameter.grad is None for parameter in self._update.parameters):
            self._out = 0  # those batches were looked at, or given up; no step will be made of them
        if not self._keeper.committed:
            self._keeper.keep(self._place())

    def _serving(self, probe: Kept[Any] | None) -> None:
        """Before a batch is handed out: remember what leaving it out must put back."""
        self._unanswered_probe = probe is not None
        self._out += 1
        if self._out == 1:
            self._remember()
        if probe is not None:
            chance: Chance = probe.info[1]  # type: ignore[index] # what `_applied` kept
            chance.put_back()

    def _end(self) -> None:
        if self._served is None:
            self._remember()  # a feed does it before the next batch

    @torch.no_grad()
    def _remember(self) -> None:
        # Without a feed the next batch is drawn before its forward, and chance must not be taken back to before that.
        self._forward.remember(chance=self._served is not None, everything=self._everything or self._watched > 0)

    @torch.no_grad()
    def _leave_out(self) -> None:
        """Make it as if the batch had not been seen."""
        self._update.leave_out()
        self._forward.put_back()

    def _usable(self, place: Place) -> str | None:
        """Say why a run cannot go on from a place."""
        if self.policy.recovery == "skip":
            return None
        if place.feed is not self._served:
            return "its batches were served by another feed, and `recovery` is 'replay'"
        if place.feed is not None and place.position is not None and not place.feed.can_reach(place.position):
            return f"{place.position} cannot be reached any more, and `recovery` is 'replay'"
        return None

    def _touched(self) -> tuple[int, ...]:
        """Return what changes when a parameter is written to, by an update or by anything else."""
        return (self.updates, *(parameter._version for parameter in self._update.parameters))  # noqa: SLF001 -- torch's only word on it

    def _place(self) -> Place:
        return Place.now(self._steps, self.updates, self._served)

    def _speak(self, verdict: Verdict) -> None:
        position = None if self._served is None else str(self._served.position)
        self._tell(
            records.VerdictGiven(
                step=verdict.step,
                level=verdict.level.name,
                action=verdict.action.value,
                reasons=verdict.reasons,
                text=str(verdict),
                position=position,
            )
        )

    def _tell(self, event: Event) -> None:
        if self._journal is not None:
            self._journal.write(event)


def _listed(thing: Any) -> list[Any]:
    return list(thing) if isinstance(thing, list | tuple) else [thing]


def _as_float(loss: torch.Tensor | float) -> float:
    try:
        return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"`loss` is {loss!r}: pass a number, or a tensor that holds one") from error
