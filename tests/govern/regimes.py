"""Streams of observations, from quiet to hostile, for comparing two detectors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

POLICIES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"window": 64, "budget": 10.0, "sustained": 3, "refractory": 4},
    {"window": 100, "budget": 7.0, "heat": 0.5, "update_ratio_anomaly": 0.1, "dead_steps": 3},
    {"window": 256, "heat": 1.0, "refractory": 0, "amp_skips": 2, "amp_floor": 0.25},
)


@dataclass(frozen=True)
class Step:
    """One observation, or something done to the detector instead."""

    loss: float = 0.0
    norm: float | None = None
    more: dict[str, Any] | None = None
    command: str = ""
    steps: int = 0


Noise = Callable[[random.Random], float]

NOISES: Final[dict[str, Noise]] = {
    "gaussian": lambda r: max(2.0 + 0.3 * r.gauss(0, 1), 0.0),
    "narrow": lambda r: 2.3 * math.exp(0.1 * r.gauss(0, 1)),
    "lognormal": lambda r: r.lognormvariate(0, 1),
    "heavy": lambda r: r.paretovariate(1.5),
    "tiny": lambda r: 1e-300 * r.random(),
    "huge": lambda r: 1e308 * r.random(),
    "zeros": lambda r: 0.0 if r.random() < 0.7 else r.random(),
    "all zeros": lambda _: 0.0,
    "constant": lambda _: 0.7,
    "coarse": lambda r: r.randrange(4) / 4,
    "signed": lambda r: r.gauss(0, 1),
    "signed shifted": lambda r: r.gauss(-50, 3),
    "signed constant": lambda _: -1.0,
    "signed huge": lambda r: r.uniform(-1e308, 1e308),
    "rarely negative": lambda r: r.gauss(3, 1) if r.random() < 0.99 else -r.random(),
}


def stream(rng: random.Random, count: int) -> Iterator[Step]:
    """About `count` steps: a kind of noise for a while, with faults and commands, then another."""
    made = 0
    while made < count:
        noise = NOISES[rng.choice(list(NOISES))]
        norm_noise = NOISES[rng.choice(["narrow", "lognormal", "heavy", "zeros", "constant", "huge"])]
        with_norm = rng.random() < 0.8
        extras = rng.random() < 0.2
        drift = rng.choice([1.0, 1.0, 1.0, 0.999, 1.002, 1.01, 1.05, 0.98])
        length = rng.choice([30, 200, 1000])
        faults = rng.choice([0.0, 0.002, 0.02, 0.2])
        level = rng.choice([1.0, 1.0, 1e-6, 1e4])
        burst = 0
        if rng.random() < 0.5:
            yield Step(command="rebaseline")
        for number in range(length):
            made += 1
            if number == length // 2 and drift < 1.0:
                drift = 1.005
            level = min(max(level * drift, 1e-100), 1e100)
            factor = 1.0
            if rng.random() < faults:
                burst = rng.choice([1, 1, 3, 20, 40])
                if rng.random() < 0.3:
                    level *= rng.choice([10.0, 0.01])
            if burst:
                burst -= 1
                factor = rng.choice([0.0, 3.0, 30.0, 1e6, 1.0])
            loss = level * factor * noise(rng)
            norm = factor * norm_noise(rng) if with_norm and rng.random() < 0.98 else None
            if rng.random() < faults / 4:
                loss = rng.choice([math.nan, math.inf, -math.inf, -loss, loss])
                norm = rng.choice([math.nan, math.inf, norm, None])
            yield Step(loss, norm, more(rng) if extras else None)
            if rng.random() < 0.003:
                yield command(rng)


def more(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rng.random() < 0.5:
        ratios = rng.choice([[0.0, 0.0, 0.0, 1e-3], [1e-3, 0.03, 0.5, math.nan, math.inf]])
        found["update_ratio"] = [0.0, *(rng.choice(ratios) for _ in range(rng.choice([0] + 50 * [1])))]
    if rng.random() < 0.03:
        names = ("gradients", "parameters", "buffers", "optimizer")
        found["nonfinite"] = tuple(rng.sample(names, rng.choice([1, 1, 2])))
    if rng.random() < 0.5:
        if rng.random() < 0.2:
            found["nonfinite"] = ("gradients",)
        found["amp_scale"] = rng.choice([*[65536.0] * 40, 0.1, 0.0, math.nan, math.inf])
    return found


def command(rng: random.Random) -> Step:
    name = rng.choice(["expect_shift", "rebaseline", "rolled_back", "rolled_back", "save", "go back"])
    return Step(command=name, steps=rng.choice([1, 2, 16, 20, 64]))
