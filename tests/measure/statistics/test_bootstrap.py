"""Bootstrap intervals: the same as scipy's, reproducible, and as wide as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flyball.errors import InputError
from flyball.measure.statistics import bootstrap

DATA = np.random.default_rng(0).lognormal(0.0, 1.0, 60)


@pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
@pytest.mark.parametrize("statistic", ["mean", np.median, lambda x: x.std()])
def test_the_intervals_are_scipys(method: str, statistic: object) -> None:
    theirs = stats.bootstrap(
        (DATA,), np.mean if statistic == "mean" else statistic, n_resamples=20_000, method=method,
        rng=np.random.default_rng(1), vectorized=False,
    ).confidence_interval  # fmt: skip
    ours = bootstrap(DATA, statistic, draws=20_000, method=method).estimate  # type: ignore[arg-type]
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


@pytest.mark.parametrize(("method", "least"), [("percentile", 0.90), ("basic", 0.90), ("bca", 0.92)])
def test_intervals_of_a_mean_cover_as_often_as_they_say(method: str, least: float) -> None:
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(400):
        interval = bootstrap(rng.normal(1.0, 2.0, 80), draws=500, method=method, seed=seed).estimate  # type: ignore[arg-type]
        held += interval.low <= 1.0 <= interval.high
    assert least <= held / 400 <= 0.98


def test_the_same_seed_gives_the_same_resamples() -> None:
    assert (bootstrap(DATA, seed=3).draws == bootstrap(DATA, seed=3).draws).all()
    assert (bootstrap(DATA, seed=3).draws != bootstrap(DATA, seed=4).draws).any()
    assert (bootstrap(DATA, np.median, seed=3).draws == bootstrap(DATA, np.median, seed=3).draws).all()


def test_rows_stay_together() -> None:
    first = np.random.default_rng(2).normal(size=200)
    pairs = np.stack([first + 0.5, first], axis=1)
    difference = bootstrap(pairs, lambda rows: float((rows[:, 0] - rows[:, 1]).mean()), draws=200).estimate
    assert (difference.low, difference.high) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("statistic", ["mean", np.mean])
def test_every_stratum_keeps_its_share(statistic: object) -> None:
    labels = np.repeat([3, 1, 2], [10, 60, 30])
    drawn = bootstrap(labels, statistic, strata=np.random.default_rng(0).permutation(labels) * 0 + labels, draws=100)  # type: ignore[arg-type]
    assert np.ptp(drawn.draws) < 1e-12  # values are the labels, so every resample has the same mean
    assert np.ptp(bootstrap(labels, statistic, draws=100).draws) > 0.01  # type: ignore[arg-type]


@pytest.mark.parametrize("statistic", ["mean", np.mean])
def test_what_lies_between_strata_is_no_skew(statistic: object) -> None:
    """Few rows far away skew the rows, but no resample has more or fewer of them."""
    rng = np.random.default_rng(0)
    noise = np.concatenate([rng.normal(size=90), rng.normal(size=10)])
    noise[:90] -= noise[:90].mean()
    noise[:45] = -noise[45:90]  # symmetric in each stratum
    noise[90:95] = -noise[95:]
    rows, labels = noise + np.repeat([0.0, 100.0], [90, 10]), np.repeat([0, 1], [90, 10])
    order = rng.permutation(100)
    found = [
        bootstrap(rows[order], statistic, strata=labels[order], method=method, draws=4000).estimate  # type: ignore[arg-type]
        for method in ("bca", "percentile")
    ]
    width = found[1].high - found[1].low
    assert (found[0].low, found[0].high) == pytest.approx((found[1].low, found[1].high), abs=0.03 * width)
    # Without strata the skew of the rows moves the ends by far more.
    skewed = [bootstrap(rows, statistic, method=method, draws=4000).estimate for method in ("bca", "percentile")]  # type: ignore[arg-type]
    assert skewed[0].high - skewed[1].high > 0.05 * (skewed[1].high - skewed[1].low)


def test_resamples_without_a_number_are_counted() -> None:
    data = np.array([0.0] * 7 + [1.0])
    ratio = bootstrap(data, lambda x: 1.0 / x.sum() if x.sum() else math.nan, draws=300, method="percentile")
    assert 0 < ratio.degenerate < 300
    assert math.isfinite(ratio.estimate.low)


def test_constant_data_and_one_sample_have_an_interval_without_width() -> None:
    for data in ([2.0], [2.0] * 9):
        estimate = bootstrap(data).estimate
        assert (estimate.low, estimate.value, estimate.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": []}, "`data` has shape"),
        ({"data": [[1.0, 2.0]]}, "2 columns"),
        ({"data": [1.0], "method": "BCA"}, "`method` is 'BCA'"),
        ({"data": [1.0], "draws": 1}, "`draws` is 1"),
        ({"data": [1.0], "confidence": 1.0}, "`confidence` is 1.0"),
        ({"data": [1.0, 2.0], "strata": [1]}, "`strata` has shape"),
        ({"data": [2.0, math.nan]}, "`data` holds nan in row 1"),
        ({"data": [math.inf, -math.inf]}, "`data` holds inf in row 0"),
        ({"data": [1e308, 1e308]}, "`statistic` is inf"),
        ({"data": [1.0, 2.0], "statistic": "median"}, "`statistic` is 'median'"),
        ({"data": [1.0, 2.0], "draws": 2.5}, "`draws` holds 2.5"),
    ],
)
def test_what_cannot_be_resampled_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bootstrap(**arguments)  # type: ignore[arg-type]
