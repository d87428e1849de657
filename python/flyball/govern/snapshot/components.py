"""What a training run is made of, and how each part is read and put back.

A component gives its state as a tree of plain data and live tensors. To restore, it first says what would have to
happen (`Plan`), which changes nothing: which live tensors take their old bytes back in place, which ones have to be
made anew, and which differences of structure make it impossible.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from flyball.govern.snapshot.layout import local
from flyball.govern.snapshot.plain import Leaf, Tree, leaves, thaw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence

    from flyball.govern.snapshot.layout import View

    Give = Callable[[int], torch.Tensor]


@runtime_checkable
class Stateful(Protocol):
    """Anything that can say its state and take it back."""

    def state_dict(self) -> Tree:
        """Return the state."""

    def load_state_dict(self, state_dict: Tree, /) -> object:
        """Take a state back."""


class Turn(IntEnum):
    """When a component is restored: first what may fail and can be undone, last what others may disturb."""

    FOREIGN = 0
    OWN = 1
    RANDOM = 2


@dataclass
class Plan:
    """What restoring a component takes.

    Args:
        apply: Puts everything back that is not bytes of `targets`; gets the tensor of a number in `fresh`.
        targets: Live tensors that take the bytes of a captured one, by its number.
        fresh: Captured tensors that no longer exist and are made anew.
        problems: Differences of structure; with any, nothing is restored.
    """

    apply: Callable[[Give], None]
    targets: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    fresh: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Component(Protocol):
    """One named part of a training run."""

    turn: Turn

    def capture(self) -> Tree:
        """Return the state as a tree of plain data and live tensors."""

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:
        """Say what restoring a frozen tree takes; change nothing."""


class Module:
    """The parameters and buffers of a model, their `requires_grad`, and the mode of every submodule.

    Restoring writes into the tensors that are there, so optimizers, hooks and views stay valid, and clears gradients.
    """

    turn = Turn.OWN

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every buffer under every name it has, whether or not a state_dict would hold it."""
        return self.module.named_buffers(remove_duplicate=False)

    def capture(self) -> Tree:
        """Return every tensor under every name, and the flags."""
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        return {
            "parameters": parameters,
            "buffers": dict(self.buffers()),
            "requires_grad": {name: parameter.requires_grad for name, parameter in parameters.items()},
            "training": {name: module.training for name, module in self.module.named_modules()},
        }

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:
        """Say what restoring takes; change nothing."""
        live = self.capture()
        plan = Plan(lambda _: self._apply(saved, live["parameters"]))
        for kind in ("parameters", "buffers"):
            _compare_names(saved[kind], live[kind], kind, plan.problems)
            for name, leaf in saved[kind].items():
                tensor = live[kind].get(name)
                if tensor is not None:
                    view = views[leaf.index]
                    _compare_tensor(f"`{view.name}`", view, tensor, plan.problems)
                    plan.targets.append((leaf.index, tensor))
        _compare_names(saved["training"], live["training"], "modules", plan.problems)
        return plan

    def _apply(self, saved: Tree, parameters: Mapping[str, torch.Tensor]) -> None:
        for name, flag in saved["requires_grad"].items():
            parameters[name].grad = None
            parameters[name].requires_grad_(flag)
        modules = dict(self.module.named_modules())
        for name, training in saved["training"].items():
            # Not `.train()`: a model may override it, to keep a frozen BatchNorm in evaluation mode, for one.
            modules[name].training = training


class ModuleExtras:
    """What modules say with `get_extra_state`, beside their tensors."""

    turn = Turn.FOREIGN

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def _modules(self) -> dict[str, nn.Module]:
        return {name: module for name, module in self.module.named_modules() if has_extra_state(module)}

    def capture(self) -> Tree:
        """Return what each module says."""
        return {name: module.get_extra_state() for name, module in self._modules().items()}

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:  # noqa: ARG002
        """Say what restoring takes; change nothing."""
        modules = self._modules()

        def apply(give: Give) -> None:
            for name, state in saved.items():
                modules[name].set_extra_state(thaw(state, give))

        plan = Plan(apply, fresh=list(leaves(saved)))
        _compare_names(saved, modules, "modules with extra state", plan.problems)
        return plan


