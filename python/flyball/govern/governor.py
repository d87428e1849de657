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

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from flyball.errors import GovernorExhausted, InputError
from flyball.govern import records
from flyball.govern.admission import admit, checked_norm
from flyball.govern.agreement import Agreement, Measured, Replicas, Spoilt, digest_of, is_sharded, shape_of
from flyball.govern.attribution import first_not_finite
from flyball.govern.before import BeforeForward
from flyball.govern.bundle import Bundle, Bundles, Offence
from flyball.govern.diagnosis import Finding, Reference
from flyball.govern.feeding import Feeding, Out
from flyball.govern.gradients import fetched, number
from flyball.govern.inquiry import Inquiry, Outcome, also
from flyball.govern.keeper import Keeper, Place
from flyball.govern.keeper_of_ranks import KeeperOfRanks
from flyball.govern.sharded import ShardedUpdate
from flyball.govern.snapshot import SnapshotInfo, SnapshotRing, TrainingState
from flyball.govern.telling import Teller
from flyball.govern.update import Update
from flyball.govern.verdict import Action, Level, Verdict
from flyball.govern.vitals import Vitals
from flyball.govern.way_back import WayBack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flyball.govern.chance import Chance
    from flyball.govern.feed import Feed, Position
    from flyball.govern.policy import Policy
    from flyball.govern.report import RollbackReport

B = TypeVar("B")

