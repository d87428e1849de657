"""Everything that a training run consists of, under names: what is captured, and how it is put back in place.

    state = TrainingState(model, optimizer, scheduler=scheduler, extra={"loader": loader})

A restore is all or nothing. It happens in this order, and only the last two steps change the run for good:

    plan      every component compares itself with what was captured; any difference of structure refuses
    prepare   tensors that no longer exist are made anew, beside the run
    foreign   schedulers, loaders and the like load their state; if one fails, all get back what they had
    own       tensors take their bytes back in place, then flags, rates, counters; gradients are cleared
    random    the generators, which anything before may have drawn from
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flyball.errors import InputError, SnapshotError
from flyball.govern.snapshot.components import (
    Component,
    Counters,
    Foreign,
    Functions,
    Generators,
    GlobalRandom,
    Module,
    ModuleExtras,
    Optimizer,
    Plan,
    Scaler,
    Stateful,
    has_extra_state,
)
from flyball.govern.snapshot.layout import Member, local
from flyball.govern.snapshot.plain import freeze

if TYPE_CHECKING:
    from collections.abc import Callable

    from flyball.govern.snapshot.layout import View


@dataclass(frozen=True)
class Captured:
    """The state at one moment: plain data by component, and the live tensors that its leaves number."""

    trees: dict[str, Any]
    members: list[Member]


class TrainingState:
    """The parts of a training run that a snapshot holds, each under its name.

    Args:
        model: The model, or several by name.
        optimizer: The optimizer, or several: a sequence, or by name.
        scheduler: A learning-rate scheduler, or several.
        scaler: The gradient scaler.
        average: Averaged weights: any module, such as torch's `AveragedModel`.
        generators: Generators of its own that the run draws from, by name.
        counters: A mapping of plain values that the loop counts in.
        extra: Anything else, by name: modules, optimizers, generators, or things with `state_dict` and
            `load_state_dict`, such as a stateful loader.

    Raises:
        InputError: Something is none of these.
        SnapshotError: A parameter or buffer cannot be captured, such as a sparse one; it is named.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, nn.Module],
        optimizer: object = (),
        *,
        scheduler: object = (),
        scaler: object = None,
        average: object = None,
        generators: Mapping[str, torch.Generator] | None = None,
        counters: MutableMapping[str, Any] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self._components: dict[str, Component] = {}
        self._unchecked: set[str] = set()
        for family, things in (("model", model), ("average", average), ("optimizer", optimizer)):
            for name, thing in _named(family, things):
                self.register(name, thing)
        for name, thing in _named("scheduler", scheduler):
            self.register(name, thing)
        if scaler is not None:
            self._add("scaler", Scaler(_stateful("scaler", scaler)))
        if counters is not None:
            self.register("counters", counters)
        for name, thing in (extra or {}).items():
            self.register(name, thing)
        if generators:
            self._add("generators", Generators(dict(generators)))
        self._add("random", GlobalRandom())
        self.capture()  # what cannot be captured is refused now, not after an hour of training

    @property
    def components(self) -> tuple[str, ...]:
        """The names of what is captured, in the order of registration."""
        return tuple(self._components)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Buffers that held an infinity when they were registered (an attention mask), and may keep it."""
        return tuple(sorted(self._unchecked))

    def register(self, name: str, thing: object) -> None:
        """Add a module, optimizer, generator, mapping of counters, or anything with a state_dict.

        Raises:
            InputError: The name is taken, or the thing is none of these.
        """
        if isinstance(thing, nn.Module):
            component = Module(thing)
            self._add(name, component)
            self._unchecked |= {
                f"{name}.{key}" for key, buffer in component.buffers() if _holds_infinity(f"{name}.{key}", buffer)
            }
            if any(map(has_extra_state, thing.modules())):
                self._add(f"{name}.extra_state", ModuleExtras(thing))
        elif isinstance(thing, torch.optim.Optimizer):
            self._add(name, Optimizer(thing))
        elif isinstance(thing, torch.Generator):
            self._add(name, Generators({"generator": thing}))
        elif isinstance(thing, MutableMapping):
            self._add(name, Counters(thing))
        else:
            self._add(name, Foreign(_stateful(name, thing)))

    def register_functions(self, name: str, read: Callable[[], Any], put_back: Callable[[Any], object]) -> None:
        """Add a state that one function reads, as plain data and tensors, and another puts back.

        Raises:
            InputError: The name is taken.
        """
        self._add(name, Functions(read, put_back))

    def _add(self, name: str, component: Component) -> None:
        if name in self._components:
            raise InputError(f"`{name}` is registered already: give this one another name")
        self._components[name] = component

    def capture(self) -> Captured:
        """Read every component; the tensors are the live ones, and nothing is copied but plain data.

        Raises:
            SnapshotError: Something cannot be captured; it is named.
        """
        members: list[Member] = []
        trees = {}
        for name, component in self._components.items():
            # `model.weight`, and not `model.parameters.weight`.
            dull = (f"{name}.parameters.", f"{name}.buffers.") if isinstance(component, Module) else ()

            def take(label: str, tensor: torch.Tensor, name: str = name, dull: tuple[str, ...] = dull) -> int:
                if label.startswith(dull):
                    label = f"{name}.{label.split('.', name.count('.') + 2)[-1]}"
                own = local(label, tensor)
                members.append(Member(label, own, label not in self._unchecked, own is not tensor))
                return len(members) - 1

            trees[name] = freeze(component.capture(), name, take)
        return Captured(trees, members)

    def keep_foreign(self) -> Undo:
        """Remember what restoring may have to undo."""
        return Undo(self._components)

    def plan(self, trees: Mapping[str, Any], views: Sequence[View]) -> dict[str, tuple[Component, Plan]]:
        """Say what restoring takes, component by component in the order it must happen; change nothing.

        Raises:
            SnapshotError: The run no longer has the structure that was captured; every difference is named.
        """
        problems = []
        for word, names in (
            ("lacks", self._components.keys() - trees.keys()),
            ("has", trees.keys() - self._components),
        ):
            if names:
                listed = ", ".join(f"`{name}`" for name in sorted(names))
                problems.append(f"the snapshot {word} {listed}, unlike the run")
        plans = {}
        for name, component in sorted(self._components.items(), key=lambda item: item[1].turn):
            if name in trees:
                plan = component.plan(trees[name], views)
                plans[name] = (component, plan)
                problems += [f"`{name}`: {problem}" for problem in plan.problems]
        if problems:
            raise SnapshotError(
                "the run has changed its structure since the snapshot: "
                + "; ".join(problems)
                + ". Give it the old structure first, or restore a snapshot taken after the change",
                reason="structure",
            )
        return plans


class Undo:
    """What every component but the tensors' had before a restore: enough to take back what may fail."""

    def __init__(self, components: Mapping[str, Component]) -> None:
        self._kept: dict[str, tuple[Component, Any, list[torch.Tensor]]] = {}
        for name, component in components.items():
            if component.turn is component.turn.OWN:
                continue
            tensors: list[torch.Tensor] = []

            def take(_: str, tensor: torch.Tensor, tensors: list[torch.Tensor] = tensors) -> int:
                tensors.append(tensor.detach().clone())
                return len(tensors) - 1

            self._kept[name] = (component, freeze(component.capture(), name, take), tensors)

    def put_back(self, names: Sequence[str]) -> None:
        """Give these components, and every generator, what they had."""
        for name, (component, tree, tensors) in self._kept.items():
            if name in names or component.turn is component.turn.RANDOM:
                component.plan(tree, ()).apply(tensors.__getitem__)


