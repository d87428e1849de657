"""How a model is called, and which part of what it says is the scores: one rule for training and evaluation.

A mapping of inputs is passed by name, a tuple by position, anything else as the one argument. The scores are the tensor
that comes back; of a mapping or an object, what is called `logits` or `out`; of a tuple or a list, the first part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from flyball.errors import InputError


def forward(model: Any, inputs: Any) -> Any:
    """Call the model with the inputs of a batch."""
    if isinstance(inputs, torch.Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(inputs)


def intermediates(model: Any, inputs: Any, layers: Iterable[int]) -> Any:
    """Call the model for its output and for what stands behind some layers, in one forward.

    The model has a method `intermediates(inputs, layers)`, whose result has `output` and `layers`, as those of
    `flyball.vision.models` have.

    Raises:
        InputError: The model has no such method.
    """
    look = getattr(model, "intermediates", None)
    if look is None:
        raise InputError(
            f"the model is a {type(model).__name__}, which has no method `intermediates(inputs, layers)` to tell what "
            "stands behind its layers: use a model of `flyball.vision.models`, or give yours one"
        )
    return look(inputs, layers)


def scores(outputs: Any) -> torch.Tensor:
    """Return the tensor among the outputs that the targets are compared with.

    Raises:
        InputError: There is none where the rule looks for it; the message says what there is.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    found = None
    if isinstance(outputs, Mapping):
        found = next((outputs[name] for name in ("logits", "out") if name in outputs), None)
        said = f"a {type(outputs).__name__} of {', '.join(f'`{name}`' for name in outputs) or 'nothing'}"
    elif isinstance(outputs, tuple | list) and not hasattr(outputs, "logits"):
        found = outputs[0] if outputs else None
        said = f"a {type(outputs).__name__} of {', '.join(type(part).__name__ for part in outputs) or 'nothing'}"
    else:
        found = getattr(outputs, "logits", getattr(outputs, "out", None))
        said = f"a {type(outputs).__name__}"
    if not isinstance(found, torch.Tensor):
        raise InputError(
            f"the model returns {said}, and the scores are looked for under `logits`, under `out` or first in a tuple: "
            "say where they are, as in `Task(output=lambda outputs: outputs['heads'][0])`"
        )
    return found
