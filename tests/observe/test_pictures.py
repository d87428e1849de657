"""Pictures of an evaluation: drawn from results, with their uncertainty, without a window."""

from __future__ import annotations

import io
from typing import Literal

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from flyball.errors import InputError
from flyball.measure import Classification, ClassificationResult, Ranking, RankingResult
from flyball.measure.selective import risk_coverage
from flyball.observe import pictures

THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def result(classes: int = 4, rows: int = 300) -> ClassificationResult:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 2.0 * np.eye(classes)[targets]
    meter = Classification(classes)
    meter.update(logits, targets)
    return meter.compute()


def drawn(figure: Figure) -> int:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return len(content.getvalue())


@pytest.mark.parametrize("theme", THEMES)
def test_reliability_shows_every_bin_that_has_samples(theme: Literal["light", "dark"]) -> None:
    found = result()
    before = mpl.rcParams["text.color"]
    figure = pictures.reliability(found, theme=theme)
    above, below = figure.axes
    points = above.containers[0].lines[0].get_xdata()  # type: ignore[attr-defined]
    assert len(points) == sum(one.count > 0 for one in found.reliability)
    assert sum(bar.get_height() for bar in below.patches) == found.samples  # type: ignore[attr-defined]
    assert drawn(figure) > 1000
    assert mpl.rcParams["text.color"] == before


@pytest.mark.parametrize("theme", THEMES)
def test_the_risk_coverage_curve_ends_at_the_risk_of_all(theme: Literal["light", "dark"]) -> None:
    rng = np.random.default_rng(1)
    score = rng.random(5000)
    curve = risk_coverage(score, rng.random(5000) < score)
    figure = pictures.risk_coverage(curve, theme=theme)
    line = next(one for one in figure.axes[0].lines if one.get_label() == "risk")
    assert line.get_ydata()[-1] == pytest.approx(curve.errors[-1] / 5000)  # type: ignore[index]
    assert drawn(figure) > 1000


def test_one_sample_and_no_error_can_be_drawn() -> None:
    assert drawn(pictures.risk_coverage(risk_coverage([0.5], [1]))) > 1000
    meter = Classification(2)
    meter.update(np.array([[5.0, 0.0]]), np.array([0]))
    assert drawn(pictures.reliability(meter.compute())) > 1000
    assert drawn(pictures.confusion(meter.compute())) > 1000


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("classes", [4, 40])
def test_the_worst_pairs_come_first(classes: int, theme: Literal["light", "dark"]) -> None:
    found = result(classes, rows=600)
    figure = pictures.confusion(found, worst=5, theme=theme)
    lengths = [bar.get_width() for bar in figure.axes[-1].patches]  # type: ignore[attr-defined]
    assert lengths == sorted(lengths, reverse=True)
    wrong = found.confusion.copy()
    np.fill_diagonal(wrong, 0)
    assert lengths[0] == wrong.max()
    assert len(figure.axes) == (2 if classes <= 25 else 1)
    assert drawn(figure) > 1000


def test_what_is_not_named_is_said() -> None:
    with pytest.raises(InputError, match="`names` has 1 names, but there are 4"):
        pictures.confusion(result(), names=["a"])
    with pytest.raises(InputError, match="`theme` is 'sepia'"):
        pictures.reliability(result(), theme="sepia")  # type: ignore[arg-type]


def ranked(classes: int, rows: int = 400, *, curves: bool = True) -> RankingResult:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, max(classes, 2), rows)
    scores = rng.normal(size=(rows, classes)) + np.linspace(0.5, 2.0, classes) * (
        labels[:, None] == (np.arange(classes) if classes > 1 else [1])
    )
    meter = Ranking(classes)
    meter.update(scores, labels)
    return meter.compute(curves=curves)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("classes", [1, 3, 12])
@pytest.mark.parametrize("rows", [400, 80_000])
def test_the_curves_end_where_everything_is_found(classes: int, rows: int, theme: Literal["light", "dark"]) -> None:
    found = ranked(classes, rows)
    for draw, last in ((pictures.roc, (1.0, 1.0)), (pictures.precision_recall, None)):
        figure = draw(found, theme=theme)
        lines = [line for line in figure.axes[0].lines if "chance" not in str(line.get_label())]
        assert len(lines) == min(classes, 10)
        for line in lines:
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            assert x[-1] == 1.0
            assert (np.diff(x) >= 0).all()
            assert last is None or y[-1] == 1.0
        assert drawn(figure) > 1000


@pytest.mark.parametrize("rows", [400, 80_000])
def test_the_area_under_the_points_is_the_area_that_is_told(rows: int) -> None:
    (one,) = ranked(1, rows).per_class
    assert one.auroc is not None
    assert len(one.curve) <= 1001
    alarms, hits = np.array(one.curve).T
    area = np.trapezoid(hits / one.positives, alarms / one.negatives)
    assert area == pytest.approx(one.auroc.value, abs=1e-12 if rows < 1000 else 1e-4)
    assert one.curve[0] == (0, 0)
    assert one.curve[-1] == (one.negatives, one.positives)


def test_a_result_without_curves_says_how_to_get_them() -> None:
    for draw in (pictures.roc, pictures.precision_recall):
        with pytest.raises(InputError, match="curves=True"):
            draw(ranked(1, curves=False))
        with pytest.raises(InputError, match="`names` has 1 names for 3 classes"):
            draw(ranked(3), names=["one"])
