"""The random state at one moment, to be put back: what makes a forward repeat itself."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch


class Chance(NamedTuple):
    """The states of torch's generators, on the CPU and on every GPU that is in use.

    Those of Python and NumPy are taken only where they are asked for: they are large, and data are drawn from them
    rather than forwards. A named tuple, because one is made every step.
    """

    cpu: torch.Tensor
    gpus: tuple[torch.Tensor, ...]
    others: tuple[Any, Any] | None

    @classmethod
    def now(cls, *, everything: bool = False) -> Chance:
        """Take the states as they are."""
        in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        gpus = tuple(torch.cuda.get_rng_state_all()) if in_use else ()
        others = (random.getstate(), np.random.get_state()) if everything else None  # noqa: NPY002 -- the global one
        return cls(torch.default_generator.get_state(), gpus, others)

    def same_others(self) -> bool:
        """Say whether nothing was drawn from Python's and NumPy's generators since, if their states were taken."""
        if self.others is None:
            return True
        python, (_, keys, *rest) = self.others
        _, now, *after = np.random.get_state()  # noqa: NPY002 -- as above
        return bool(python == random.getstate() and rest == after and np.array_equal(keys, now))

    def put_back(self) -> None:
        """Give every generator the state it had."""
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(list(self.gpus))
        if self.others is not None:
            random.setstate(self.others[0])
            np.random.set_state(self.others[1])  # noqa: NPY002 -- as above
