"""Where a value that is not finite came from: the parameter whose gradient the backward pass reached first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from flyball.govern.agreement import own_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn


def first_not_finite(loss: object, model: nn.Module, owned: Iterable[nn.Parameter]) -> str | None:
    """Return the parameter whose gradient the backward pass reached first, of those with one that is not finite.

    The order is that of the graph of the loss. A parameter that is not in it, or a loss that is a plain number, is
    ordered by registration, the last first: the order of the backward pass in a model that runs top to bottom.

    Args:
        loss: What `backward` was called on, where it is at hand.
        model: Names the parameters.
        owned: Those that are trained.
    """
    trained = set(map(id, owned))
    named = [(name, one) for name, one in model.named_parameters() if id(one) in trained][::-1]
    reached = _reached(loss) if isinstance(loss, torch.Tensor) else {}
    # Later nodes of the forward have higher numbers, and come first in the backward.
    order = sorted(named, key=lambda pair: -reached.get(id(pair[1]), -1))
    for name, parameter in order:
        grad = parameter.grad
        if grad is None:
            continue
        values = grad.coalesce().values() if grad.is_sparse else own_part(grad)
        if not bool(torch.isfinite(values).all()):
            return name
    return None


def _reached(loss: torch.Tensor) -> Mapping[int, int]:
    """Return for each leaf of a graph, by its identity, the number of the last node that sends it a gradient."""
    found: dict[int, int] = {}
    waiting: list[Any] = [loss.grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            leaf = getattr(following, "variable", None)
            if leaf is None:
                waiting.append(following)
            else:
                # All of its gradients have arrived when the earliest node of the forward that uses it is done.
                number = node._sequence_nr()  # noqa: SLF001 -- the order in which autograd runs its nodes
                found[id(leaf)] = min(number, found.get(id(leaf), number))
    return found
