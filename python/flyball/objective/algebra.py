"""Terms that add up: what one is, and how numbers, schedules and sums make an objective of them.

    objective = 0.5 * Task() + 0.5 * Distill(teacher, tau=3.0, weight=Cosine(0.0, 0.5))

    outcome = objective.measure(model, batch, step=17, steps=1000)
    outcome.loss.backward()

A term computes a value. How much it counts, from when on and how often is said around it, and depends on nothing but
the step: two runs that are at the same step do the same, whatever came before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flyball.batch import Batch, read
from flyball.errors import ConfigError, InputError
from flyball.objective.context import StepContext
from flyball.objective.outcome import Outcome, Part
from flyball.objective.schedule import Constant, Delay, Schedule, Warmup, as_schedule
from flyball.objective.weights import Dynamic, DynamicWeightAverage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Weight = float | Schedule | Dynamic | Callable[[int], float]
    Value = torch.Tensor | tuple[torch.Tensor, Mapping[str, Any]]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Term(nn.Module):
    """One term of an objective: implement `forward`, and say everything else where it is used.

        class Entropy(Term):
            def forward(self, model, batch, step):
                log_p = step.scores.log_softmax(1)
                return -(log_p.exp() * log_p).sum(1).mean()

        objective = Task() + 0.1 * Entropy(every=2, warmup=0.1)

    `step` is the `StepContext`: the forward of the batch that all terms share, results to share, where training
    stands. A term that has parameters makes them in its constructor, as any module does; they are the objective's.

    Args:
        weight: What the value is multiplied with: a number, a schedule, a function of the step, or a dynamic weight.
        warmup: The weight rises over the first so many steps, or this fraction of the training.
        delay: Before so many steps, or this fraction of the training, the weight is 0; then all else begins.
        every: The term is computed at every so many steps; always where it is only measured.
        phase: At the steps whose remainder by `every` is this.
        compensate: Multiply the weight with `every`, so that the mean gradient is as if it were computed at each step.
        name: What the journal calls it; the name of the class in lower case by default.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self,
        *,
        weight: Weight = 1.0,
        warmup: float = 0,
        delay: float = 0,
        every: int = 1,
        phase: int = 0,
        compensate: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__()
        called = type(self).__name__
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:  # type: ignore[redundant-expr]
            raise ConfigError(f"`every` of `{called}` is {every!r}: pass a whole number of steps, at least 1")
        if not isinstance(phase, int) or not 0 <= phase < every:  # type: ignore[redundant-expr]
            raise ConfigError(f"`phase` of `{called}` is {phase!r}: pass a whole number from 0 to {every - 1}")
        if name is not None and not re.fullmatch(r"[A-Za-z_][\w-]*", name):
            raise ConfigError(f"`name` of `{called}` is {name!r}: pass letters, digits, `_` and `-`")
        self.dynamic = weight if isinstance(weight, Dynamic) else None
        schedule = Constant(1.0) if isinstance(weight, Dynamic) else as_schedule(weight)
        if warmup:
            schedule = Warmup(warmup, schedule)
        if delay:
            schedule = Delay(delay, schedule)
        self.schedule = schedule
        self.every, self.phase, self.compensate = every, phase, compensate
        self.name = called.lower() if name is None else name
        said = {"weight": weight, "warmup": warmup, "delay": delay, "every": every, "phase": phase, "name": name}
        plain = {"weight": 1.0, "warmup": 0, "delay": 0, "every": 1, "phase": 0, "name": None}
        self._pace = [f"{key}={value!r}" for key, value in said.items() if value != plain[key]]
        self._pace += ["compensate=True"] if compensate else []

    def forward(self, model: Any, batch: Batch, step: StepContext) -> Value:
        """Return the value, a tensor without dimensions, and if there is more to tell a mapping of measurements.

        Args:
            model: What is trained.
            batch: The batch, read.
            step: What the terms share.
        """
        raise NotImplementedError(f"`{type(self).__name__}` is a term without a `forward`: write one")

    def prepare(self, step: StepContext) -> None:
        """Say what the forward of this step has to bring, with `step.need`; before any term that counts is computed."""

    def count(self, batch: Batch) -> float | torch.Tensor:
        """Return over how many samples, or tokens, the value is a mean; what a mean over batches is weighted by."""
        return batch.samples

    def weight_at(self, step: int, steps: int | None = None, *, training: bool = True) -> float:
        """Return what the value is multiplied with at a step; 0.0 means that it is not computed."""
        if self.every > 1 and training:
            if step % self.every != self.phase:
                return 0.0
            return self.schedule.at(step, steps) * (self.every if self.compensate else 1)
        return self.schedule.at(step, steps)

    def __add__(self, other: Term | Objective | float) -> Objective:
        return Objective.of(self) + other

    def __radd__(self, other: float) -> Objective:
        return Objective.of(self).__radd__(other)

    def __mul__(self, weight: Weight) -> Objective:
        return Objective.of(self) * weight

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> Objective:
        return Objective.of(self) / number

    def __repr__(self) -> str:
        own = self.extra_repr()
        return f"{type(self).__name__}({', '.join([*([own] if own else []), *self._pace])})"