_DOUBTFUL = 0.5  # a score of half its threshold: applied, but the state it leaves is looked into
_WATCHED = 16


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
        spill: A folder where trusted snapshots are also written, to survive the process, in a folder of this run's.
        bundles: A folder where a step that went wrong is written with its batch, the state before it and the random
            state, for `open_bundle`; nothing is written if None.
        extra: Anything else with `state_dict` and `load_state_dict` that belongs to the state of the run, by name.

    Raises:
        InputError: Something cannot be governed, such as an optimizer that asks for a closure.
        AgreementError: There are other ranks, and one did not make its governor, or made another one.
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
        spill: str | Path | None = None,
        bundles: str | Path | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.vitals = Vitals(policy)
        self.policy = self.vitals.policy
        self._model = model
        if journal is not None and not callable(getattr(journal, "write", None)):
            raise InputError(
                f"`journal` is {journal!r}, which has no `write`: pass a `flyball.Journal(path, run=name)`"
            )
        self._teller = Teller(journal)
        optimizers, schedulers = _listed(optimizer), [] if scheduler is None else _listed(scheduler)
        modules = [model, *(one for one in (extra or {}).values() if isinstance(one, torch.nn.Module))]
        admit(modules, optimizers, schedulers)
        self._agreement = Agreement.of_this_run(self.policy.agreement_timeout, self._teller.tell)
        update = ShardedUpdate if any(map(is_sharded, model.parameters())) else Update
        if update is ShardedUpdate and self.policy.update_ratio_every is not None:
            raise InputError(
                f"`update_ratio_every` is {self.policy.update_ratio_every} and the model is sharded, so each rank "
                "would measure its own shards alone: leave it None"
            )
        self._update = update(
            model, optimizers, schedulers, scaler=scaler, average=average, max_norm=checked_norm(max_norm)
        )
        self._known = len(self._update.parameters)
        self._prepared = -1  # how many parameters there were when a way back was last seen to
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
        agreement = self._agreement
        if agreement is None:
            self._keeper = Keeper(self._state, self.policy, self._teller, spill=_own_folder(spill, None))
        else:
            agreement.start(model=shape_of(model), optimizer=shape_of(*optimizers), policy=digest_of([self.policy]))
            self._keeper = KeeperOfRanks(
                self._state, self.policy, self._teller, agreement, Replicas(model), spill=_own_folder(spill, agreement)
            )
        self._feeding = Feeding(self.policy, self, self._teller, agreement)
        self._way_back = WayBack(
            self.policy,
            keeper=self._keeper,
            feeding=self._feeding,
            vitals=self.vitals,
            update=self._update,
            teller=self._teller,
            agreement=agreement,
            generators=[one for one in (extra or {}).values() if isinstance(one, torch.Generator)],
        )
        folder = _own_folder(bundles, agreement)
        self._feeding.remembering = folder is not None
        self._bundles = None if folder is None else Bundles(folder, self._state, self.policy.bundles, self._teller)
        self._forward = BeforeForward(modules)
        self._forward.remember(chance=False, everything=False)
        self._born = self._touched()
        self._watched = _WATCHED
        self._ratio_every = self.policy.update_ratio_every
        self._ratios: list[float] | None = None  # by how much each parameter group last moved, until it is judged
        self._inquiry = Inquiry(self.policy, self.vitals, self._touched, self._agreement)
        self._rolled = False
        self._refusals = 0  # in a row
        self._steps = 0
        self._at: Position | None = None

    @property
    def agreement(self) -> Agreement | None:
        """The other ranks; None if there are none."""
        return self._agreement

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
        feed = self._feeding.current
        return feed is not None and feed.probing

    @property
    def due(self) -> bool:
        """Whether the batch that is out is the last of its step, after which `step` is to be called.

        True for every batch but where the feed was told to accumulate. The last step of an epoch may be shorter, where
        the loader knows its length; elsewhere it is filled up from the next epoch.
        """
        return self._feeding.due

    def feed(self, loader: Iterable[B], *, accumulate: int = 1) -> Feed[B]:
        """Return the loader as something that knows where its data stand; iterate over it in the loader's place.

        The batches pass unchanged. While `.probing` is true the batch that is out is one that was served before: `step`
        takes its loss and nothing else, and a loop that counts or logs should leave it out.

        Args:
            loader: A `DataLoader`, a list, or anything else that can be iterated.
            accumulate: How many batches make one step. They are kept and served again together; `due` says when the
                last of them is out.

        Raises:
            InputError: The loader cannot be fed, or has a feed with another `accumulate`.
        """
        return self._feeding.feed(loader, accumulate)

    def step(self, loss: torch.Tensor | float) -> Verdict:
        """Judge the step whose gradients are there, and apply the update, leave it out, or roll back.

        The gradients are cleared, and the scheduler is stepped if the update was applied.

        Args:
            loss: The loss of this step.

        Raises:
            GovernorExhausted: The budget of the policy is spent and the run still fails.
            RollbackFailed: No snapshot could be restored.
            SnapshotError: The state that training starts from is not finite, or has no room.
            InputError: The loss is no number, or at the very first step nothing has a gradient.
            AgreementError: A rank is gone, late, or at another place of its program; it is named.
        """
        told = number(loss)
        out = self._feeding.take()
        if out.probe is not None:
            return self._answered(told if isinstance(told, float) else told.item(), out)
        self._at = out.first
        owned = self._update.parameters
        if len(owned) != self._prepared:
            self._have_a_way_back(len(owned))
        value, norm, buffers = self._measure(told, owned)
        if self._watched:
            self._watch_others(out)
        spoilt = Spoilt.NOTHING if buffers is None or math.isfinite(buffers) else self._spoilt()
        scale = self._update.scale
        if self._agreement is not None:
            own = Measured(value, norm, self._update.shards, scale, spoilt, out.whole, self._feeding.keepable(out))
            value, norm, _, scale, spoilt, whole, keep = self._agreement.step(own)
            out = out._replace(whole=whole, keep=keep)
        if self._rolled:
            self._rolled = False
            if norm is None:
                self._leave_out()  # the gradients were those of the state that was left
                return Verdict(self._steps, "train", Level.OK, Action.SKIP, ("rolled-back",))
        if norm is None and not self._steps and not self.updates and owned:
            raise InputError(
                "no parameter of `optimizer` has a gradient at the first step: call `loss.backward()` before `step`, "
                "and let the model that the loss comes from be the one that `optimizer` trains"
            )
        verdict = self._judge(value, norm, scale, spoilt)
        self._steps += 1
        if verdict.action is Action.APPLY:
            return self._applied(verdict, value, norm, out)
        if verdict.level < Level.ANOMALY:
            return self._left_to_the_scaler(verdict)
        return self._refused(verdict, loss, value, out, damaged=spoilt is Spoilt.STATE)

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
        return self._go_back(reason, None)

    def replay(self, bundle: Bundle) -> None:
        """Put the run into the state before the step of a bundle, random state included; its batch is yours to serve.

        The run must be built as the one that wrote it. Afterwards snapshots and kept batches are those of before.

        Raises:
            SnapshotError: The bundle is damaged, or is of a run of another shape; nothing was changed.
        """
        ring = SnapshotRing(self._state, slots=1)
        ring.restore(ring.load(bundle.state).id)
        self._feeding.put_back(self._feeding.shelves, cleared=False)
        self._inquiry.rolled_back()
        if bundle.chances:
            bundle.chances[0].put_back()
        self._remember()

    def expect_shift(self, n: int, reason: str = "", *, stream: str = "train") -> None:
        """Announce that the next n steps belong to a new level, which they define: a curriculum, a new loss term.

        Kept batches are dropped with it, as their losses cannot be compared any more.

        Raises:
            InputError: n is not between 1 and the policy's window.
        """
        self._shift(lambda: self.vitals.expect_shift(n, reason, stream=stream))

    def rebaseline(self, *, stream: str | None = None) -> None:
        """Forget the levels, scales and thresholds of one stream, or of all, and what was kept: the loss is another."""
        self._shift(lambda: self.vitals.rebaseline(stream=stream))

    def naming_ranks(self) -> AbstractContextManager[None]:
        """Name the rank that is gone where torch's own communication fails: put your loop into it.

        A rank that dies while the others average gradients is met by their backward, which says "connection closed by
        peer" and no name. In a single process it does nothing.

        Raises:
            AgreementError: In the place of such an error, which is its cause.
        """
        return nullcontext() if self._agreement is None else self._agreement.naming_ranks()

    def state_dict(self) -> dict[str, Any]:
        """Return what the governor itself remembers, as plain data; the model and the rest are yours to save."""
        return {
            "version": 1,
            "vitals": self.vitals.state_dict(),
            "ladder": self._way_back.ladder.state_dict(),
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
        try:
            vitals, ladder, steps, updates = (state[name] for name in ("vitals", "ladder", "steps", "updates"))
            self._way_back.ladder.load_state_dict(ladder)
        except (KeyError, TypeError) as error:
            raise InputError(f"the state is damaged: {error} is missing or wrong; load one of `state_dict`") from error
        self.vitals.load_state_dict(vitals)
        self._steps, self._counters["updates"] = steps, updates

    def _measure(
        self, loss: float | torch.Tensor, owned: list[torch.nn.Parameter]
    ) -> tuple[float, float | None, float | None]:
        """Return the loss, the norm of the gradients, and a number that is finite if the buffers are."""
        norm, buffers = self._update.norm(owned), self._forward.norm()
        if isinstance(loss, float) and not isinstance(norm, torch.Tensor) and not isinstance(buffers, torch.Tensor):
            return loss, norm, buffers
        value, norm, buffers = fetched(loss, norm, buffers)
        return math.nan if value is None else value, norm, buffers

    def _judge(self, loss: float, norm: float | None, scale: float | None, spoilt: Spoilt) -> Verdict:
        """Ask the detector; what the forward left in the buffers counts as part of the batch."""
        if spoilt is Spoilt.NOTHING:
            ratios, self._ratios = self._ratios, None
            return self.vitals.observe(loss, norm, step=self._steps, amp_scale=scale, update_ratio=ratios)
        if spoilt is Spoilt.BATCH:
            # They were finite before this batch, and will be again: it is the batch that is refused.
            verdict = self.vitals.observe(loss, norm, step=self._steps, nonfinite=("gradients",))
            codes = {"nonfinite-gradients": "nonfinite-buffers"}
            return verdict._replace(reasons=tuple(codes.get(code, code) for code in verdict.reasons))
        return self.vitals.observe(loss, norm, step=self._steps, nonfinite=("buffers",))

    def _spoilt(self) -> Spoilt:
        """Say whether a buffer is not finite, and since when."""
        broken = self._forward.broken()
        if not broken:
            return Spoilt.NOTHING
        before = all(bool(torch.isfinite(buffer.copy).all()) for buffer in broken)
        return Spoilt.BATCH if before else Spoilt.STATE

    def _watch_others(self, out: Out) -> None:
        """Find out in the first steps whether the loop draws from Python's or NumPy's generators."""
        if out.batches and self._forward.chance is not None:
            self._watched -= 1
            self._feeding.everything = self._feeding.everything or not self._forward.chance.same_others()

    def _have_a_way_back(self, count: int) -> None:
        """From the first step on there is a place to go back to, and it has the shape of the run."""
        if self._keeper.ready and count == self._known:
            self._prepared = count
            return
        self._known = count
        # Without a feed the first forward has moved the buffers already; what they were is known since the
        # beginning, unless a checkpoint was loaded meanwhile.
        first = not self._keeper.ready and self._touched() == self._born
        with self._forward.in_place() if first else nullcontext():
            self._keeper.keep(self._place())
        self._prepared = count

    def _applied(self, verdict: Verdict, value: float, norm: float | None, out: Out) -> Verdict:
        rate = self._way_back.ladder.rate(self._steps)
        if self._ratio_every is None or (self.updates + 1) % self._ratio_every:
            self._update.apply(norm, rate)
        else:
            self._ratios = self._update.ratios(norm, rate)
        updates = self._counters["updates"] = self._counters["updates"] + 1
        self._refusals = 0
        self._inquiry.applied()
        if verdict.rho >= _DOUBTFUL:
            self._keeper.doubt()
            if out.whole:
                verdict = self._inquiry.doubt(verdict, updates)
        else:
            if out.whole and (reference := self.vitals.loss_reference()) is not None:
                self._feeding.keep(out, Reference(value, *reference), self._forward.chance, updates)
            health = self._keeper.healthy(updates, self._place)
            if health is not None:
                if health.damage is not None:
                    return self._roll_back(verdict, health.damage)
                if health.captured and out.whole:
                    self._inquiry.examine(verdict, updates)
        if verdict.reasons and verdict.level > Level.OK:
            self._speak(verdict)
        if self._feeding.current is None:
            self._remember()  # a feed does it before the next batch
        return verdict

    def _left_to_the_scaler(self, verdict: Verdict) -> Verdict:
        """Let the gradient scaler skip an overflow of its own, and lower its scale."""
        self._update.leave_to_the_scaler()
        if self._feeding.current is None:
            self._remember()
        return verdict

    def _refused(
        self, verdict: Verdict, loss: torch.Tensor | float, value: float, out: Out, *, damaged: bool
    ) -> Verdict:
        nonfinite = "nonfinite" in verdict.reasons
        if nonfinite:
            name = first_not_finite(loss, self._model, self._update.parameters)
            if self._agreement is not None:
                name = self._agreement.first_named(name, [name for name, _ in self._model.named_parameters()])
            at = "" if out.first is None else f" ({out.first})"
            if name is not None:
                verdict = verdict._replace(note=f"the first gradient that is not finite is that of `{name}`{at}")
        self._leave_out()
        if nonfinite and not self._way_back.finite():
            verdict, damaged = also(verdict, "nonfinite-parameters")._replace(level=Level.PANIC), True
        self._refusals += 1
        if self._refusals == 1:  # one of a row is enough
            self._save_bundle(verdict, value, out, out.chances or (self._forward.chance,))
        if verdict.level is Level.PANIC and damaged:
            return self._roll_back(verdict, ", ".join(verdict.reasons))
        return self._act(self._inquiry.refused(verdict, self.updates, ask=out.whole))

    def _answered(self, value: float, out: Out) -> Verdict:
        """Take the loss of what was served again, and undo all else that serving it did."""
        chance = self._forward.chance
        whole = out.whole
        if self._agreement is not None:
            value, whole = self._agreement.answer(value, whole=whole)
        self._feeding.everything = self._feeding.everything or (chance is not None and not chance.same_others())
        self._leave_out()
        if not whole:
            self._inquiry.close()  # the loop made a step of a part of it, whose loss says nothing
        if not self._inquiry.open or out.probe is None:  # or a rollback in between has closed the question
            return Verdict(self._steps, "train", Level.OK, Action.SKIP, ("asking",))
        outcome = self._inquiry.answered(value, out.probe)
        if outcome.candidate is Finding.DAMAGED:
            self._keeper.distrust(self._steps, outcome.verdict.note)
        if outcome.verdict.action is Action.ROLLBACK:
            self._save_bundle(outcome.verdict, value, out, out.probe.info[1])  # type: ignore[index] # as it was kept
        return self._act(outcome)

    def _save_bundle(self, verdict: Verdict, loss: float, out: Out, chances: Sequence[Chance | None]) -> None:
        if self._bundles is not None:
            remarks = () if out.contents else ("there is no batch: no feed served it",)
            known = tuple(one for one in chances if one is not None)
            at = None if out.first is None else str(out.first)
            self._bundles.save(Offence(verdict, loss, at, out.contents, known, remarks))

    def _act(self, outcome: Outcome) -> Verdict:
        """Do what an outcome says."""
        verdict = outcome.verdict
        if outcome.forget:
            self._feeding.clear()
        if verdict.action is Action.ROLLBACK:
            return self._roll_back(verdict, outcome.why)
        if outcome.aloud:
            self._speak(verdict)
        if verdict.action is Action.HALT:
            self._teller.tell(records.Exhausted(step=self._steps, message=outcome.why))
            raise GovernorExhausted(outcome.why)
        return verdict

    def _roll_back(self, verdict: Verdict, reason: str) -> Verdict:
        told = verdict._replace(level=Level.PANIC, action=Action.ROLLBACK)
        self._speak(told)
        self._go_back(reason, told)
        return told

    def _go_back(self, reason: str, verdict: Verdict | None) -> RollbackReport:
        if self.probing:
            self._leave_out()  # chance is to go on from where it was before
        report = self._way_back.go(reason, verdict, self._place)
        self._inquiry.rolled_back()
        self._rolled, self._refusals, self._ratios = True, 0, None
        self._remember()
        return report

    def _shift(self, announce: Callable[[], None]) -> None:
        announce()
        self._way_back.shifts.append(announce)
        self._inquiry.close()
        self._feeding.clear()

    def coming(self) -> None:
        """Before a feed reads on: put right what a loop that went on without a step has left."""
        self._inquiry.feed = self._feeding.current
        if self._feeding.idle and all(parameter.grad is None for parameter in self._update.parameters):
            self._feeding.abandon()
        if not self._keeper.ready:
            self._keeper.keep(self._place())

    def unanswered(self) -> None:
        """What was served again was passed over: undo what its forward did."""
        self._inquiry.close()
        self._leave_out()

    def serving(self, *, probing: bool) -> None:
        """Before a batch is handed out: remember what leaving it out must put back."""
        self._remember(everything=probing)

    def _remember(self, *, everything: bool = False) -> None:
        # Without a feed the next batch is drawn before its forward, and chance must not be taken back to before that.
        everything = everything or self._feeding.everything or self._watched > 0
        self._forward.remember(chance=self._feeding.current is not None, everything=everything)

    @torch.no_grad()
    def _leave_out(self) -> None:
        """Make it as if the batch had not been seen."""
        self._update.leave_out()
        self._forward.put_back()

    def _touched(self) -> tuple[int, ...]:
        """Return what changes when a parameter is written to, by an update or by anything else."""
        return (self.updates, *(parameter._version for parameter in self._update.parameters))  # noqa: SLF001 -- torch's only word on it

    def _place(self) -> Place:
        feeding, era = self._feeding, len(self._way_back.shifts)
        return Place(self._steps, self.updates, era, feeding.current, feeding.position, feeding.shelves)

    def _speak(self, verdict: Verdict) -> None:
        self._teller.tell(
            records.VerdictGiven(
                step=verdict.step,
                level=verdict.level.name,
                action=verdict.action.value,
                reasons=verdict.reasons,
                text=str(verdict),
                position=None if self._at is None else str(self._at),
            )
        )


def _listed(thing: Any) -> list[Any]:
    return list(thing) if isinstance(thing, list | tuple) else [thing]


def _own_folder(folder: str | Path | None, agreement: Agreement | None) -> Path | None:
    """Return the folder of this rank: all of them number what they write alike."""
    if folder is None:
        return None
    return Path(folder) if agreement is None else Path(folder) / f"rank-{agreement.rank}"
