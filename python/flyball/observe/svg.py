"""Charts as inline SVG, written by hand: no library, no script, colours by CSS class so that a page can be dark.

A chart of a long run keeps its spikes: of all points that fall on one column of pixels the lowest and the highest are
drawn, and the first and the last so that the line goes on where it should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 14, 26, 34
_COLUMNS = 880
_LARGEST = 1e100  # what is larger is drawn as what is not finite
_LOG_FROM = 30.0  # a range wider than this factor is drawn by its logarithm


@dataclass(frozen=True)
class Line:
    """A line of a chart; NaN breaks it.

    Args:
        name: What it shows.
        style: Its CSS class.
        x, y: Its points.
    """

    name: str
    style: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True)
class Mark:
    """A sign at one place of a chart, with what it says when it is pointed at.

    Args:
        shape: "cross" (at a height), "flag" (a line from top to bottom with words), or "dot".
        x: Where.
        y: At which height; the top of the chart where it is not finite.
        says: In a sentence.
        label: What is written beside it; nothing if empty.
    """

    shape: Literal["cross", "flag", "dot"]
    x: float
    y: float
    says: str
    label: str = ""
    style: str = ""


@dataclass(frozen=True)
class Chart:
    """Lines and marks over one axis of steps.

    Args:
        title: What a reader who sees no picture is told.
        lines: In the order of drawing.
        marks: On top of them.
        unit: What the height is.
        height, width: In pixels, where there is room for it.
        bounds: The least and the largest value that fit; found if None.
        across: What the axis of steps is called.
    """

    title: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    unit: str = ""
    height: int = 300
    width: int = 960
    bounds: tuple[float, float] | None = None
    across: str = "step"

    def __str__(self) -> str:
        return _drawn(self)


class _Axis:
    """From values to pixels."""

    def __init__(self, low: float, high: float, begin: float, end: float, *, log: bool) -> None:
        self.log = log
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)
        self.begin, self.scale = begin, (end - begin) / (self.high - self.low)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            where = np.log10(values) if self.log else values
        return self.begin + (where - self.low) * self.scale

    def one(self, value: float) -> float:
        return float(self(np.array([value]))[0])

    def ticks(self, wanted: int) -> list[float]:
        if self.log:
            first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
            every = max(1, (last - first + 1) // wanted)
            decades = [10.0**power for power in range(first, last + 1, every)]
            if len(decades) >= 2:
                return decades
            few = [m * 10.0**p for p in range(first - 1, last + 1) for m in (1, 2, 5)]
            return [one for one in few if self.low <= math.log10(one) <= self.high]
        return _round_numbers(self.low, self.high, wanted)


def _round_numbers(low: float, high: float, wanted: int) -> list[float]:
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(x: NDArray[np.float64], y: NDArray[np.float64], columns: int = _COLUMNS) -> tuple[NDArray[np.float64], ...]:
    """Return few enough points to draw: of each column the first, the lowest, the highest and the last, in order.

    Every finite extreme of the line is among them, and so is every gap.
    """
    if len(x) <= 4 * columns:
        return x, y
    edges = np.linspace(float(x.min()), float(x.max()), columns + 1)[1:-1]
    # Of a line that goes back, each way is a stretch of its own.
    column = np.searchsorted(edges, x, side="right")
    starts = np.flatnonzero(np.diff(column, prepend=column[0] - 1))
    ends = np.append(starts[1:], len(x))
    keep: set[int] = set()
    for begin, end in zip(starts.tolist(), ends.tolist(), strict=True):
        part = y[begin:end]
        keep.update((begin, end - 1))
        whole = np.isfinite(part)
        if whole.any():
            keep.add(begin + int(np.where(whole, part, np.inf).argmin()))
            keep.add(begin + int(np.where(whole, part, -np.inf).argmax()))
        if not whole.all():
            keep.add(begin + int(whole.argmin()))
    chosen = np.array(sorted(keep))
    return x[chosen], y[chosen]


def _drawn(chart: Chart) -> str:
    marked = np.array([mark.y for mark in chart.marks])  # what was left out may lie far above the line
    values = np.concatenate([*(line.y for line in chart.lines), marked])
    finite = values[np.abs(values) < _LARGEST]
    places = np.concatenate([line.x for line in chart.lines] or [np.empty(0)])
    if not len(finite):
        return '<p class="quiet">There is no number to draw.</p>'
    low, high = (float(finite.min()), float(finite.max())) if chart.bounds is None else chart.bounds
    log = chart.bounds is None and low > 1.0 / _LARGEST and high / low > _LOG_FROM
    low, high = _widened(low, high, log=log)
    bottom = chart.height - _BOTTOM
    up = _Axis(low, high, bottom, _TOP, log=log)
    first, last = float(places.min()), float(places.max())
    along = _Axis(first, last if last > first else first + 1, _LEFT, chart.width - _RIGHT, log=False)
    parts = [
        f'<svg viewBox="0 0 {chart.width} {chart.height}" role="img" aria-label="{escape(chart.title, quote=True)}">',
        *_grid(chart, up, along, bottom),
        *(_path(line, along, up) for line in chart.lines),
        *_marks(chart, along, up, bottom),
        "</svg>",
    ]
    return "".join(parts)


def _widened(low: float, high: float, *, log: bool) -> tuple[float, float]:
    if log:
        return low / 1.15, high * 1.3
    room = max((high - low) * 0.06, abs(high) * 1e-6) if high > low else abs(high) * 0.1
    if room < 1.0 / _LARGEST:
        room = 1.0
    return low - room, high + room


def _grid(chart: Chart, up: _Axis, along: _Axis, bottom: int) -> Iterable[str]:
    for value in up.ticks(5):
        y = up.one(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{chart.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
    for value in along.ticks(chart.width // 120):
        x = along.one(value)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{number(value)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{chart.width - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text class="name" x="{_LEFT}" y="12">{escape(chart.unit)}</text>'
    yield (
        f'<text class="name" x="{chart.width - _RIGHT}" y="{chart.height - 3}" text-anchor="end">'
        f"{escape(chart.across)}</text>"
    )


def _path(line: Line, along: _Axis, up: _Axis) -> str:
    x, y = thinned(line.x, line.y)
    across, high = along(x), up(np.where(np.abs(y) < _LARGEST, y, np.nan))
    pieces: list[str] = []
    alone: list[str] = []
    pen = False
    whole = np.isfinite(high)
    for place in range(len(x)):
        if not whole[place]:
            pen = False
            continue
        point = f"{across[place]:.1f} {high[place]:.1f}"
        before, after = place > 0 and whole[place - 1], place + 1 < len(x) and whole[place + 1]
        if not before and not after:
            alone.append(f'<circle class="{line.style}" cx="{across[place]:.1f}" cy="{high[place]:.1f}" r="2"/>')
        pieces.append(f"{'L' if pen else 'M'}{point}")
        pen = True
    return f'<path class="{line.style}" d="{"".join(pieces)}"/>{"".join(alone)}'


def _marks(chart: Chart, along: _Axis, up: _Axis, bottom: int) -> Iterable[str]:
    taken = [-math.inf] * 3  # where the words of the rows at the top end
    for mark in sorted(chart.marks, key=lambda one: one.x):
        x = along.one(mark.x)
        y = up.one(mark.y) if abs(mark.y) < _LARGEST and (mark.y > 0 or not up.log) else float(_TOP)
        y = min(max(y, _TOP), bottom)
        tip = f"<title>{escape(mark.says)}</title>"
        if mark.shape == "cross":
            yield (
                f'<g class="cross {mark.style}"><path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
                f'<circle class="target" cx="{x:.1f}" cy="{y:.1f}" r="8"/>{tip}</g>'
            )
        elif mark.shape == "dot":
            yield f'<circle class="dot {mark.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{tip}</circle>'
        else:
            width = 6.4 * len(mark.label) + 8
            row = next((row for row, end in enumerate(taken) if x - width / 2 > end), None)
            words = ""
            if mark.label and row is not None:
                taken[row] = x + width / 2
                middle = min(max(x, _LEFT + width / 2), chart.width - width / 2)
                words = f'<text x="{middle:.1f}" y="{_TOP + 12 * row}" text-anchor="middle">{escape(mark.label)}</text>'
            yield (
                f'<g class="flag {mark.style}"><line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP + 4}" y2="{bottom}"/>'
                f'{words}<rect class="target" x="{x - 5:.1f}" y="{_TOP}" width="10" height="{bottom - _TOP}"/>{tip}</g>'
            )


def number(value: float) -> str:
    """Write a number as an axis or a table does: short, and never more exact than it is."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "not a number")
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}"
    return f"{value:.2g}"
