"""The governor in a loop of Lightning Fabric, which stays yours.

    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(loader)
    governor = govern(fabric, model, optimizer, max_norm=1.0)
    for inputs, targets in governor.feed(loader):
        loss = criterion(model(inputs), targets)
        fabric.backward(loss)
        governor.step(loss)                     # in the place of optimizer.step() and zero_grad()

Everything works that works elsewhere. What Fabric makes impossible: precision "16-mixed", whose scaler is hidden in a
plugin; use "bf16-mixed".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.errors import InputError
from flyball.govern.governor import Governor

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def govern(fabric: Fabric, model: Any, optimizer: Any, **settings: Any) -> Governor:
    """Return the governor of what `fabric.setup` returned.

    Args:
        fabric: What set them up.
        model: The model as set up.
        optimizer: The optimizer as set up.
        settings: What else `flyball.Governor` takes; a `scheduler` is stepped after every update.

    Raises:
        InputError: The precision scales gradients.
    """
    precision = getattr(getattr(fabric, "strategy", None), "precision", None)
    if getattr(precision, "scaler", None) is not None:
        raise InputError("the precision of `fabric` scales gradients out of sight: use 'bf16-mixed' or '32-true'")
    inner = getattr(model, "_forward_module", model)  # DDP, where there are ranks
    return Governor(inner, getattr(optimizer, "optimizer", optimizer), **settings)
