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
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from flyball.errors import GovernorExhausted, InputError, RollbackFailed, SnapshotError
from flyball.govern import records
from flyball.govern.chance import Chance
from flyball.govern.diagnosis import Diagnosis, Finding, Reference
from flyball.govern.feed import Feed
from flyball.govern.gradients import first_not_finite, gradients, total_norm
from flyball.govern.policy import Policy
from flyball.govern.recovery import Ladder
from flyball.govern.snapshot import SnapshotInfo, SnapshotRing, TrainingState
from flyball.govern.verdict import Action, Level, Verdict
from flyball.govern.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flyball.events import Event
    from flyball.govern.feed import Kept, Position, Shelf

_LOG = logging.getLogger("flyball.govern")

B = TypeVar("B")

_DOUBTFUL = 0.5  # a score of half its threshold: applied, but the state it leaves is looked into
_ANCHORS_NEEDED = 2
_CHANGED_FOR_GOOD = 32  # refusals in a row, the state sound each time
_ADOPT = 16
_ENDLESS = 256
_SLOW = frozenset({"drawdown", "collapse"})
_DAMAGED = frozenset({"nonfinite-parameters", "nonfinite-buffers", "nonfinite-optimizer"})


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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where loop and data stood when a snapshot was taken."""

    step: int
    position: Position | None = None
    shelf: Shelf[Any] | None = None


@dataclass(slots=True)
class _Question:
    """What is open while kept batches are served again."""

    verdict: Verdict
    applied: bool
    diagnosis: Diagnosis
    anchors: bool


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
        self._optimizers = _listed(optimizer)
        self._schedulers = [] if scheduler is None else _listed(scheduler)
        self._scaler = scaler
        self._average = average
        self._max_norm = max_norm
        self._journal = journal
        self._parameters = [p for one in self._optimizers for group in one.param_groups for p in group["params"]]
        _refuse_what_cannot_be_governed(self._optimizers, self._parameters)
        self._counters = {"updates": 0}
        self._state = TrainingState(
            model,
            self._optimizers,
            scheduler=self._schedulers,
            scaler=scaler,
            average=average,
            counters=self._counters,
            extra=extra,
        )
        self._state.register("vitals", self.vitals)
        self._ring = SnapshotRing(self._state, slots=self.policy.snapshots, memory_cap=self.policy.memory_cap)
        self._ladder = Ladder(self.policy)
        self._places: dict[int, _Place] = {}
        self._served: _Served[Any] | None = None
        self._before: Chance | None = None
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._question: _Question | None = None
        self._steps = 0
        self._healthy = 0
        self._captured_at = 0
        self._sound_at = -1
        self._row = 0
        self._endless = 0
        self._slow_rollback = -math.inf
        self._out = 0
        self._asks = self.policy.diagnosis

    @property
    def updates(self) -> int:
        """How many updates are in the weights; a rollback takes it back."""
        return self._counters["updates"]

    @property
    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """The states that can be rolled back to, oldest first."""
        return self._ring.committed

    @property
    def probing(self) -> bool:
        """Whether the batch that is out is one that is served again, in doubt; `step` takes its loss and no more."""
        return self._served is not None and self._served.probing

    def feed(self, loader: Iterable[B]) -> Feed[B]:
        """Return the loader as something that knows where its data stand; iterate over it in the loader's place.

        The batches pass unchanged. While `.probing` is true the batch that is out is one that was served before: `step`
        takes its loss and nothing else, and a loop that counts or logs should leave it out.
        """
        if self._served is None or self._served.loader is not loader:
            keep = 8 if self.policy.diagnosis else 0
            self._served = _Served(loader, keep=keep)
            self._served.govern(self._serving)
        return self._served

    def step(self, loss: torch.Tensor | float) -> Verdict:
        """Judge the step whose gradients are there, and apply the update, leave it out, or roll back.

        The gradients are cleared, and the scheduler is stepped if the update was applied.

        Args:
            loss: The loss of this step.

        Raises:
            GovernorExhausted: The budget of the policy is spent and the run still fails.
            RollbackFailed: No snapshot could be restored.
            InputError: The loss is no number.
        """
        value = _as_float(loss)
        out, self._out = self._out, 0
        if out > 1 and self._asks:
            self._stop_asking()
        if self._served is not None and self._served.probe is not None and self._question is not None:
            return self._answered(value, self._served.probe, self._question)
        if not self._ring.committed:
            self._begin()
        norm = self._measure()
        scale = self._scaler.get_scale() if self._scaler is not None and self._scaler.is_enabled() else None
        verdict = self.vitals.observe(value, None if norm is None else norm.item(), step=self._steps, amp_scale=scale)
        self._steps += 1
        if verdict.action is Action.APPLY:
            return self._applied(verdict, value, norm)
        if verdict.level < Level.ANOMALY:
            return self._left_to_the_scaler(verdict)
        return self._refused(verdict)

    def observe(self, loss: float, grad_norm: float | None = None, **more: Any) -> Verdict:
        """Judge a loss and a norm, and do nothing about it: the detector alone, as `Vitals.observe`."""
        return self.vitals.observe(loss, grad_norm, **more)

    def snapshot(self) -> SnapshotInfo:
        """Take a snapshot now and trust it at once, without probation.

        Raises:
            SnapshotError: A value is not finite, or there is no room; older snapshots are as they were.
        """
        for candidate in self._ring.candidates:
            self._ring.discard(candidate.id)
        info = self._capture()
        return self._promote(info)

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
        for candidate in self._ring.candidates:
            self._ring.discard(candidate.id)
        now = Chance.now(everything=True)
        newest_first = self._ring.committed[::-1]
        passed_over = []
        for info in newest_first[min(attempt.older, len(newest_first) - 1) :]:
            try:
                restored = self._ring.restore(info.id)
            except SnapshotError as error:
                passed_over.append(f"snapshot {info.id}: {error}")
                continue
            break
        else:
            raise RollbackFailed(
                f"no snapshot could be restored at step {self._steps} ({'; '.join(passed_over) or 'there is none'}), "
                "and the run is as it was before: look into these reasons, or resume from a checkpoint"
            )
        place = self._places[info.id]
        if self._served is not None and place.shelf is not None:
            self._served.shelf = place.shelf
        if self.policy.recovery == "skip":
            now.put_back()  # the data go on, and so does chance
        elif self._served is not None and place.position is not None:
            self._served.seek(place.position)
        self.vitals.rolled_back()
        self._question = None
        self._healthy, self._captured_at, self._sound_at, self._row = 0, self.updates, -1, 0
        if self._served is None:
            self._remember()
        report = RollbackReport(
            snapshot_id=info.id,
            step=self._steps,
            taken_at=info.step,
            reason=reason,
            attempt=attempt.number,
            learning_rate_factor=attempt.rate,
            passed_over=tuple(passed_over),
            seconds=restored.seconds,
        )
        _LOG.warning("step %d: rolled back to update %d, because of %s", self._steps, info.step, reason)
        self._tell(
            records.RolledBack(
                step=report.step,
                reason=reason,
                snapshot=info.id,
                taken_at=info.step,
                back_to=place.step,
                attempt=attempt.number,
                learning_rate_factor=attempt.rate,
                seconds=restored.seconds,
            )
        )
        return report

    def _applied(self, verdict: Verdict, value: float, norm: torch.Tensor | None) -> Verdict:
        reference = self.vitals.loss_reference()
        self._update(norm)
        self._row = self._endless = 0
        if verdict.rho >= _DOUBTFUL:
            self._healthy = 0
            question = _Question(verdict, applied=True, diagnosis=Diagnosis(self.updates), anchors=False)
            if self._ask(question):
                verdict = _also(verdict, "asking")
        else:
            if reference is not None and self._served is not None and self._before is not None:
                self._served.keep((Reference(value, *reference), self._before), updates=self.updates)
            self._healthy += 1
            damaged = self._look_after_snapshots()
            if damaged is not None:
                return self._roll_back(verdict, damaged)
        if verdict.level > Level.OK:
            self._speak(verdict)
        self._end()
        return verdict

    def _left_to_the_scaler(self, verdict: Verdict) -> Verdict:
        """Let the gradient scaler skip an overflow of its own, and lower its scale."""
        if self._scaler is not None:
            for optimizer in self._optimizers:
                self._scaler.step(optimizer)
            self._scaler.update()
        self._clear()
        self._end()
        return verdict

    def _refused(self, verdict: Verdict) -> Verdict:
        if "nonfinite" in verdict.reasons and (name := first_not_finite(self._model)) is not None:
            verdict = verdict._replace(note=f"the first gradient that is not finite is that of `{name}`")
        self._leave_out()
        reasons = set(verdict.reasons)
        if reasons & _DAMAGED:
            return self._roll_back(verdict, ", ".join(verdict.reasons))
        slow = bool(reasons & _SLOW)
        if slow and self._steps - self._slow_rollback < self.policy.rollback_window:
            return self._shifted(verdict)
        if not slow and self._sound_at == self.updates:
            return self._data(verdict)  # nothing was applied since the state was last found sound
        question = _Question(verdict, applied=False, diagnosis=Diagnosis(self.updates), anchors=slow)
        if self._ask(question):
            asked = verdict._replace(action=Action.SKIP, reasons=(*verdict.reasons, "asking"))
            self._speak(asked)
            return asked
        return self._unanswered(verdict)

    def _shifted(self, verdict: Verdict) -> Verdict:
        """A slow rise came back after a rollback that was made for it: the state was not to blame, the data are."""
        self.vitals.found_sound(slow=True)
        told = _also(verdict, "data", "adopted")._replace(level=Level.WATCH, action=Action.SKIP)
        self._speak(told)
        return told

    def _unanswered(self, verdict: Verdict) -> Verdict:
        """Do what the detector alone would have done."""
        if _SLOW & set(verdict.reasons):
            self._slow_rollback = self._steps
        if verdict.level is Level.PANIC:
            return self._roll_back(verdict, ", ".join(verdict.reasons))
        self._speak(verdict)
        return verdict

    def _data(self, verdict: Verdict) -> Verdict:
        """The state is sound, so the batch was bad: it stays left out, and costs nothing else."""
        self.vitals.found_sound()
        self._sound_at = self.updates
        self._row += 1
        self._endless += 1
        held = self.vitals.held()
        if self._row >= _CHANGED_FOR_GOOD and held >= _ADOPT:
            self.vitals.adopt_held()
            self._row = 0
            told = _also(verdict, "data", "adopted")._replace(level=Level.WATCH)
        elif self._endless >= _ENDLESS:
            halted = _also(verdict, "data", "endless")._replace(action=Action.HALT)
            self._speak(halted)
            message = (
                f"the last {self._endless} batches were refused while the state is sound, so no rollback can help "
                f"({halted}): look at the data from step {self._steps - self._endless} on"
            )
            self._tell(records.Exhausted(step=self._steps, message=message))
            raise GovernorExhausted(message)
        else:
            level = min(verdict.level, Level.ANOMALY)
            told = _also(verdict, "data")._replace(level=level, action=Action.SKIP)
        self._speak(told)
        return told

    def _ask(self, question: _Question) -> bool:
        """Have a kept batch served next, if there is one; say whether."""
        if self._served is None or not self._asks:
            return False
        if question.anchors:
            asked = len(question.diagnosis.scores)
            enough = len(self._served.shelf.anchors) >= _ANCHORS_NEEDED
            kept = self._served.serve_again(asked + 1, anchor=True) if enough else None
        else:
            age = question.diagnosis.age(self._served.shelf.ages)
            kept = None if age is None else self._served.serve_again(age)
        self._question = question if kept is not None else None
        return kept is not None

    def _answered(self, value: float, kept: Kept[Any], question: _Question) -> Verdict:
        """Take the loss of a batch that was served again, and undo all else that serving it did."""
        reference: Reference = kept.info[0]  # type: ignore[index] # what `_applied` kept
        self._leave_out()
        score = reference.score(value)
        if question.anchors:
            question.diagnosis.scores.append(score)
            if self._ask(question):
                return _probe(question)
            scores = question.diagnosis.scores
            finding = Finding.SOUND if sum(scores) / len(scores) <= 1.0 else Finding.UNCLEAR
        else:
            ages = () if self._served is None else self._served.shelf.ages
            finding = question.diagnosis.answer(score, ages)
            if finding is Finding.ASK and self._ask(question):
                return _probe(question)
        self._question = None
        return self._found(finding, question)

    def _found(self, finding: Finding, question: _Question) -> Verdict:
        verdict = question.verdict
        if finding is Finding.DAMAGED:
            scores = ", ".join(f"{score:.2g}" for score in question.diagnosis.scores)
            told = verdict._replace(note=f"kept batches rose by {scores} of their usual deviation")
            return self._roll_back(_also(told, "state"), f"damage (kept batches rose by {scores} scales)")
        if question.applied:
            if finding is Finding.SOUND:
                self._sound_at = self.updates
            return _also(verdict, "sound")._replace(action=Action.SKIP, level=Level.OK)
        if finding is not Finding.SOUND:
            return self._unanswered(verdict)
        if question.anchors:
            self.vitals.found_sound(slow=True)
            told = _also(verdict, "sound")._replace(level=Level.WATCH, action=Action.SKIP)
            self._speak(told)
            return told
        return self._data(verdict)

    def _stop_asking(self) -> None:
        """Say once that batches are not asked where a step is made of several."""
        self._asks = False
        _LOG.warning(
            "step %d: several batches were served for one step, so no batch is served again in doubt, and a bad batch "
            "and a damaged state are told apart by the detector alone",
            self._steps,
        )
        if self._question is not None:
            self._question = None
            self._leave_out()  # a batch that was served again is in these gradients

    def _roll_back(self, verdict: Verdict, reason: str) -> Verdict:
        told = verdict._replace(level=Level.PANIC, action=Action.ROLLBACK)
        self._speak(told)
        self.rollback(reason)
        return told

    def _serving(self, probe: Kept[Any] | None) -> None:
        """Before every batch that the feed hands out: remember what leaving it out must put back."""
        self._out += 1
        self._remember()
        if not self._ring.committed:
            self._begin()
        if probe is not None:
            chance: Chance = probe.info[1]  # type: ignore[index] # what `_applied` kept
            chance.put_back()

    def _end(self) -> None:
        if self._served is None:
            self._remember()  # a feed does it before the next batch

    @torch.no_grad()
    def _remember(self) -> None:
        # Without a feed the next batch is drawn before its forward, and chance must not be taken back to before that.
        self._before = None if self._served is None else Chance.now()
        live = list(self._model.buffers())
        if len(live) != len(self._buffers) or any(
            one is not kept for one, (kept, _) in zip(live, self._buffers, strict=True)
        ):
            self._buffers = [(one, one.detach().clone()) for one in live]
            return
        for buffer, copy in self._buffers:
            copy.copy_(buffer)

    @torch.no_grad()
    def _leave_out(self) -> None:
        """Make it as if the batch had not been seen."""
        self._clear()
        self._forget_unscaling()
        for buffer, copy in self._buffers:
            buffer.copy_(copy)
        if self._before is not None:
            self._before.put_back()

    def _measure(self) -> torch.Tensor | None:
        if self._scaler is not None:
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
        found = gradients(self._parameters)
        return total_norm(found) if found else None

    def _update(self, norm: torch.Tensor | None) -> None:
        if self._max_norm is not None and norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._max_norm, norm)
        with self._slowed(self._ladder.rate(self._steps)):
            for optimizer in self._optimizers:
                if self._scaler is not None:
                    self._scaler.step(optimizer)
                else:
                    optimizer.step()
        if self._scaler is not None:
            self._scaler.update()
        for scheduler in self._schedulers:
            scheduler.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        self._clear()
        self._counters["updates"] += 1

    @contextmanager
    def _slowed(self, factor: float) -> Iterator[None]:
        """Lower every learning rate for one update, without the schedule noticing."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups] if factor < 1.0 else []
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = group["lr"] * factor
        yield
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def _clear(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def _forget_unscaling(self) -> None:
        """Let the scaler begin its next step anew; its scale and its count of good steps stay."""
        if self._scaler is not None and self._scaler.is_enabled():
            self._scaler.update(new_scale=self._scaler.get_scale())

    def _begin(self) -> None:
        """Keep the state that training starts from: from the first step on there is a place to go back to."""
        self._promote(self._capture())

    def _capture(self) -> SnapshotInfo:
        info = self._ring.capture(self.updates)
        self._captured_at = self.updates
        self._healthy = 0
        served = self._served
        self._places[info.id] = (
            _Place(self._steps) if served is None else _Place(self._steps, served.position, served.shelf)
        )
        return info

    def _promote(self, info: SnapshotInfo) -> SnapshotInfo:
        committed = self._ring.promote(info.id)
        alive = {one.id for one in self._ring.committed}
        self._places = {id_: place for id_, place in self._places.items() if id_ in alive}
        self._tell(
            records.SnapshotCommitted(
                step=self._steps,
                snapshot=committed.id,
                taken_at=committed.step,
                bytes=committed.bytes,
                seconds=committed.seconds,
            )
        )
        return committed

    def _look_after_snapshots(self) -> str | None:
        """Promote the candidate that has stood its probation, or take one; say what is damaged."""
        candidates = self._ring.candidates
        if candidates:
            if self._healthy >= self.policy.probation:
                self._promote(candidates[0])
        elif self.updates - self._captured_at >= self.policy.snapshot_every:
            try:
                self._capture()
            except SnapshotError as error:
                self._tell(records.SnapshotDiscarded(step=self._steps, reason=str(error)))
                if error.reason == "not-finite":
                    return str(error)
                _LOG.warning("step %d: no snapshot was taken (%s)", self._steps, error)
                self._captured_at = self.updates
        return None

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


class _Served(Feed[B]):
    """A feed that tells its governor of every batch before it is handed out."""

    def govern(self, serving: Callable[[Kept[B] | None], None]) -> None:
        """Name what is called with the kept step that comes next, or None."""
        self._serving = serving

    def _next(self, target: int) -> B:
        batch = super()._next(target)
        self._serving(self.probe)
        return batch


def _probe(question: _Question) -> Verdict:
    return _also(question.verdict, "asking")._replace(level=Level.WATCH, action=Action.SKIP)


def _also(verdict: Verdict, *codes: str) -> Verdict:
    return verdict._replace(reasons=(*verdict.reasons, *(code for code in codes if code not in verdict.reasons)))


def _listed(thing: Any) -> list[Any]:
    return list(thing) if isinstance(thing, list | tuple) else [thing]


def _as_float(loss: torch.Tensor | float) -> float:
    try:
        return float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"`loss` is {loss!r}: pass a number, or a tensor that holds one") from error


def _refuse_what_cannot_be_governed(
    optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[torch.nn.Parameter]
) -> None:
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InputError(
                "`optimizer` is an LBFGS, which evaluates the loss inside its step: what it will do cannot be judged "
                "before it is done; use an optimizer that takes one gradient a step"
            )
    if len({id(parameter) for parameter in parameters}) != len(parameters):
        raise InputError("two of the optimizers own the same parameter, which would be updated twice: give it to one")
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        raise InputError("a governor does not yet agree with those of other ranks: govern a run of one process")
