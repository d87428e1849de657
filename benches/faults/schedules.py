"""Learning-rate schedules: a factor between 0 and 1 for the share of the run that is done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    Schedule: TypeAlias = Callable[[float], float]


def constant(_: float) -> float:
    return 1.0


def cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def warm_cosine(done: float, warm: float = 0.05) -> float:
    return (done + 1e-3) / (warm + 1e-3) if done < warm else cosine((done - warm) / (1.0 - warm))


def one_cycle(done: float, rise: float = 0.3) -> float:
    return 0.04 + 0.96 * cosine(1.0 - done / rise) if done < rise else cosine((done - rise) / (1.0 - rise))


def step_decay(done: float) -> float:
    return 0.1 ** sum(done >= edge for edge in (0.5, 0.75))


def linear_decay(done: float) -> float:
    return 1.0 - 0.99 * done


def warm_restarts(done: float, cycles: int = 4) -> float:
    return 0.01 + 0.99 * cosine(done * cycles % 1.0)