class Optimizer:
    """The state of an optimizer, its parameter groups with their rates, and its defaults.

    State that did not exist yet at the capture vanishes again. Tensors that are still there keep their identity.
    """

    turn = Turn.OWN

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def capture(self) -> Tree:
        """Return the state by the number of its parameter, and the groups without their parameters."""
        numbers = {parameter: number for number, parameter in enumerate(self._parameters())}
        groups = self.optimizer.param_groups
        state: dict[Any, Any] = self.optimizer.state
        return {
            # A state may also stand under a name, or under a tensor that left the groups: that one is nobody's.
            "state": {
                numbers.get(key, key): value for key, value in state.items() if key in numbers or isinstance(key, str)
            },
            "groups": [{key: value for key, value in group.items() if key != "params"} for group in groups],
            "shapes": [[tuple(parameter.shape) for parameter in group["params"]] for group in groups],
            "defaults": self.optimizer.defaults,
        }

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:
        """Say what restoring takes; change nothing."""
        plan = Plan(lambda give: self._apply(state, groups, defaults, parameters, give))
        live = self.capture()
        parameters = self._parameters()
        self._compare(saved["shapes"], live["shapes"], plan.problems)
        merge = _Merge(plan, views)
        state, groups, defaults = (merge.of(saved[part], live[part]) for part in ("state", "groups", "defaults"))
        return plan

    @staticmethod
    def _compare(saved: list[Any], live: list[Any], problems: list[str]) -> None:
        if len(saved) != len(live):
            problems.append(f"the optimizer has {len(live)} parameter groups and had {len(saved)}")
        for number, (before, now) in enumerate(zip(saved, live, strict=False)):
            if before != now:
                problems.append(f"group {number} of the optimizer has parameters of shapes {now} and had {before}")

    def _apply(
        self, state: Tree, groups: list[Any], defaults: Tree, parameters: list[torch.Tensor], give: Give
    ) -> None:
        kept = {parameters[key] if isinstance(key, int) else key: value for key, value in state.items()}
        for key in [key for key in self.optimizer.state if key not in kept]:
            del self.optimizer.state[key]
        for key, template in kept.items():
            value = thaw(template, give)
            live = self.optimizer.state.get(key)
            if isinstance(live, dict) and isinstance(value, dict):
                _refill(live, value)
            else:
                self.optimizer.state[key] = value
        for group, template in zip(self.optimizer.param_groups, groups, strict=True):
            _refill(group, {"params": group["params"], **thaw(template, give)})
        _refill(self.optimizer.defaults, thaw(defaults, give))
        for parameter in parameters:
            parameter.grad = None


class Foreign:
    """Anything with `state_dict` and `load_state_dict`: schedulers, loaders, the governor, a user's own."""

    turn = Turn.FOREIGN

    def __init__(self, thing: Stateful) -> None:
        self.thing = thing

    def capture(self) -> Tree:
        """Return its state_dict."""
        return self.thing.state_dict()

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:  # noqa: ARG002
        """Say what restoring takes; change nothing."""
        return Plan(lambda give: self.load(thaw(saved, give)), fresh=list(leaves(saved)))

    def load(self, state: Tree) -> None:
        """Hand the state over."""
        self.thing.load_state_dict(state)


class Scaler(Foreign):
    """A gradient scaler, which also forgets a step that it was in the middle of."""

    def load(self, state: Tree) -> None:
        """Hand the state over, and begin a step."""
        scaler: Any = self.thing
        if not state:
            return  # it is disabled, and has none
        scaler.load_state_dict(state)
        if getattr(scaler, "_scale", None) is not None:
            # Gradients that were unscaled for the abandoned step would be "already unscaled" in the next one.
            scaler.update(new_scale=float(state["scale"]))


class Counters:
    """A mapping of plain values, put back in place."""

    turn = Turn.OWN

    def __init__(self, values: MutableMapping[str, Any]) -> None:
        self.values = values

    def capture(self) -> Tree:
        """Return the values."""
        return dict(self.values)

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:
        """Say what restoring takes; change nothing."""
        plan = Plan(lambda give: _refill(self.values, thaw(template, give)))
        template = _Merge(plan, views).of(saved, dict(self.values))
        return plan


class Functions:
    """A state that two functions read and put back."""

    turn = Turn.FOREIGN

    def __init__(self, read: Callable[[], Any], put_back: Callable[[Any], object]) -> None:
        self.read = read
        self.put_back = put_back

    def capture(self) -> Tree:
        """Return what the first function reads."""
        return self.read()

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:  # noqa: ARG002
        """Say what restoring takes; change nothing."""
        return Plan(lambda give: (self.put_back(thaw(saved, give)), None)[1], fresh=list(leaves(saved)))


