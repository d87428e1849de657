"""Everything that `flyball demo` can be told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from flyball.config import Config, Range

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Data(Config):
    """How the digits are cut."""

    validation: Annotated[float, Range(above=0.0, below=1.0)] = 0.2
    test: Annotated[float, Range(above=0.0, below=1.0)] = 0.2

    def conflicts(self) -> Iterator[str]:
        """Training needs some of the images, too."""
        if self.validation + self.test >= 1.0:
            yield (
                f"`validation` is {self.validation} and `test` is {self.test}, which leaves nothing to train on: "
                "lower one of them"
            )


@dataclass(frozen=True)
class Training(Config):
    """How long and how fast to train."""

    epochs: Annotated[int, Range(low=1)] = 15
    batch_size: Annotated[int, Range(low=1)] = 64
    learning_rate: Annotated[float, Range(above=0.0)] = 3e-3
    weight_decay: Annotated[float, Range(low=0.0)] = 1e-2


@dataclass(frozen=True)
class DemoConfig(Config):
    """Everything that `flyball demo` can be told."""

    name: str = "digits"
    seed: Annotated[int, Range(low=0, high=2**64 - 1)] = 0
    faults: bool = True
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"] = "auto"
    data: Data = Data()
    training: Training = Training()

    def conflicts(self) -> Iterator[str]:
        """The name becomes a folder, and must not lead to another one."""
        if not re.fullmatch(r"\w[\w.-]{0,99}", self.name):
            yield f"`name` is {self.name!r}: use up to 100 letters, digits, `-`, `_` and `.`, and begin with a letter"