def _named(family: str, things: object) -> list[tuple[str, object]]:
    """Give each of one or several things its name: `optimizer`, or `optimizer.0`, or `optimizer.host`."""
    if things is None:
        return []
    if isinstance(things, Mapping) and not isinstance(things, nn.Module):
        return [(f"{family}.{name}", thing) for name, thing in things.items()]
    if isinstance(things, list | tuple):
        return [(f"{family}.{number}", thing) for number, thing in enumerate(things)] if len(things) != 1 else [
            (family, things[0])
        ]  # fmt: skip
    return [(family, things)]


def _stateful(name: str, thing: object) -> Stateful:
    if isinstance(thing, Stateful):
        return thing
    raise InputError(
        f"`{name}` is a `{type(thing).__qualname__}` without `state_dict` and `load_state_dict`: give it these two, "
        "or register two functions with `register_functions`"
    )


def _holds_infinity(name: str, buffer: torch.Tensor) -> bool:
    buffer = local(name, buffer)
    if not (buffer.dtype.is_floating_point or buffer.dtype.is_complex):
        return False
    if buffer.dtype.itemsize == 1:
        buffer = buffer.float()  # eight bits have few operations of their own
    return bool(torch.isinf(buffer).any()) and not bool(torch.isnan(buffer).any())
