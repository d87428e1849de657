"""Trees of plain data: copied so that nothing is shared, with tensors taken out and put back."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from functools import cache
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from flyball.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Values that cannot change, so that a copy may share them. Functions are kept by reference: a scheduler's own.
_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, range, slice, type, enum.Enum, np.generic, np.dtype,
    torch.dtype, torch.device, torch.layout, torch.memory_format, FunctionType, BuiltinFunctionType, MethodType,
)  # fmt: skip
# What a state_dict may be: plain data and tensors, nested in any way.
Tree: TypeAlias = Any

_EXACT_ATOMS = frozenset({type(None), bool, int, float, str, bytes})


@dataclass(frozen=True, slots=True)
class Leaf:
    """The place of a tensor in a tree: its number in the list of tensors that were taken out."""

    index: int


@cache
def leaf(index: int) -> Leaf:
    """Return the leaf of a number, the same one each time: thousands of new ones a capture keep a collector busy."""
    return Leaf(index)


def freeze(tree: object, name: str, take: Callable[[str, torch.Tensor], int]) -> Tree:  # noqa: C901, PLR0911 -- one branch for each kind of data
    """Copy a tree of plain data, with a `Leaf` in the place of every tensor.

    Args:
        tree: Numbers, strings, arrays, tensors, and dicts, lists, tuples and sets of them, as a state_dict holds.
        name: What the tree is called in messages; the names of its parts begin with it.
        take: Gets the name of each tensor and the tensor; returns its number.

    Raises:
        SnapshotError: Something in the tree is neither plain data nor a tensor; the message names it.
    """
    kind = type(tree)
    if kind in _EXACT_ATOMS:
        return tree
    if isinstance(tree, torch.Tensor):
        return leaf(take(name, tree))
    if isinstance(tree, dict):
        copy = _empty_like(tree)
        for key, value in tree.items():
            if type(key) not in _EXACT_ATOMS and not _is_key(key):
                raise _not_plain(f"a key of `{name}`", key)
            copy[key] = (
                value
                if type(value) in _EXACT_ATOMS
                else freeze(value, f"{name}.{key}" if isinstance(key, str) else f"{name}[{key!r}]", take)
            )
        return copy
    if isinstance(tree, tuple | list | deque):
        if kind in {tuple, list, torch.Size} and _EXACT_ATOMS.issuperset(map(type, tree)):
            # The state of Python's generator is a tuple of 625 numbers, which cannot change and is shared.
            return tree.copy() if isinstance(tree, list) else tree
        items = (freeze(value, f"{name}[{index}]", take) for index, value in enumerate(tree))
        return _like(tree, items)
    if isinstance(tree, set | frozenset):
        for value in tree:
            if not _is_key(value):
                raise _not_plain(f"an item of `{name}`", value)
        return tree.copy()
    if isinstance(tree, np.ndarray) and not tree.dtype.hasobject:
        return tree.copy()
    if isinstance(tree, _ATOMS):
        return tree
    raise _not_plain(f"`{name}`", tree)


def thaw(tree: Tree, give: Callable[[int], torch.Tensor]) -> Tree:  # noqa: PLR0911
    """Copy a frozen tree, with tensors in the place of its leaves: nothing of the copy is shared with the tree."""
    if type(tree) in _EXACT_ATOMS:
        return tree
    if isinstance(tree, Leaf):
        return give(tree.index)
    if isinstance(tree, dict):
        copy = _empty_like(tree)
        for key, value in tree.items():
            copy[key] = thaw(value, give)
        return copy
    if isinstance(tree, tuple | list | deque) and not isinstance(tree, torch.Size):
        return _like(tree, (thaw(value, give) for value in tree))
    if isinstance(tree, set):
        return type(tree)(tree)
    if isinstance(tree, np.ndarray):
        return tree.copy()
    return tree


def leaves(tree: Tree) -> Iterator[int]:
    """Yield the number of every leaf of a frozen tree."""
    if isinstance(tree, Leaf):
        yield tree.index
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, tuple | list | deque):
        for value in tree:
            yield from leaves(value)


def same(one: Tree, other: Tree) -> bool:
    """Say whether two trees hold the same values, bit for bit; NaN is the same as NaN."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and _same_tensor(one, other)
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list | deque):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def _same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    if (one.dtype, one.shape, one.device) != (other.dtype, other.shape, other.device):
        return False
    bits = (tensor.detach().resolve_conj().resolve_neg().contiguous() for tensor in (one, other))
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in bits))


def _is_key(key: object) -> bool:
    return isinstance(key, _ATOMS) or (isinstance(key, tuple | frozenset) and all(map(_is_key, key)))


def _empty_like(tree: dict[Any, Any]) -> dict[Any, Any]:
    if type(tree) is dict:
        return {}
    if isinstance(tree, defaultdict):
        return defaultdict(tree.default_factory)
    if isinstance(tree, OrderedDict):
        return OrderedDict()  # a model's state_dict is one, with metadata that its load_state_dict does without
    made: dict[Any, Any] = type(tree)()
    return made


def _like(tree: tuple[Any, ...] | list[Any] | deque[Any], items: Iterator[Any]) -> Tree:
    if isinstance(tree, deque):
        return deque(items, maxlen=tree.maxlen)
    if isinstance(tree, list):
        return list(items)
    return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)


def _not_plain(name: str, value: object) -> SnapshotError:
    return SnapshotError(
        f"{name} is a `{type(value).__module__}.{type(value).__qualname__}`, which a snapshot cannot copy: "
        "give plain data and tensors in the state_dict, or leave it out",
        reason="unsupported",
    )
