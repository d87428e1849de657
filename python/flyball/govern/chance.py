"""The global generators at one moment, to be put back: what makes a forward repeat itself."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True, eq=False)
class Chance:
    """The states of the generators of Python, NumPy and torch, and of every GPU that is in use."""

    python: tuple[Any, ...]
    numpy: Any
    cpu: torch.Tensor
    gpus: tuple[torch.Tensor, ...]

    @classmethod
    def now(cls) -> Chance:
        """Take the states as they are."""
        in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        gpus = tuple(torch.cuda.get_rng_state_all()) if in_use else ()
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), gpus)  # noqa: NPY002 -- the global one

    def put_back(self) -> None:
        """Give every generator the state it had."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002 -- as above
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(list(self.gpus))