class GlobalRandom:
    """The generators that a process has unasked: Python's, NumPy's, torch's on the CPU and on each GPU in use."""

    turn = Turn.RANDOM

    def capture(self) -> Tree:
        """Return the state of each generator, as bytes where it is a tensor."""
        state: dict[str, Any] = {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 -- the global one is what others use
            "torch": _bytes_of(torch.get_rng_state()),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state["cuda"] = [_bytes_of(generator.get_state()) for generator in torch.cuda.default_generators]
        return state

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:  # noqa: ARG002
        """Say what restoring takes; change nothing."""
        plan = Plan(lambda _: self._apply(saved))
        devices = torch.cuda.device_count() if "cuda" in saved else 0
        if len(saved.get("cuda", ())) != devices:
            plan.problems.append(f"there are {devices} GPUs and there were {len(saved['cuda'])}")
        return plan

    @staticmethod
    def _apply(saved: Tree) -> None:
        random.setstate(saved["python"])
        np.random.set_state(saved["numpy"])  # noqa: NPY002
        torch.set_rng_state(_tensor_of(saved["torch"]))
        for device, state in enumerate(saved.get("cuda", ())):
            torch.cuda.set_rng_state(_tensor_of(state), device)


class Generators:
    """Generators that a run has by name."""

    turn = Turn.RANDOM

    def __init__(self, generators: Mapping[str, torch.Generator]) -> None:
        self.generators = generators

    def capture(self) -> Tree:
        """Return the state of each, as bytes."""
        return {name: _bytes_of(generator.get_state()) for name, generator in self.generators.items()}

    def plan(self, saved: Tree, views: Sequence[View]) -> Plan:  # noqa: ARG002
        """Say what restoring takes; change nothing."""

        def apply(_: Give) -> None:
            for name, state in saved.items():
                self.generators[name].set_state(_tensor_of(state))

        plan = Plan(apply)
        _compare_names(saved, self.generators, "generators", plan.problems)
        return plan


def has_extra_state(module: nn.Module) -> bool:
    """Say whether a module keeps state beside its tensors."""
    return type(module).get_extra_state is not nn.Module.get_extra_state


class _Merge:
    """Walks a frozen tree beside the live one, and notes which live tensors can take their old bytes back."""

    def __init__(self, plan: Plan, views: Sequence[View]) -> None:
        self.plan = plan
        self.views = views

    def of(self, saved: Tree, live: Tree) -> Tree:
        """Return the frozen tree, with live tensors in the place of the leaves that they can stand for."""
        if isinstance(saved, Leaf):
            view = self.views[saved.index]
            if isinstance(live, torch.Tensor) and not _differences(view, live):
                self.plan.targets.append((saved.index, live))
                return live
            if view.sharded:
                self.plan.problems.append(f"`{view.name}` was a shard of a distributed tensor, and is gone")
            self.plan.fresh.append(saved.index)
            return saved
        if isinstance(saved, dict):
            others = live if isinstance(live, dict) else {}
            merged = type(saved)() if type(saved) is dict else saved.copy()
            for key, value in saved.items():
                merged[key] = self.of(value, others.get(key))
            return merged
        if isinstance(saved, list | tuple):
            alike = isinstance(live, list | tuple) and len(live) == len(saved)
            items = [
                self.of(one, other) for one, other in zip(saved, live if alike else [None] * len(saved), strict=True)
            ]
            if isinstance(saved, list):
                return items
            return type(saved)(*items) if hasattr(saved, "_fields") else tuple(items)
        self.plan.fresh += list(leaves(saved))
        return saved


def _refill(live: MutableMapping[Any, Any], values: Mapping[Any, Any]) -> None:
    for key in [key for key in live if key not in values]:
        del live[key]
    live.update(values)


def _compare_names(saved: Mapping[str, Any], live: Mapping[str, Any], kind: str, problems: list[str]) -> None:
    for word, names in (("gone", saved.keys() - live.keys()), ("new", live.keys() - saved.keys())):
        if names:
            listed = ", ".join(f"`{name}`" for name in sorted(names)[:8])
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            problems.append(f"{kind} that are {word} since: {listed}{more}")


def _differences(view: View, live: torch.Tensor) -> str:
    shape = tuple(local(view.name, live).shape)
    if shape != view.shape:
        return f"shape {shape} and had {view.shape}"
    return "" if live.dtype == view.dtype else f"type {live.dtype} and had {view.dtype}"


def _compare_tensor(name: str, view: View, live: torch.Tensor, problems: list[str]) -> None:
    difference = _differences(view, live)
    if difference:
        problems.append(f"{name} has {difference}")


def _bytes_of(state: torch.Tensor) -> bytes:
    return state.numpy().tobytes()


def _tensor_of(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
