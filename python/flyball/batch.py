"""What a loader hands out, read in one way: inputs, targets, and where there are any a weight and a mask.

    (inputs, targets)                                as most loaders give it
    (inputs, targets, weight, mask)                  either of the last two may be None or missing
    {"inputs": ..., "targets": ..., "weight": ...}   by name: a mapping, a dataclass, a named tuple, any object
    {"input_ids": ..., "labels": ...}                without `inputs`, all that is left goes to the model by name
    inputs                                           a bare tensor: there are no targets

Names for the targets are `targets`, `target`, `labels` and `label`. The weight counts samples, or tokens, more or
less; the mask says with True which of them count at all. Nothing in a batch is ignored: what cannot be placed is an
error, which `Batch(...)` in the loader's `collate_fn` settles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from flyball.errors import InputError
from flyball.nested import is_container, leaves, named, rebuilt

_TARGETS = ("targets", "target", "labels", "label")
_ORDER = ("inputs", "targets", "weight", "mask")
_REMEDY = "give the loader a `collate_fn` that returns `Batch(inputs, targets, weight=..., mask=...)`"


class Batch(NamedTuple):
    """One batch, read; its parts are the loader's own objects.

    Args:
        inputs: What the model is called with: a mapping by name, a tuple by position, anything else as it is.
        targets: What it should say; None where there is nothing of the kind.
        weight: How much each sample, or token, counts.
        mask: Which samples, or tokens, count at all.
    """

    inputs: Any
    targets: Any = None
    weight: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @property
    def samples(self) -> int:
        """How many samples there are: the length of the first tensor of the inputs, or else of the targets.

        Raises:
            InputError: There is no tensor with a length.
        """
        inputs = self.inputs
        if isinstance(inputs, torch.Tensor) and inputs.dim():
            return len(inputs)
        for leaf in leaves((inputs, self.targets)):
            if getattr(leaf, "shape", ()):
                return int(leaf.shape[0])
        raise InputError(f"`batch` holds no tensor with a first dimension, so its samples cannot be counted: {_REMEDY}")

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in at most so many parts, whose samples differ by one at most; nothing is copied.

        What is not as long as there are samples goes into each part whole.
        """
        samples = self.samples
        parts = min(parts, samples)
        if parts < 2:
            return [self]
        edges = [samples * part // parts for part in range(parts + 1)]
        return [Batch(*_cut(tuple(self), slice(low, high), samples)) for low, high in pairwise(edges)]

    def to(self, device: torch.device) -> Batch:
        """Return the batch with every tensor on the device; what is there already is not copied."""
        inputs, targets, weight, mask = self
        if (
            weight is mask is None
            and isinstance(inputs, torch.Tensor)
            and isinstance(targets, torch.Tensor)
            and inputs.device == device == targets.device
        ):
            return self
        return Batch(*_moved(tuple(self), device, {}))


def read(batch: Any) -> Batch:
    """Read a batch as the loader gave it.

    Raises:
        InputError: It is not one of the forms that this module's page lists; the message names what does not fit.
    """
    if type(batch) in {tuple, list}:
        return Batch(*batch) if len(batch) == 2 else _by_position(batch)
    if type(batch) is Batch:
        return batch
    if isinstance(batch, torch.Tensor):
        return Batch(batch)
    if isinstance(batch, Mapping):
        return _by_name(dict(batch), batch)
    if is_container(batch):
        return _by_name(named(batch), batch)
    return _by_name({name: getattr(batch, name) for name in (*_ORDER, *_TARGETS) if hasattr(batch, name)}, batch)


def _by_position(batch: tuple[Any, ...] | list[Any]) -> Batch:
    if not 1 <= len(batch) <= len(_ORDER):
        raise InputError(
            f"`batch` is a {type(batch).__name__} of {len(batch)} parts; by position it has "
            f"1 to {len(_ORDER)}: {', '.join(_ORDER)}; {_REMEDY}"
        )
    return _checked(Batch(*batch))


def _by_name(parts: dict[str, Any], batch: Any) -> Batch:
    called = [name for name in _TARGETS if name in parts]
    if len(called) > 1:
        raise InputError(
            f"`batch` has both `{called[0]}` and `{called[1]}`, and either could be the targets: {_REMEDY}"
        )
    targets = parts.pop(called[0]) if called else None
    weight, mask = parts.pop("weight", None), parts.pop("mask", None)
    if "inputs" in parts:
        inputs = parts.pop("inputs")
        if parts:
            raise InputError(
                f"`batch` has `{min(map(str, parts))}` beside `inputs`, which is neither targets, weight nor mask: "
                f"{_REMEDY}"
            )
    elif isinstance(batch, Mapping) or dataclasses.is_dataclass(batch):
        inputs = parts
    else:
        raise InputError(f"`batch` is a `{type(batch).__name__}` without `inputs`: {_REMEDY}")
    if isinstance(inputs, dict) and not inputs:
        raise InputError(f"`batch` is a {type(batch).__name__} that holds no inputs: {_REMEDY}")
    return _checked(Batch(inputs, targets, weight, mask))


def _checked(batch: Batch) -> Batch:
    """Refuse a weight or a mask that is something else, such as the index of the sample."""
    weight: object = batch.weight
    mask: object = batch.mask
    if weight is not None and not (isinstance(weight, torch.Tensor) and weight.is_floating_point()):
        raise InputError(f"`weight` of the batch is {_called(weight)}, and a weight is a float tensor: {_REMEDY}")
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.dtype is torch.bool):
        raise InputError(f"`mask` of the batch is {_called(mask)}, and a mask is a bool tensor: {_REMEDY}")
    return batch


def _called(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def _moved(value: Any, device: torch.device, seen: dict[int, torch.Tensor]) -> Any:
    """Move every tensor, each once however often it stands in the batch."""
    if isinstance(value, torch.Tensor):
        if value.device == device:
            return value
        if id(value) not in seen:
            # A copy that does not wait is safe from pinned memory only: other memory can be written before it is read.
            waits = value.device.type != "cpu" or not value.is_pinned()
            seen[id(value)] = value.to(device, non_blocking=not waits)
        return seen[id(value)]
    if callable(getattr(value, "to", None)):
        return value.to(device)  # a packed sequence, a graph, a batch of a tokenizer: they know themselves better
    return rebuilt(value, lambda part: _moved(part, device, seen)) if is_container(value) else value


def _cut(value: Any, part: slice, samples: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[part] if value.dim() and len(value) == samples else value
    if type(value) is list and len(value) == samples and not any(map(is_container, value)):
        return value[part]  # names, paths, or tensors of different sizes, one for each sample
    return rebuilt(value, lambda inner: _cut(inner, part, samples)) if is_container(value) else value