@dataclass(slots=True)
class _Weighted:
    """A term, and what stands before it in the formula."""

    term: Term
    factor: float = 1.0
    schedules: tuple[Schedule, ...] = ()
    dynamic: Dynamic | None = None
    name: str = ""
    constant: float | None = None

    def times(self, weight: Weight) -> _Weighted:
        if isinstance(weight, Dynamic):
            if self.dynamic is not None:
                raise ConfigError(f"`{self!r}` has the dynamic weight `{self.dynamic!r}` already: give it one of them")
            return _Weighted(self.term, self.factor, self.schedules, weight)
        if isinstance(weight, int | float) and not isinstance(weight, bool):
            return _Weighted(self.term, self.factor * weight, self.schedules, self.dynamic)
        return _Weighted(self.term, self.factor, (as_schedule(weight), *self.schedules), self.dynamic)

    def at(self, step: StepContext) -> float:
        """Return what the value is multiplied with, besides a dynamic weight."""
        weight = self.factor and self.factor * self.term.weight_at(step.step, step.steps, training=step.training)
        for schedule in self.schedules:
            if weight == 0.0:
                break
            weight *= schedule.at(step.step, step.steps)
        return weight

    def value(self, model: Any, batch: Batch, step: StepContext) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Return the term's value, which is one number, and what else it measured."""
        value = self.term.forward(model, batch, step)
        raw, measured = value if isinstance(value, tuple) else (value, _NOTHING)
        if not isinstance(raw, torch.Tensor) or raw.dim():  # type: ignore[redundant-expr]
            raise _no_number(self, raw)
        return raw, measured

    def __repr__(self) -> str:
        before: list[object] = [self.factor] if self.factor != 1.0 else []
        before += self.schedules
        term = repr(self.term)
        if self.dynamic is not None and self.dynamic is not self.term.dynamic:
            term = f"({self.dynamic!r} * {term})" if before else f"{self.dynamic!r} * {term}"
        return " * ".join([*map(repr, before), term])


