"""The trainer: a loop one can read, over the verbs of the governor, that resumes exactly from any instant.

    trainer = Trainer(model, objective, optimizer, policy=Policy(), run="runs/digits", checkpoint_every=500)
    history = trainer.fit(train, validate, epochs=20, resume="auto")

The loop is `Trainer.fit`, top to bottom. What happens in a step is the governor's matter; without a policy the verbs do
what a plain loop does, and nothing else.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch

from flyball.device import choose_dtype
from flyball.errors import InputError
from flyball.evaluation import evaluate
from flyball.events import EpochFinished, Event, StepSample
from flyball.govern.governor import Governor
from flyball.govern.snapshot import TrainingState
from flyball.govern.snapshot.components import Stateful
from flyball.govern.verdict import Action
from flyball.objective import as_objective
from flyball.train import checks, distributed
from flyball.train import resume as resuming
from flyball.train.average import Average
from flyball.train.callbacks import Callback, Step
from flyball.train.history import EarlyStopping, Epoch, History, Tally
from flyball.train.learn import Learned, Learner, OnOutOfMemory, Where, groups
from flyball.train.run import Run
from flyball.train.settings import described
from flyball.train.signals import Interrupted, Stopped, Wish
from flyball.train.switches import switched
from flyball.train.together import Together
from flyball.train.ungoverned import Ungoverned

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from flyball.config import Config
    from flyball.evaluation import Evaluation
    from flyball.govern import Policy, Verdict
    from flyball.govern.feed import Feed

_LOG = logging.getLogger("flyball.train")


class Trainer:
    """Train a model: the loop, its checkpoints, and the way back into it.

    Args:
        model: What is trained, on its device.
        objective: What it is trained for: a sum of terms, such as `Task()`.
        optimizer: Its optimizer, or several.
        scheduler: A learning-rate scheduler, stepped after every update; or several.
        policy: How the run is governed; None trains as a plain loop does.
        precision: What the forward computes in: "fp32", "bf16", "fp16" (with a gradient scaler), or "auto", which is
            bf16 where the hardware computes in it and fp32 elsewhere.
        accumulate: How many batches make one step. They are weighted by what they count, so the gradient is that of
            one large batch; the last group of an epoch may have fewer.
        average: Averaged weights with `update_parameters`; updated after every update. Those of `flyball.train.average`
            are measured after each epoch too, as `average.loss` and so on.
        refresh: Whether BatchNorm's statistics under averaged weights, where they are not known, are measured anew on
            the training data, for the validation of each epoch and at the end: on all of them, or on so many batches.
            With False such an average is not measured.
        compile: Whether the model is compiled, or the mode to compile it in, or all that `Module.compile` takes, as a
            mapping.
        tf32: Whether products of float32 may be rounded to TF32 on a GPU, while this trains and measures; None leaves
            torch's own switch alone.
        channels_last: Whether the model, and images on their way to it, are laid out with the channels last.
        deterministic: Whether torch refuses what does not give the same numbers twice, while this trains and measures.
        run: The folder that the run leaves its configuration, journal and checkpoints in; None leaves nothing.
        checkpoint_every: Steps between two checkpoints; None writes one after every epoch.
        max_norm: Clip the gradients to this norm; not at all if None.
        stopping: Which epoch is the best, and when there was no better one for too long.
        on_oom: What is done with a batch for which the memory is too small: "raise", "skip" it loudly, or "split" it.
        keep: How many of the newest checkpoints stay; the best one stays besides.
        log_every: Every so many steps the terms of the objective are written into the journal, each by itself; the loss
            is every step.
        log_ranks: Whether each of several ranks writes a journal; else rank 0 does, for all.
        callbacks: What looks on; see `flyball.train.callbacks`.
        extra: Anything else with `state_dict` and `load_state_dict` that belongs to the run, by name.
        config: Your own settings: written into the run folder, and compared when the run is resumed.

    Attributes:
        history: What was done so far.
        governor: The governor, None without a policy.

    Raises:
        InputError: Something cannot be trained with, such as two optimizers that own one parameter.
        ConfigError: Two arguments contradict each other.
        DeviceError: The precision is none, or not one of the device.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        objective: Any,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        scheduler: Any = None,
        policy: Policy | None = None,
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
        accumulate: int = 1,
        average: Any = None,
        refresh: bool | int = True,
        compile: bool | str | Mapping[str, Any] = False,  # noqa: A002 -- what it is called everywhere
        tf32: bool | None = None,
        channels_last: bool = False,
        deterministic: bool = False,
        run: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        max_norm: float | None = None,
        stopping: EarlyStopping | None = None,
        on_oom: OnOutOfMemory = "raise",
        keep: int = 3,
        log_every: int = 10,
        log_ranks: bool = False,
        callbacks: Sequence[Callback] = (),
        extra: Mapping[str, object] | None = None,
        config: Config | Mapping[str, Any] | None = None,
    ) -> None:
        checks.arguments(
            model, accumulate=accumulate, checkpoint_every=checkpoint_every, keep=keep, refresh=refresh, on_oom=on_oom,
            channels_last=channels_last, run=run, stopping=stopping,
        )  # fmt: skip
        self.device = checks.device_of(model)
        self.model, self.average = model, average
        if channels_last:
            model.to(memory_format=torch.channels_last)
        self.objective = as_objective(objective).to(self.device)
        self.history = History()
        self.step, self.epoch = 0, 0
        self._steps: int | None = None  # how many there will be, if that is known
        self._near = self.device.type == "cpu"
        dtype = choose_dtype(precision, self.device)
        self._optimizers: list[torch.optim.Optimizer] = (
            [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
        )
        self._schedulers = list(scheduler) if isinstance(scheduler, list | tuple) else [s for s in [scheduler] if s]
        self._scaler = torch.amp.GradScaler(self.device.type) if dtype is torch.float16 else None
        # Most objectives have no state, and then nothing of them needs to be kept.
        self._extra = {**({"objective": self.objective} if self.objective.state_dict() else {}), **(extra or {})}
        self._stopping, self._callbacks = stopping, tuple(callbacks)
        self._accumulate, self._every, self._keep, self._log_every = accumulate, checkpoint_every, keep, log_every
        self._refresh = refresh
        self._switches = partial(switched, tf32=tf32, deterministic=deterministic)
        self._tells = log_ranks or distributed.world()[0] == 0
        self._folder = None if run is None else distributed.own_folder(Path(run))
        self._run: Run | None = None
        self._best: str | None = None
        parts: dict[str, Any] = {
            "scheduler": self._schedulers, "scaler": self._scaler, "average": average, "max_norm": max_norm,
        }  # fmt: skip
        modules = [one for one in self._extra.values() if isinstance(one, torch.nn.Module)]
        self.governor = None
        if policy is not None:
            self.governor = Governor(model, self._optimizers, policy=policy, journal=self, extra=self._extra, **parts)
        self._verbs = self.governor or Ungoverned(model, self._optimizers, modules=modules, **parts)
        self._together = Together(self.governor, model, self.objective, self.write)
        self._learn = Learner(
            model, self.objective, device=self.device, dtype=dtype, scaler=self._scaler, size=accumulate, on_oom=on_oom,
            modules=[model, *modules], channels_last=channels_last,
        )  # fmt: skip
        self._config = described(
            self.objective, self._optimizers, self._schedulers, policy=policy, precision=str(dtype)[len("torch.") :],
            accumulate=accumulate, average=average, max_norm=max_norm, stopping=stopping, config=config,
            refresh=refresh, channels_last=channels_last, tf32=tf32, deterministic=deterministic,
        )  # fmt: skip
        if compile:
            how = {} if compile is True else {"mode": compile} if isinstance(compile, str) else compile
            model.compile(**how)
        checks.tell_of_the_unowned(modules=[model, *modules], optimizers=self._optimizers)

    def fit(
        self,
        train: Iterable[Any],
        validate: Iterable[Any] | None = None,
        *,
        epochs: int,
        resume: str | os.PathLike[str] | None = None,
        accept: Collection[str] = (),
    ) -> History:
        """Train until so many epochs are done, those before a resume included.

        Args:
            train: The loader of the batches to train on.
            validate: The loader to measure on after every epoch.
            epochs: How many epochs the run has in all.
            resume: "auto" goes on from the newest checkpoint of the run folder, and starts afresh only where there is
                none at all; a path goes on from that checkpoint, or from the newest of that run folder.
            accept: Settings that may differ from those the checkpoint was written with, by name.

        Raises:
            RunExistsError: The folder holds a run already, and it is not resumed.
            CheckpointError: What is to be resumed cannot be, or the last checkpoint could not be written.
            InputError: A loader has no batch, or a batch cannot be read.
            GovernorExhausted: The budget of the policy is spent and the run still fails.
            Stopped: SIGTERM or SIGINT came; the step was finished and the state saved.
        """
        if epochs < 1:
            raise InputError(f"`epochs` is {epochs}: give 1 or more")
        self.history, self.step, self.epoch = History(), 0, 0
        tally = Tally()
        feed: Feed[Any] = self._verbs.feed(train, accumulate=self._accumulate)
        steps = None if (batches := checks.length_of(train)) is None else epochs * -(-batches // self._accumulate)
        self._steps = steps
        with closing(feed), self._open(feed, tally, batches) as run, self._listening(run) as wish:
            self._begin(run, resume, accept)
            while self.epoch < epochs and not self._over():
                started = time.monotonic()
                distributed.set_epoch(train, self.epoch)
                for callback in self._callbacks:
                    callback.epoch_begins(self, self.epoch + 1)
                for group in () if self._drained(feed) else groups(feed, self._accumulate):
                    asked = self._verbs.probing  # a batch from before, served again: its loss answers a question
                    learned = self._learn(group, Where(self.step, steps, self.epoch))  # forward and backward
                    self._together.average_gradients()  # of the objective's own parameters, over several ranks
                    if learned is None:
                        self.history.skipped += 1  # for want of memory
                        continue
                    rate = self._optimizers[0].param_groups[0]["lr"]
                    verdict = self._verbs.step(learned.loss)  # measure, decide, then apply, leave out or roll back
                    if asked:
                        continue
                    self.step = self.history.steps = self.step + 1
                    self._count(run, tally, learned, verdict, rate)
                    self._save_if_due(run, verdict)
                    if signal := self._together.stop(wish):
                        self._stop(run, signal)
                self._see_that_something_was_trained()
                measured = () if validate is None else self._measured(run, validate, train, wish)
                self._end_epoch(run, tally, measured, time.monotonic() - started)
                if signal := self._together.stop(wish):
                    self._stop(run, signal)
            self._end(run, train)
        return self.history

    def validate(self, loader: Iterable[Any], *, average: bool = False) -> Evaluation:
        """Measure the model on every batch of a loader, by the objective; nothing of the training is changed.

        With several ranks every one measures its part, of `flyball.train.distributed.Part`, and gets the result of all.

        Args:
            loader: The data.
            average: Measure the averaged weights instead.

        Raises:
            InputError: The loader has no batch, or nothing in its batches counts.
        """
        return self._evaluated(loader, average=average)

    def _evaluated(
        self, loader: Iterable[Any], *, average: bool, before_batch: Callable[[], object] | None = None
    ) -> Evaluation:
        model, name = (self.average.module, "validation.average") if average else (self.model, "validation")
        with self._learn.precision, self._switches():
            return evaluate(
                distributed.bare(model), loader, objective=self.objective, device=self.device, name=name,
                all_ranks=distributed.world()[1] > 1, step=self.step, steps=self._steps, epoch=self.epoch,
                before_batch=before_batch,
            )  # fmt: skip

    def _measured(self, run: Run, loader: Iterable[Any], train: Iterable[Any], wish: Wish) -> Sequence[Evaluation]:
        """Measure the model, and the average as soon as it is one; a signal does not wait for it.

        What was measured until then is dropped, and measured when the run is resumed. Of several ranks each waits for
        the others, so there a validation is finished first.
        """
        heed = wish.heed if self._together.alone else None
        try:
            found = [self._evaluated(loader, average=False, before_batch=heed)]
            if self._averages(train):
                found.append(self._evaluated(loader, average=True, before_batch=heed))
        except Interrupted as signal:
            self._stop(run, str(signal))
        return found

    def _averages(self, train: Iterable[Any]) -> bool:
        """Have BatchNorm's statistics belong to the averaged weights, if that is wanted; return whether they do."""
        average = self.average
        if not isinstance(average, Average) or not average.ready:
            return False
        # What can be read once only is not used up for it.
        if not average.current and self._refresh and not isinstance(train, Iterator):
            with self._switches():
                average.refresh(train, batches=None if self._refresh is True else self._refresh)
        return average.current

    @contextmanager
    def _listening(self, run: Run) -> Iterator[Wish]:
        """Listen for signals, name the rank that is gone where the others fail because of it, and set the switches."""
        with (
            Wish(active=run.folder is not None) as wish,
            self._together.naming_ranks(),
            self._switches(),
        ):
            yield wish

    def _over(self) -> bool:
        """Whether it is time to stop early; all ranks say the same."""
        return self._stopping is not None and self._together.any(self._stopping.over)

    def _see_that_something_was_trained(self) -> None:
        """Refuse an epoch in which no step was made: its loss is not known, and nothing would be better after another.

        Raises:
            InputError: It was one.
        """
        if self.step > (self.history[-1].step if self.history else 0):
            return
        raise InputError(
            f"epoch {self.epoch + 1} trained nothing: all of its batches were left out, and the log says of each why. "
            "Where nothing in them counts, look at the mask, the weights and the `ignore_index`; where the memory was "
            "too small, make them smaller"
        )

    def _open(self, feed: Feed[Any], tally: Tally, batches: int | None) -> Run:
        """Bring together all that belongs to the run, so that a checkpoint holds it."""
        parts = {
            "governor" if self.governor else "steps": self._verbs,
            "history": self.history,
            "tally": tally,
            **({"stopping": self._stopping} if self._stopping else {}),
            **{f"callback.{n}": one for n, one in enumerate(self._callbacks) if isinstance(one, Stateful)},
            "feed": feed,
        }
        state = TrainingState(
            self.model,
            self._optimizers,
            scheduler=self._schedulers,
            scaler=self._scaler,
            average=self.average,
            extra={**self._extra, **parts},
        )
        config = {**self._config, "batches": batches}
        self._run = run = Run(self._folder, state, config=config, device=self.device, keep=self._keep, told=self._tells)
        state.register_functions("progress", self._progress, self._go_on)
        state.register_functions(resuming.ABOUT, lambda: run.about, lambda _: None)
        self._due, self._saved_at = False, (-1, -1)
        return run

    def _drained(self, feed: Feed[Any]) -> bool:
        """Whether all batches of the epoch are out, as where it is resumed between its last step and its validation."""
        made = self.step - (self.history[-1].step if self.history else 0)
        return feed.position.batch == 0 and made > 0

    def _progress(self) -> dict[str, Any]:
        best = None if self._run is None or self._run.checkpoints is None else self._run.checkpoints.best
        return {"step": self.step, "epoch": self.epoch, "best": best}

    def _go_on(self, progress: Mapping[str, Any]) -> None:
        self.step, self.epoch, self._best = progress["step"], progress["epoch"], progress["best"]

    def _begin(self, run: Run, resume: str | os.PathLike[str] | None, accept: Collection[str]) -> None:
        self.model.train()
        self.objective.train()
        self._best = None
        checkpoint = run.begin(resume, accept, distributed.with_shards(self.model, self._optimizers))
        if run.checkpoints is not None:
            run.checkpoints.best = self._best
        self.history.reason = "running"
        run.started(checkpoint, self.epoch, accept)
        for callback in self._callbacks:
            callback.fit_begins(self)

    def _count(self, run: Run, tally: Tally, learned: Learned, verdict: Verdict, rate: Any) -> None:
        """Take note of a step that was made."""
        loss: Any = learned.loss
        if self._near:
            loss = loss.item()  # a GPU is not waited for; the tally and the journal read it when they come to it
            if not math.isfinite(loss):
                learned.outcome.verify()
        if verdict.action is Action.APPLY:
            tally.add(loss, learned.weight)
        else:
            tally.left_out += 1
        if run.told:
            run.tell(StepSample(step=self.step, epoch=self.epoch + 1, loss=loss, learning_rate=rate))
            if self._log_every and self.step % self._log_every == 0 and len(learned.outcome.parts) > 1:
                run.tell(learned.outcome.record(self.step))
        if self._callbacks:
            step = Step(self.step, self.epoch + 1, learned.loss, learned.weight, verdict, float(rate))
            for callback in self._callbacks:
                callback.step_ends(self, step)

    def _save_if_due(self, run: Run, verdict: Verdict) -> None:
        """Write a checkpoint after so many steps; of a doubtful state not now, but as soon as it is settled."""
        if self._every is not None and self.step % self._every == 0:
            self._due = True
        if self._due and verdict.action is Action.APPLY and "asking" not in verdict.reasons:
            self._save(run)

    def _save(self, run: Run, *, best: bool = False) -> None:
        self._due = False
        if run.checkpoints is not None:
            run.checkpoints.save(self.step, best=best)
            self._saved_at = (self.step, self.epoch)

    def _end_epoch(self, run: Run, tally: Tally, evaluations: Sequence[Evaluation], seconds: float) -> None:
        """Write down what the epoch was, and whether it is the best."""
        self.epoch += 1
        measured = {
            f"{prefix}{name}": one.value
            for prefix, evaluation in zip(("", "average."), evaluations, strict=False)
            for name, one in evaluation.numbers().items()
        }
        record = Epoch(self.epoch, self.step, tally.mean, tally.weight, tally.left_out, seconds, measured)
        tally.clear()
        self.history.add(record)
        best = False
        if self._stopping is not None and measured:
            best = self._stopping.see(checks.monitored(measured, self._stopping.monitor))
            if best:
                self.history.best = self.epoch
        for evaluation in evaluations:
            run.tell(evaluation.event())
        run.tell(
            EpochFinished(
                epoch=self.epoch, step=self.step, train_loss=record.loss, seconds=seconds, validation=measured
            )
        )
        for callback in self._callbacks:
            callback.epoch_ends(self, record)
        if best or self._every is None:
            self._save(run, best=best)

    def _stop(self, run: Run, signal: str) -> NoReturn:
        """Save, and leave the process with a code that says so."""
        self.history.reason = signal
        self._save(run)
        name = None
        if run.checkpoints is not None:
            run.checkpoints.wait()
            name = run.checkpoints.written
        self._finish(run, signal)
        raise Stopped(signal, name)

    def _end(self, run: Run, train: Iterable[Any]) -> None:
        trained = any(epoch.loss is not None for epoch in self.history)
        early = self._over()
        reason = self.history.reason = "early stopping" if early else "completed" if trained else "nothing applied"
        if not trained:
            _LOG.error("none of the %d updates of this run was applied: the model is as it was", self.step)
        stale = isinstance(self.average, Average) and not self.average.current
        if (self._averages(train) and stale) or self._saved_at != (self.step, self.epoch):
            self._save(run)
        if run.checkpoints is not None:
            run.checkpoints.wait()
            if self._stopping is not None and self._stopping.restore and run.checkpoints.best is not None:
                run.put_back_weights(run.checkpoints.best, self.model)
        self._finish(run, reason)

    def _finish(self, run: Run, reason: str) -> None:
        for callback in self._callbacks:
            callback.fit_ends(self, self.history)
        run.finished(reason)

    def write(self, event: Event) -> None:
        """Write an event into the journal of the run, where there is one."""
        if self._run is not None:
            self._run.tell(event)
