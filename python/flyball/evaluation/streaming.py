"""One pass over a loader, batch by batch, that leaves everything as it was."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flyball.batch import Batch, read
from flyball.errors import InputError
from flyball.evaluation.behind import Behind
from flyball.evaluation.declining import confidence_score
from flyball.evaluation.result import Evaluation, perplexity
from flyball.evaluation.tally import Classes, Rows, Seen, weighted_mean
from flyball.evaluation.undisturbed import undisturbed
from flyball.measure.estimate import normal_quantile, wilson
from flyball.objective import Objective, Task, Term, as_objective
from flyball.objective.outcome import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flyball.objective.context import Check

_NO_SAMPLES = "they have no samples"
_NOTHING_COUNTS = "nothing in them counts"


def evaluate(
    model: Any,
    loader: Iterable[Any],
    *,
    objective: Objective | Term | Callable[..., Any] | None = None,
    attacks: Iterable[Any] = (),
    selective: Any = None,
    explain: Any = None,
    train: Iterable[Any] | None = None,
    train_batches: int = 10,
    topk: tuple[int, ...] = (1, 5),
    confidence: float = 0.95,
    device: torch.device | None = None,
    name: str = "loader",
    all_ranks: bool = False,
    step: int = 0,
    steps: int | None = None,
    epoch: int = 0,
    before_batch: Callable[[], object] | None = None,
) -> Evaluation:
    """Measure a model on every batch of a loader, in evaluation mode, without changing anything.

    The loss is weighted by samples, or by tokens. Modes, gradients, random state and the order of the loader's next
    pass are as before, also if something fails. The device is waited for once, at the end.

    Args:
        model: What is measured.
        loader: The data; anything that can be iterated over.
        objective: What the loss is, as for training; cross-entropy by default. Its first `Task` says what else is
            measured: a classifier's accuracy and more, a language model's perplexity.
        attacks: None are known yet.
        selective: By which confidence a classifier may decline to answer: "probability", "margin", "certainty" (see
            `flyball.measure.selective`), or a function of rows of logits. The result then has `selective`.
        explain: Not known yet.
        train: Training data, of which some batches are measured in the same way.
        train_batches: How many.
        topk: The k of top-k accuracy.
        confidence: How often an interval holds the true value.
        device: Where to compute; where the model is by default.
        name: What the data are called, in the result and in errors.
        all_ranks: Whether the data are split over the ranks of the process group, so that each rank gets the result of
            all. Their parts may differ in length; a sampler that repeats samples to make them equal counts some twice.
        step: How many updates came before, for weights that follow the step.
        steps: How many there will be in all.
        epoch: How many epochs came before.
        before_batch: Called before each batch is measured; what it raises ends the evaluation, and all is as before.

    Raises:
        InputError: There is no batch, or nothing in the batches counts; or something asked for is not known.
    """
    for asked, value in (("attacks", attacks), ("explain", explain)):
        if value is not None and value not in ((), []):
            raise InputError(f"`{asked}` is {value!r}, and this flyball knows none yet: leave it out")
    normal_quantile(confidence)
    score = confidence_score(selective)
    formula = as_objective(Task() if objective is None else objective)
    device = _home(model) if device is None else device
    modules = [part for part in (model, formula) if isinstance(part, torch.nn.Module)]
    where = {"step": step, "steps": steps, "epoch": epoch, "training": False}

    def measured(data: Iterable[Any], called: str, most: int | None) -> Evaluation:
        one = _Pass(formula, device, Classes(topk, score), called)
        with undisturbed(modules, data):
            try:
                for number, batch in enumerate(data):
                    if number == most:
                        break
                    if before_batch is not None:
                        before_batch()
                    one.add(model, read(batch).to(device), where)
            except InputError as error:
                if not all_ranks:
                    raise
                one.trouble = str(error)  # the others wait for this rank, and are told
            return one.result(confidence, all_ranks=all_ranks)

    some = None if train is None else measured(train, "train", train_batches)
    found = measured(loader, name, None)
    return found if some is None else replace(found, train=some)


class _Pass:
    """What one pass has seen so far."""

    def __init__(self, objective: Objective, device: torch.device, classes: Classes, name: str) -> None:
        self._objective = objective
        self._device = device
        self._name = name
        self._task = next((term for term in objective.terms.values() if isinstance(term, Task)), None)
        self._rows = Rows(device)
        self._classes = classes
        self._behind = Behind(self._classes.take)
        self._checks: list[Check] = []
        self._samples = 0
        self._batches = 0
        self._skipped: Counter[str] = Counter()
        self.trouble: str | None = None

    def add(self, model: Any, batch: Batch, where: dict[str, Any]) -> None:
        """Measure a batch; nothing is read from the device."""
        self._batches += 1
        samples = batch.samples
        if samples == 0:
            self._skipped[_NO_SAMPLES] += 1
            return
        self._samples += samples
        outcome = self._objective.measure(model, batch, **where)
        numbers = [outcome.loss, self._objective.count(batch)]
        numbers += [torch.nan if part.raw is None else part.raw for part in outcome.parts]
        task = self._task
        if task is not None and task.loss in {"cross-entropy", "focal"}:
            self._behind.push(*task.answers(outcome.outputs, batch))
        elif task is not None and task.loss == "language":
            scores, targets, counts = task.answers(outcome.outputs, batch)
            right = scores.argmax(1) == targets
            numbers += [(right & counts).sum(), counts.sum(), torch.isfinite(scores).all()]  # type: ignore[operator, union-attr]
        self._checks += outcome.checks
        self._rows.add(numbers)

    def seen(self) -> Seen:
        """Read everything from the device."""
        trouble = self.trouble
        try:
            self._behind.finish()
            verify(self._checks)
        except InputError as error:
            trouble = trouble or str(error)
        classes = self._classes
        return Seen(
            rows=self._rows.read(),
            samples=self._samples,
            batches=self._batches,
            skipped=self._skipped,
            meter=classes.meter,
            right=classes.right(),
            confidence=classes.confidence(),
            targets=classes.targets(),
            nonfinite_batches=classes.nonfinite_batches,
            nonfinite_samples=classes.nonfinite_samples,
            trouble=trouble,
        )

    def result(self, confidence: float, *, all_ranks: bool) -> Evaluation:
        """Say what was found.

        Raises:
            InputError: There was nothing to measure, or a label was out of range.
        """
        seen = self.seen()
        if all_ranks:
            seen = seen.with_other_ranks()
        elif seen.trouble is not None:
            raise InputError(seen.trouble)
        counted = [row for row in seen.rows if row[1] > 0]
        skipped = seen.skipped
        if len(counted) < len(seen.rows):
            skipped[_NOTHING_COUNTS] += len(seen.rows) - len(counted)
        if not counted:
            raise self._nothing(seen)
        counts = [row[1] for row in counted]
        loss = weighted_mean([row[0] for row in counted], counts, confidence)
        names = self._objective.names
        extra: dict[str, Any] = {"nonfinite_batches": sum(not math.isfinite(row[0]) for row in counted)}
        if seen.meter is not None:
            extra["nonfinite_batches"] = max(extra["nonfinite_batches"], seen.nonfinite_batches)
            extra["nonfinite_samples"] = seen.nonfinite_samples
            extra["_correct"] = np.packbits(seen.right).tobytes(), len(seen.right)
            if seen.meter.samples:
                extra["classification"] = seen.meter.compute(confidence)
                extra["accuracy"] = extra["classification"].accuracy
            extra["_targets"] = seen.targets
            curve = extra["risk_coverage"] = seen.curve()
            extra["selective"] = None if curve is None else curve.report(confidence=confidence)
        elif len(counted[0]) > 2 + len(names):
            hits, tokens = (int(sum(row[column] for row in counted)) for column in (-3, -2))
            extra["accuracy"] = wilson(hits, tokens, confidence)
            extra["perplexity"] = perplexity(loss)
            extra["nonfinite_batches"] = sum(not (math.isfinite(row[0]) and row[-1]) for row in counted)
        return Evaluation(
            name=self._name,
            samples=seen.samples,
            batches=seen.batches,
            count=sum(counts),
            loss=loss,
            terms={
                term: weighted_mean([row[2 + index] for row in counted], counts, confidence).value
                for index, term in enumerate(names)
            },
            confidence=confidence,
            skipped=dict(skipped),
            **extra,
        )

    def _nothing(self, seen: Seen) -> InputError:
        if seen.batches == 0:
            return InputError(
                f"`{self._name}` gave no batch, and a model cannot be measured on nothing: "
                "look whether its data set is empty, or whether an iterator was used up"
            )
        reasons = ", ".join(f"{number} because {reason}" for reason, number in seen.skipped.items())
        return InputError(f"`{self._name}` gave {seen.batches} batches without a sample that counts: {reasons}")


def _home(model: Any) -> torch.device:
    """Return where a model is; the CPU if it has neither parameters nor buffers."""
    if isinstance(model, torch.nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")
