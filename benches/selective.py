"""A selective report with 1000 bootstrap resamples: risk, areas, risk at coverage, coverage at risk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benches.harness import Contest
from flyball.measure.selective import risk_coverage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PACKAGES = ("numpy",)
SAMPLES, DRAWS = 10_000, 1000
COVERAGES, RISKS = (0.7, 0.8, 0.9), (0.01, 0.05)

Numbers = tuple[float, ...]


def contests() -> Iterator[Contest[NDArray[np.float64]]]:
    """Yield the report, beside vectorised NumPy."""
    rng = np.random.default_rng(0)
    score = rng.random(SAMPLES)
    correct = rng.random(SAMPLES) < score

    def ours() -> NDArray[np.float64]:
        report = risk_coverage(score, correct).report(coverages=COVERAGES, risks=RISKS, draws=DRAWS, threads=1)
        rows = [report.risk, report.aurc, report.augrc, *report.risk_at.values(), *report.coverage_at.values()]
        return np.array([(row.value, row.low, row.high) for row in rows])

    def theirs() -> NDArray[np.float64]:
        order = np.argsort(-score)
        wrong = (~correct[order]).astype(np.float64)
        generator = np.random.default_rng(1)
        drawn = np.array([vectorised(generator.multinomial(SAMPLES, FLAT), wrong) for _ in range(DRAWS)])
        value = vectorised(np.ones(SAMPLES, dtype=np.int64), wrong)
        return np.stack([value, *np.quantile(drawn, [0.025, 0.975], axis=0)], axis=1)

    def same(mine: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        np.testing.assert_allclose(mine[:, 0], other[:, 0], atol=1e-12)
        # Intervals of a thousand other resamples: as wide, but for chance.
        np.testing.assert_allclose(mine[:, 1:], other[:, 1:], atol=0.02)

    yield Contest(
        work=f"selective report, {SAMPLES} samples, {DRAWS} resamples",
        answers={"flyball": ours, "vectorised NumPy": theirs},
        same=same,
    )


FLAT = np.full(SAMPLES, 1.0 / SAMPLES)


def vectorised(counts: NDArray[np.int64], wrong: NDArray[np.float64]) -> Numbers:
    """What a careful person writes in NumPy, for scores without ties."""
    errors = np.cumsum(np.repeat(wrong, counts))
    k = np.arange(1, len(errors) + 1)
    risk = errors / k
    at = [float(risk[int(np.ceil(share * len(k))) - 1]) for share in COVERAGES]
    ends = np.cumsum(counts)[counts > 0]
    under = [float(max(ends[risk[ends - 1] <= limit], default=0)) / len(k) for limit in RISKS]
    return (float(risk[-1]), float(risk.mean()), float(errors.mean() / len(k)), *at, *under)