class Objective(nn.Module):
    """A sum of weighted terms: what training makes small.

    Made by writing the formula. It is a module: its parameters, those of its terms and of dynamic weights, are for the
    optimizer, and its `state_dict` belongs into a checkpoint.

    Args:
        weighted: The terms and what stands before each.
    """

    def __init__(self, weighted: Iterable[_Weighted]) -> None:
        super().__init__()
        entries = tuple(weighted)
        if not entries:
            raise ConfigError("an objective has no terms: there is nothing to train for")
        names: set[str] = set()
        for entry in entries:
            if isinstance(entry.dynamic, DynamicWeightAverage):
                entry.dynamic.leave()
        for entry in entries:
            term = entry.term
            entry.name = _unused(term.name, names)
            names.add(entry.name)
            alone = term.every == 1 and not entry.schedules and isinstance(term.schedule, Constant)
            entry.constant = entry.factor * term.schedule.at(0) if alone else None
            if entry.dynamic is not None:
                entry.dynamic.join(entry.name)
        self._entries = entries
        self._preparing = tuple(entry for entry in entries if type(entry.term).prepare is not Term.prepare)
        # Most objectives are one term as it is, and then nothing has to be weighed.
        plain = len(entries) == 1 and entries[0].constant == 1.0 and entries[0].dynamic is None
        self._alone = entries[0] if plain and not self._preparing else None
        self.terms = nn.ModuleDict({entry.name: entry.term for entry in entries})
        self.weights = nn.ModuleDict(
            {
                entry.name: entry.dynamic
                for entry in entries
                if entry.dynamic is not None and entry.dynamic is not entry.term.dynamic
            }
        )

    @classmethod
    def of(cls, thing: Any) -> Objective:
        """Return a term as an objective, and an objective as it is.

        Raises:
            ConfigError: It is neither.
        """
        if isinstance(thing, Objective):
            return thing
        if isinstance(thing, Term):
            return cls([_Weighted(thing, dynamic=thing.dynamic)])
        raise ConfigError(
            f"`objective` is a {type(thing).__name__}: pass a sum of terms, such as `Task() + 0.1 * Yours()`, "
            "or a loss function as `Task(function)`"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What the terms are called, in the order of the formula."""
        return tuple(entry.name for entry in self._entries)

    def measure(
        self,
        model: Any,
        batch: Any,
        *,
        step: int = 0,
        steps: int | None = None,
        epoch: int = 0,
        training: bool = True,
    ) -> Outcome:
        """Compute every term that counts at this step, and the loss that they add up to.

        Args:
            model: What is trained.
            batch: The batch, read or as the loader gave it.
            step: How many updates came before; the batches of one update have the same.
            steps: How many there will be in all, if that is known.
            epoch: How many epochs came before.
            training: Whether this is a step of training; else every term is computed, whatever its `every`.

        Raises:
            InputError: No term counts at this step, or one returned no number.
        """
        if type(batch) is not Batch:
            batch = read(batch)
        context = StepContext(model, batch, step=step, steps=steps, epoch=epoch, training=training)
        if self._alone is not None:
            raw, measured = self._alone.value(model, batch, context)
            part = Part(self._alone.name, raw, 1.0, raw, measured)
            return Outcome(raw, (part,), context.forwarded(), context.checks)
        for entry in self._preparing:
            if entry.at(context) != 0.0:
                entry.term.prepare(context)
        loss: torch.Tensor | None = None
        parts = []
        for entry in self._entries:
            weight: float | torch.Tensor = entry.at(context) if entry.constant is None else entry.constant
            if weight == 0.0:
                parts.append(Part(entry.name, None, 0.0, None, _NOTHING))
                continue
            raw, measured = entry.value(model, batch, context)
            weighted = raw
            if entry.dynamic is not None:
                weighted, found = entry.dynamic.weigh(entry.name, raw, context)
                weighted, weight = weighted if weight == 1.0 else weighted * weight, found * weight
            elif weight != 1.0:
                weighted = raw * weight
            loss = weighted if loss is None else loss + weighted
            parts.append(Part(entry.name, raw, weight, weighted, measured))
        if loss is None:
            raise InputError(
                f"every term of `{self!r}` has weight 0 at step {step}, so the step would train nothing: "
                "give one of them a weight there"
            )
        return Outcome(loss, tuple(parts), context.forwarded(), context.checks)

    forward = measure

    def count(self, batch: Batch) -> float | torch.Tensor:
        """Return over how many samples, or tokens, the first term is a mean: the weight of a batch among others."""
        return self._entries[0].term.count(batch)

    def bound_to(self, model: nn.Module) -> Bound:
        """Return one module that holds the model and the objective, for DDP: gradients of both are averaged."""
        return Bound(model, self)

    def __add__(self, other: Term | Objective | float) -> Objective:
        if _is_number(other) and other == 0:
            return self  # `sum` begins with 0
        if not isinstance(other, Term | Objective):
            return NotImplemented
        return Objective([*self._copies(), *Objective.of(other)._copies()])

    def __radd__(self, other: float) -> Objective:
        return self if _is_number(other) and other == 0 else NotImplemented

    def __mul__(self, weight: Weight) -> Objective:
        if isinstance(weight, Term | Objective | bool) or not (
            _is_number(weight) or isinstance(weight, Schedule | Dynamic) or callable(weight)
        ):
            return NotImplemented
        return Objective([entry.times(weight) for entry in self._entries])

    __rmul__ = __mul__

    def __truediv__(self, number: float) -> Objective:
        return self * (1.0 / number) if _is_number(number) else NotImplemented

    def _copies(self) -> list[_Weighted]:
        return [_Weighted(e.term, e.factor, e.schedules, e.dynamic) for e in self._entries]

    def __repr__(self) -> str:
        return " + ".join(map(repr, self._entries))


class Bound(nn.Module):
    """A model and its objective as one module, whose forward is the step's: what DDP wants to wrap.

    Args:
        model: What is trained.
        objective: What for.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Any, **where: Any) -> Outcome:
        """Measure the objective; the arguments are those of `Objective.measure` after the model."""
        return self.objective.measure(self.model, batch, **where)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unused(name: str, names: set[str]) -> str:
    number = 2
    found = name
    while found in names:
        found = f"{name}_{number}"
        number += 1
    return found


def _no_number(entry: _Weighted, raw: object) -> InputError:
    said = f"a tensor of shape {tuple(raw.shape)}" if isinstance(raw, torch.Tensor) else f"a {type(raw).__name__}"
    return InputError(
        f"`{entry.term!r}` returned {said}, and a term returns one number, with its measurements if there are any: "
        "take the mean, as in `loss.mean()`"
    )
