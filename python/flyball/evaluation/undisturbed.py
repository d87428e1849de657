"""To look at a run without changing it: modes, random state and the order of the data are put back, come what may."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from flyball.govern.chance import Chance
from flyball.govern.feed.draws import Owned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def undisturbed(modules: Iterable[torch.nn.Module], loader: Any) -> Iterator[None]:
    """Evaluate within: modules are in evaluation mode and no gradients are made; afterwards all is as it was.

    Put back are the mode of every submodule by itself, the generators of Python, NumPy and torch on every device, and
    those that the loader, its samplers and its dataset own, so that a later epoch comes in the order that it would have
    had. A loader that can be iterated once only is used up.
    """
    roots = list(modules)
    modes = [(module, module.training) for root in roots for module in root.modules()]
    chance = Chance.now(everything=True)
    owned = Owned(_roots(loader))
    moment = owned.now()
    try:
        for root in roots:
            root.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            # Not `.train()`: a model may override it, to keep a frozen BatchNorm in evaluation mode, for one.
            module.training = training
        owned.restore(moment)
        chance.put_back()


def _roots(loader: Any) -> dict[str, object]:
    if not isinstance(loader, DataLoader):
        return {"loader": loader}
    parts = {"loader": loader, "sampler": loader.sampler, "batch_sampler": loader.batch_sampler}
    return {**parts, "dataset": loader.dataset}
