"""Models by name, as a configuration asks for them."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from flyball.errors import ConfigError
from flyball.vision.models.adaptive_cnn import AdaptiveCNN
from flyball.vision.models.convnext import ConvNeXtV2
from flyball.vision.models.resnet import ResNetCIFAR
from flyball.vision.models.vit import VisionTransformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Make = TypeVar("Make", bound=Callable[..., nn.Module])

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "adaptive_cnn": AdaptiveCNN,
    "convnext_v2": ConvNeXtV2,
    "resnet18_cifar": ResNetCIFAR,
    "vit": VisionTransformer,
}


def register(name: str) -> Callable[[Make], Make]:
    """Make a class, or a function that returns a model, available under a name.

        @register("mlp")
        def mlp(*, channels=1, classes=10): ...

    Raises:
        ConfigError: The name is taken.
    """

    def keep(make: Make) -> Make:
        if _MODELS.setdefault(name, make) is not make:
            raise ConfigError(f"the model {name!r} is registered already: use another name")
        return make

    return keep


def names() -> tuple[str, ...]:
    """Return the names of all models there are, in order."""
    return tuple(sorted(_MODELS))


def create(name: str, **settings: Any) -> nn.Module:
    """Make a model.

    Args:
        name: One of `names()`.
        settings: What its constructor takes.

    Raises:
        ConfigError: There is no such model, it takes no such setting, or a setting is out of its range.
    """
    make = _MODELS.get(name)
    if make is None:
        raise ConfigError(f"there is no model {name!r}{_nearest(name, names())}: use {', '.join(map(repr, names()))}")
    takes = inspect.signature(make).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        for setting in settings:
            if setting not in takes:
                raise ConfigError(
                    f"the model {name!r} has no setting `{setting}`{_nearest(setting, tuple(takes))}: "
                    f"it takes {', '.join(f'`{one}`' for one in takes)}"
                )
    return make(**settings)


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""
