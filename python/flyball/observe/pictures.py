"""Pictures of an evaluation: functions over results that return a figure and show nothing.

Every one of them shows the uncertainty that the numbers carry, and reads in black and white.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from flyball.errors import InputError, MissingExtraError
from flyball.measure.estimate import wilson

try:
    from matplotlib import rc_context
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingExtraError("matplotlib", extra="plots", purpose="drawing an evaluation") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from flyball.measure import ClassificationResult, RankedClass, RankingResult
    from flyball.measure.selective import RiskCoverage

Theme: TypeAlias = Literal["light", "dark"]

# Okabe and Ito's colours: told apart by the colour-blind, and by their lightness in black and white.
_BLUE, _ORANGE, _SKY = "#0072B2", "#D55E00", "#56B4E9"
_INK = {"light": "#333333", "dark": "#dddddd"}
_PAPER = {"light": "white", "dark": "#16191d"}
_MOST_POINTS = 2000
_MOST_CELLS = 25
_MOST_CURVES = 10


def reliability(result: ClassificationResult, *, theme: Theme = "light") -> Figure:
    """Draw how often a classifier is right against how sure it says it is, with an interval and a count for each bin.

    On the dashed line it keeps its word; below it is too sure. What lies within a bar's whisker may be chance.
    """
    bins = [one for one in result.reliability if one.count]
    with _style(theme):
        figure = Figure(figsize=(5, 5.5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=_INK[theme], linestyle="--", linewidth=1, label="keeps its word")
        confidence = [float(one.confidence or 0.0) for one in bins]
        rates = [one.accuracy for one in bins if one.accuracy is not None]
        values = np.array([rate.value for rate in rates])
        ends = np.array([[rate.value - rate.low, rate.high - rate.value] for rate in rates]).reshape(-1, 2).T
        above.errorbar(
            confidence, values, yerr=np.maximum(ends, 0.0), color=_line(theme), marker="o", markersize=5, linewidth=1.5,
            capsize=3, label=f"right, with {result.confidence:.0%} intervals",
        )  # fmt: skip
        above.set_ylim(-0.02, 1.02)
        above.set_xlim(-0.02, 1.02)
        above.set_ylabel("share that is right")
        above.set_title(f"expected calibration error {result.ece}", fontsize="medium")
        figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize="small")
        width = 1.0 / len(result.reliability)
        centers = [(place + 0.5) * width for place in range(len(result.reliability))]
        below.bar(centers, [one.count for one in result.reliability], width=0.9 * width, color=_line(theme))
        below.set_ylabel("samples")
        below.set_xlabel("confidence")
        _bare(above, below)
    return figure


def risk_coverage(curve: RiskCoverage, *, confidence: float = 0.95, theme: Theme = "light") -> Figure:
    """Draw the risk of the answers against the share of samples that are answered, most confident first.

    The band is Wilson's interval at each coverage by itself. The dotted line is a perfect order of the same answers;
    the dashed one is a confidence that says nothing.
    """
    keep = np.unique(np.linspace(0, len(curve.answered) - 1, _MOST_POINTS).astype(int))
    intervals = [wilson(int(curve.errors[i]), int(curve.answered[i]), confidence) for i in keep]
    total, errors = curve.samples, int(curve.errors[-1])
    with _style(theme):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        coverage = curve.coverage[keep]
        axes.fill_between(
            coverage, [one.low for one in intervals], [one.high for one in intervals], color=_SKY, alpha=0.35,
            linewidth=0, label=f"{confidence:.0%} interval",
        )  # fmt: skip
        axes.plot(coverage, curve.risk[keep], color=_line(theme), linewidth=1.8, label="risk")
        share = np.linspace(1.0 / total, 1.0, 400)
        perfect = np.maximum(0.0, share * total - (total - errors)) / (share * total)
        axes.plot(share, perfect, color=_INK[theme], linestyle=":", linewidth=1.2, label="perfect order")
        axes.axhline(errors / total, color=_INK[theme], linestyle="--", linewidth=1, label="no information")
        axes.set_xlim(0.0, 1.0)
        top = max(errors / total, *(float(curve.risk[i]) for i in keep if curve.answered[i] >= 0.02 * total), 0.01)
        axes.set_ylim(0.0, min(1.0, 1.3 * top))
        axes.set_xlabel("coverage: share of samples that are answered")
        axes.set_ylabel("risk: share of answers that are wrong")
        axes.set_title(f"AURC {curve.aurc:.4f}, of which {curve.e_aurc:.4f} is the order's fault", fontsize="medium")
        figure.legend(frameon=False, loc="outside lower center", ncols=4, fontsize="small")
        _bare(axes)
    return figure


def confusion(
    result: ClassificationResult, *, names: Sequence[str] | None = None, worst: int = 12, theme: Theme = "light"
) -> Figure:
    """Draw which classes are taken for which: the matrix where it can be read, and the worst pairs first beside it.

    Args:
        result: Of a classification meter.
        names: What the classes are called; their numbers if None.
        worst: How many pairs are listed.
        theme: "light" or "dark".

    Raises:
        InputError: `names` does not have a name for each class.
    """
    called = [str(one) for one in range(result.classes)] if names is None else list(names)
    if len(called) != result.classes:
        raise InputError(f"`names` has {len(called)} names, but there are {result.classes} classes: name each of them")
    counts = result.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:worst]
    pairs = [(int(i // result.classes), int(i % result.classes)) for i in order if wrong.flat[i]]
    readable = result.classes <= _MOST_CELLS
    with _style(theme):
        figure = Figure(figsize=(11 if readable else 6, 5), layout="constrained")
        grid = figure.subplots(1, 2 if readable else 1, squeeze=False)[0]
        if readable:
            _matrix(grid[0], counts, shares, called, theme)
        bars = grid[-1]
        labels = [f"{called[i]} taken for {called[j]}" for i, j in pairs]
        bars.barh(range(len(pairs)), [int(wrong[i, j]) for i, j in pairs], color=_ORANGE, height=0.7)
        for place, (i, j) in enumerate(pairs):
            bars.annotate(f" {wrong[i, j]} ({shares[i, j]:.0%})", (wrong[i, j], place), va="center", fontsize="small")
        bars.set_yticks(range(len(pairs)), labels)
        bars.invert_yaxis()
        bars.margins(x=0.2)
        bars.set_xlabel("samples (share of the true class)")
        bars.set_title("worst pairs" if pairs else "no sample is taken for another class", fontsize="medium")
        _bare(bars)
    return figure


def roc(result: RankingResult, *, names: Sequence[str] | None = None, theme: Theme = "light") -> Figure:
    """Draw the share of positives that is found against the share of negatives that is found with them.

    The dashed line is chance. Of one class alone the band is Wilson's interval at each threshold by itself; of several,
    the ten that rank worst are drawn. The result has to come from `compute(curves=True)`.
    """
    classes = _drawable(result, names)
    with _style(theme):
        figure, axes = _square(len(classes))
        axes.plot([0, 1], [0, 1], color=_INK[theme], linestyle="--", linewidth=1, label="chance, 0.5")
        for place, (name, one) in enumerate(classes):
            alarms, hits = np.array(one.curve).T
            rate = alarms / one.negatives
            axes.plot(rate, hits / one.positives, label=f"{name}{one.auroc}", **_kind(place, len(classes), theme))
            if len(classes) == 1:
                found = [wilson(int(hit), one.positives, result.confidence) for hit in hits]
                low, high = [one.low for one in found], [one.high for one in found]
                axes.fill_between(rate, low, high, color=_line(theme), alpha=0.2, linewidth=0)
        axes.set_xlabel("share of negatives above the threshold")
        axes.set_ylabel("share of positives above the threshold")
        axes.set_title("area under the curve, with intervals", fontsize="medium")
        figure.legend(frameon=False, loc="outside lower center", fontsize="small")
        _bare(axes)
    return figure


def precision_recall(result: RankingResult, *, names: Sequence[str] | None = None, theme: Theme = "light") -> Figure:
    """Draw how many of those above a threshold are positives against the share of positives that is found.

    The dashed line is chance: the share of positives. Of one class alone the band is Wilson's interval of the precision
    at each threshold by itself; of several, the ten that rank worst are drawn. The result has to come from
    `compute(curves=True)`.
    """
    classes = _drawable(result, names)
    with _style(theme):
        figure, axes = _square(len(classes))
        for place, (name, one) in enumerate(classes):
            alarms, hits = np.array(one.curve)[1:].T
            kind = _kind(place, len(classes), theme)
            recall = hits / one.positives
            axes.plot(recall, hits / (alarms + hits), label=f"{name}{one.average_precision}", **kind)
            if len(classes) == 1:
                pairs = zip(hits.tolist(), (alarms + hits).tolist(), strict=True)
                found = [wilson(hit, said, result.confidence) for hit, said in pairs]
                low, high = [one.low for one in found], [one.high for one in found]
                axes.fill_between(recall, low, high, color=_line(theme), alpha=0.2, linewidth=0)
        share = result.prevalence if len(classes) > 1 else classes[0][1].prevalence
        axes.axhline(share, color=_INK[theme], linestyle="--", linewidth=1, label=f"chance, {share:.4f}")
        axes.set_xlabel("share of positives above the threshold (recall)")
        axes.set_ylabel("share that is positive (precision)")
        axes.set_title("average precision, with intervals", fontsize="medium")
        figure.legend(frameon=False, loc="outside lower center", fontsize="small")
        _bare(axes)
    return figure


def _drawable(result: RankingResult, names: Sequence[str] | None) -> list[tuple[str, RankedClass]]:
    """Return the classes that have a curve, the worst first, each with what its label begins with."""
    called = [f"class {index}" for index in range(len(result.per_class))] if names is None else list(names)
    if len(called) != len(result.per_class):
        raise InputError(f"`names` has {len(called)} names for {len(result.per_class)} classes: give one for each")
    found = [(f"{name}: ", one) for name, one in zip(called, result.per_class, strict=True) if one.auroc and one.curve]
    if not found:
        raise InputError("`result` has no curves: take it from `compute(curves=True)`, of positives and negatives")
    if len(result.per_class) == 1:
        return [("", found[0][1])]
    return sorted(found, key=lambda pair: float(pair[1].auroc or 0.0))[:_MOST_CURVES]


def _square(curves: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 5 + 0.2 * (1 + curves)), layout="constrained")  # a line of the legend for each
    axes = figure.subplots()
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure, axes


def _kind(place: int, curves: int, theme: Theme) -> dict[str, Any]:
    """Return colour and dashes of a curve; several are told apart by both, so also in black and white."""
    if curves == 1:
        return {"color": _line(theme), "linewidth": 1.5}
    colours = (_line(theme), _ORANGE, "#009E73", "#CC79A7", "#E69F00")
    return {"color": colours[place % 5], "linestyle": ("-", (0, (4, 1)))[place // 5], "linewidth": 1.3}


def _matrix(axes: Axes, counts: Any, shares: Any, called: Sequence[str], theme: Theme) -> None:
    axes.imshow(shares, cmap="Blues" if theme == "light" else "cividis", vmin=0.0, vmax=1.0)
    size = "small" if len(called) <= 12 else "xx-small"
    for i in range(len(called)):
        for j in range(len(called)):
            if counts[i, j]:
                dark = (shares[i, j] > 0.5) == (theme == "light")
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=size,
                          color="white" if dark else "black")  # fmt: skip
    axes.set_xticks(range(len(called)), called, rotation=0 if max(map(len, called)) < 4 else 60, fontsize=size)
    axes.set_yticks(range(len(called)), called, fontsize=size)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    axes.set_title("samples; shade is the share of the true class", fontsize="medium")


def _style(theme: Theme) -> Any:
    """Return a context in which figures are made for light or dark paper, and the user's settings stay as they are."""
    if theme not in _INK:
        raise InputError(f"`theme` is {theme!r}: it is 'light' or 'dark'")
    ink, paper = _INK[theme], _PAPER[theme]
    settings: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor"), ink),
        **dict.fromkeys(("xtick.color", "ytick.color"), ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper),
    }
    return rc_context(settings)


def _line(theme: Theme) -> str:
    return _BLUE if theme == "light" else _SKY


def _bare(*several: Axes) -> None:
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#888888", alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
