"""One file that says what happened: pictures as inline SVG, numbers as tables, and nothing that must be fetched.

    write_report(["runs/digits"], "report.html")

It follows the reader's light or dark, prints, and reads without a script; a few lines of one sort the tables.
"""

from __future__ import annotations

import math
import re
import time
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import InputError
from flyball.events import Estimate, Evaluated, RunFailed, RunFinished
from flyball.files import write_whole
from flyball.observe.story import Fate, Happening, Story, read_story, settings, surroundings
from flyball.observe.svg import Chart, Line, Mark, number

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_MOST_ROWS = 400
_MOST_MARKS = 300
_STYLES = ("kept", "second", "third", "fourth", "fifth", "sixth")


def write_report(runs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> Path:
    """Write the report of one run, or of several beside each other, and return where it lies.

    Args:
        runs: Run folders, or journals.
        output: The file; an existing one is replaced.

    Raises:
        InputError: No run is named, or one has no journal.
        JournalError: A journal has a damaged line.
        WriteError: The file cannot be written.
    """
    if not runs:
        raise InputError("`runs` is empty: name at least one run folder")
    path = Path(output)
    write_whole(path, page([read_story(run) for run in runs]).encode())
    return path


def page(stories: Sequence[Story]) -> str:
    """Return the whole page."""
    style = resources.files("flyball.observe").joinpath("report.css").read_text(encoding="utf-8")
    script = resources.files("flyball.observe").joinpath("report.js").read_text(encoding="utf-8")
    names = _called(stories)
    title = ", ".join(names)
    body = [*_comparison(stories, names)] if len(stories) > 1 else []
    for story, name in zip(stories, names, strict=True):
        body += _run(story, name)
    made = time.strftime("%Y-%m-%d %H:%M")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · flyball</title><style>\n{style}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + f"\n</main><footer>Written by flyball on {made}, from the journals of these runs.</footer>"
        f"<script>\n{script}</script></body></html>\n"
    )


def _called(stories: Sequence[Story]) -> list[str]:
    """Name every run so that no two are called alike."""
    names: list[str] = []
    for story in stories:
        name, number_ = story.name, 2
        while name in names:
            name, number_ = f"{story.name} ({number_})", number_ + 1
        names.append(name)
    return names


def _run(story: Story, name: str) -> Iterator[str]:
    yield f'<section class="run"><h1>{escape(name)}</h1>'
    yield f'<p class="lead">{_said(story)}</p>'
    yield _facts(story)
    yield from _training(story)
    yield from _happened(story)
    yield from _evaluated(story)
    yield from _set_up(story)
    yield "</section>"


def _said(story: Story) -> str:
    """Say in a few sentences what a reader wants to know first."""
    backs, out = story.rollbacks, story.left_out
    ended = story.ended
    if isinstance(ended, RunFinished):
        resumed = any(one.what == "resume" for one in story.happenings)
        took = f"; its last attempt took {_duration(ended.seconds)}" if resumed else f" in {_duration(ended.seconds)}"
        first = f"The run came to its end ({escape(ended.reason)}){took}."
    elif isinstance(ended, RunFailed):
        first = f"<b>The run failed</b>: {escape(ended.error)}, {escape(_short(ended.message))}"
    else:
        first = "<b>The journal has no end</b>: the run goes on, or it was killed."
    did = []
    if out:
        did.append(f"left {_count(out, 'batch', 'batches')} out")
    if backs:
        did.append(f"went back {_times(len(backs))} and lost {_count(story.steps_lost, 'step')} by it")
    second = f"The governor {' and '.join(did)}." if did else "Nothing was left out and nothing was taken back."
    resumes = sum(one.what == "resume" for one in story.happenings)
    third = f"It was resumed {_times(resumes)}." if resumes else ""
    dead = int((~np.isfinite(story.loss[story.fate == Fate.KEPT])).sum())
    fourth = f"<b>{_count(dead, 'step')} that counted had a loss that is no number.</b>" if dead else ""
    return " ".join(one for one in (first, second, third, fourth) if one)


def _facts(story: Story) -> str:
    kept = int((story.fate == Fate.KEPT).sum())
    rate = _rate(story)
    last = story.epochs[-1] if story.epochs else None
    facts = [
        ("steps", f"{len(story.step):,}"),
        ("applied", f"{kept:,}"),
        ("epochs", str(last.epoch) if last else "none"),
        ("left out", str(story.left_out)),
        ("rollbacks", str(len(story.rollbacks))),
        ("steps lost", str(story.steps_lost)),
        ("last loss", _last_loss(story)),
        ("steps a second", "unknown" if rate is None else number(rate)),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _rate(story: Story) -> float | None:
    """Return the usual speed: the median leaves validation and pauses out."""
    gaps = np.diff(story.wall)
    gaps = gaps[gaps > 0]
    return 1.0 / float(np.median(gaps)) if len(gaps) else None


def _last_loss(story: Story) -> str:
    kept = story.loss[story.fate == Fate.KEPT]
    return number(float(np.mean(kept[-20:]))) if len(kept) else "none"


def _training(story: Story) -> Iterator[str]:
    yield "<h2>Training</h2>"
    if not len(story.step):
        yield '<p class="quiet">The journal holds no step.</p>'
        return
    chart = Chart(
        f"loss of {story.name} over the steps, with what the governor did", _loss_lines(story), _loss_marks(story),
        unit="training loss", height=360,
    )  # fmt: skip
    legend = [("kept", "loss")]
    legend += [("abandoned", "taken back by a rollback")] if (story.fate == Fate.ABANDONED).any() else []
    legend += [("repeated", "made again after a resume")] if (story.fate == Fate.REPEATED).any() else []
    legend += [("x", "batch left out")] if story.left_out else []
    yield _figure(chart, legend)
    x = story.step.astype(np.float64)
    counts = story.fate != Fate.REPEATED
    yield '<div class="pair">'
    yield _figure(Chart("learning rate", [Line("rate", "kept", x[counts], story.rate[counts])], unit="learning rate",
                        height=230, width=520), [])  # fmt: skip
    if np.isfinite(story.norm).any():
        norm = Line("norm", "kept", x[counts], story.norm[counts])
        yield _figure(Chart("gradient norm", [norm], unit="gradient norm", height=230, width=520), [])
    yield from (_figure(chart, legend) for chart, legend in _validation(story))
    yield "</div>"


def _loss_lines(story: Story) -> list[Line]:
    x = story.step.astype(np.float64)
    lines = []
    for name, style, fate in (
        ("made again", "repeated", Fate.REPEATED),
        ("taken back", "abandoned", Fate.ABANDONED),
    ):
        picked = story.fate == fate
        if picked.any():
            # A gap between two branches, and none within one.
            y = np.where(picked, story.loss, np.nan)
            near = picked | np.append(picked[1:], False) | np.append(False, picked[:-1])
            lines.append(Line(name, style, x[near], y[near]))
    kept = story.fate == Fate.KEPT
    # What was left out is passed over by the line; a rollback and a resume break it.
    shown = kept | (story.fate == Fate.ABANDONED)
    seam = np.append(False, np.diff(story.step) < 0)
    y = np.where(kept, story.loss, np.nan)
    lines.append(Line("loss", "kept", *_broken_at(seam[shown | seam], x[shown | seam], y[shown | seam])))
    return lines


def _broken_at(
    seam: NDArray[np.bool_], x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    places = np.flatnonzero(seam)
    return np.insert(x, places, x[places]), np.insert(y, places, np.nan)


def _loss_marks(story: Story) -> list[Mark]:
    loss_at = dict(zip(story.step.tolist(), story.loss.tolist(), strict=True))
    last_skip = -math.inf
    marks: list[Mark] = []
    for one in story.happenings:
        if one.what == "skip":
            marks.append(Mark("cross", one.step, loss_at.get(one.step, math.nan), one.says))
            last_skip = one.step
        elif one.what == "rollback":
            marks.append(Mark("flag", one.step, math.nan, one.says, f"back to {_back_to(one)}", "back"))
        elif one.what == "resume":
            marks.append(Mark("flag", one.step, math.nan, one.says, "resumed", "quietly"))
        elif one.what == "stop":
            marks.append(Mark("flag", one.step, math.nan, one.says, "stopped", "back"))
        elif one.what == "watch" and one.step != last_skip and "WATCH" in one.says:
            marks.append(Mark("dot", one.step, loss_at.get(one.step, math.nan), one.says))
    flags = [one for one in marks if one.shape == "flag"][:_MOST_MARKS]
    others = [one for one in marks if one.shape != "flag"]
    dead = story.step[(story.fate == Fate.KEPT) & ~np.isfinite(story.loss)]
    if len(dead):
        flags.append(Mark("flag", float(dead[0]), math.nan, f"from step {dead[0]} on the loss is no number",
                          "not a number", "back"))  # fmt: skip
    return others[:: max(1, -(-len(others) // _MOST_MARKS))] + flags


def _back_to(one: Happening) -> int:
    return one.step - int(one.event.step - one.event.back_to)


def _validation(story: Story) -> Iterator[tuple[Chart, list[tuple[str, str]]]]:
    """Yield one chart of the losses, and one of the rates that lie between 0 and 1."""
    names = list(dict.fromkeys(name for epoch in story.epochs for name in epoch.validation))
    x = np.array([epoch.step for epoch in story.epochs], dtype=np.float64)
    series = {
        name: np.array([epoch.validation.get(name, math.nan) for epoch in story.epochs], dtype=np.float64)
        for name in names
    }
    preferred = [name for name in ("accuracy", "average.accuracy", "balanced_accuracy", "macro_f1") if name in series]
    losses = [name for name in ("loss", "average.loss") if name in series]
    rest = [name for name in names if name not in {*preferred, *losses}]
    for unit, chosen in (("validation", preferred or rest[:4]), ("validation loss", losses)):
        if chosen:
            lines = [Line(name, _STYLES[i % 6], x, series[name]) for i, name in enumerate(chosen[:6])]
            legend = [(line.style, line.name) for line in lines] if len(lines) > 1 else []
            yield Chart(f"{unit} after each epoch", lines, unit=f"{unit}: {chosen[0]}" if len(lines) == 1 else unit,
                        height=230, width=520), legend  # fmt: skip


def _happened(story: Story) -> Iterator[str]:
    yield "<h2>What was done</h2>"
    told = [one for one in story.happenings if one.what != "watch"]
    watched = len(story.happenings) - len(told)
    if not told:
        more = f" {_count(watched, 'step')} looked doubtful and was settled." if watched else ""
        yield f'<p class="quiet">No batch was left out, nothing was undone.{more}</p>'
        return
    words = {"skip": "left out", "rollback": "rolled back", "resume": "resumed", "stop": "stopped",
             "dropped": "events lost"}  # fmt: skip
    rows = [
        f'<tr><td class="number">{one.step}</td><td class="kind {one.what}">{words[one.what]}</td>'
        f'<td class="why" title="{escape(one.says, quote=True)}">{escape(_evidence(one))}</td>'
        f"<td>{escape(one.cost)}</td></tr>"
        for one in told[:_MOST_ROWS]
    ]
    yield _table(("step", "what", "why", "cost"), rows)
    if len(told) > _MOST_ROWS:
        yield f'<p class="quiet">The first {_MOST_ROWS} of {len(told)}; the journal has them all.</p>'
    if watched:
        yield f'<p class="quiet">Besides, {_count(watched, "note")} of doubt: dots in the picture.</p>'
    for back in story.rollbacks:
        phases = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in back.phases.items())
        yield (
            f"<details><summary>The rollback at step {back.step}, in full</summary><dl>"
            f"<dt>reason</dt><dd>{escape(back.reason)}</dd>"
            f"<dt>codes</dt><dd>{escape(', '.join(back.codes)) or 'asked for by hand'}</dd>"
            f"<dt>snapshot</dt><dd>{back.snapshot}, taken after update {back.taken_at}; {back.bytes / 1e6:.2f} MB</dd>"
            f"<dt>attempt</dt><dd>{back.attempt}, learning rate times {back.learning_rate_factor:g}</dd>"
            f"<dt>data</dt><dd>stood at {escape(str(back.data_stood_at))}, go on at "
            f"{escape(str(back.data_go_on_at))} ({escape(back.recovery)})</dd>"
            f"<dt>restored</dt><dd>{escape(', '.join(back.restored))}</dd>"
            f"<dt>time</dt><dd>{back.seconds * 1e3:.1f} ms{': ' + escape(phases) if phases else ''}</dd></dl></details>"
        )


def _evidence(one: Happening) -> str:
    """Leave out what the row says in its other columns, and all evidence but the first."""
    if one.what != "skip":
        return _short(one.says)
    parts = one.says.split("; ")
    parts[0] = re.sub(r"^step \d+: [A-Z]+ ", "", parts[0])
    return _short("; ".join(parts[:-1][:2]) or parts[0], 240)


def _evaluated(story: Story) -> Iterator[str]:
    final = [one for one in story.evaluations.values() if one.measurements]
    empty = [one for one in story.evaluations.values() if not one.measurements]
    if not story.evaluations:
        return
    yield "<h2>Evaluation</h2>"
    for one in final:
        yield f"<h3>{escape(one.split)}</h3>" + _measures(one)
    for one in empty:
        yield f"<h3>{escape(one.split)}</h3><p><b>What the model says is not a number</b>: nothing was measured.</p>"


def _measures(one: Evaluated) -> str:
    rows = []
    for name, value in one.measurements.items():
        shown = value.value if isinstance(value, Estimate) else value
        interval = f"{number(value.low)} to {number(value.high)}" if isinstance(value, Estimate) else ""
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="number">{number(shown)}</td>'
            f'<td class="number">{interval}</td><td>{_bar(value)}</td></tr>'
        )
    return _table(("measure", "value", "95 % interval", ""), rows)


def _bar(value: Estimate | float, low: float = 0.0, high: float = 1.0, style: str = "kept") -> str:
    """Draw a number between 0 and 1 with its interval; nothing for other numbers."""
    ends = (value.low, value.value, value.high) if isinstance(value, Estimate) else (value, value, value)
    if not all(math.isfinite(end) and low <= end <= high for end in ends):
        return ""
    a, middle, b = (4 + 152 * (end - low) / (high - low) for end in ends)
    return (
        '<svg class="bar" viewBox="0 0 160 14" aria-hidden="true"><line class="grid" x1="4" x2="156" y1="7" y2="7"/>'
        f'<line class="{style} thick" x1="{a:.1f}" x2="{max(b, a + 0.5):.1f}" y1="7" y2="7"/>'
        f'<circle class="{style}" cx="{middle:.1f}" cy="7" r="3.5"/></svg>'
    )


def _set_up(story: Story) -> Iterator[str]:
    around = surroundings(story.folder)
    started = story.started
    rows = []
    if started is not None:
        rows += [("device", started.device), ("seed", str(started.seed))]
        rows += [(name, version) for name, version in started.versions.items()]
    rows += [
        (name, str(around[name])) for name in ("platform", "device_name", "cuda", "threads", "git") if around.get(name)
    ]
    told = list(settings(story))
    yield "<h2>Set up</h2>"
    if rows:
        yield _pairs(rows)
    if told:
        yield f"<details><summary>{len(told)} settings</summary>{_pairs(told)}</details>"
    kinds = [(kind, f"{count:,}") for kind, count in story.kinds.most_common()]
    torn = f", and {story.torn} bytes of a line that was cut short" if story.torn else ""
    yield (
        f"<details><summary>The journal: {sum(story.kinds.values()):,} events of "
        f"{_count(story.ranks, 'process', 'processes')}, {story.dropped} missing{torn}; "
        f"{_count(story.checkpoints, 'checkpoint')}</summary>{_pairs(kinds)}</details>"
    )


def _comparison(stories: Sequence[Story], names: Sequence[str]) -> Iterator[str]:
    yield f'<section class="run"><h1>{len(stories)} runs</h1>'
    lines, legend = [], []
    for place, (story, name) in enumerate(zip(stories, names, strict=True)):
        kept = story.fate == Fate.KEPT
        style = _STYLES[place % len(_STYLES)]
        lines.append(Line(name, style, story.step[kept].astype(np.float64), story.loss[kept]))
        legend.append((style, name))
    marks = []
    for place, story in enumerate(stories):
        dead = story.step[(story.fate == Fate.KEPT) & ~np.isfinite(story.loss)]
        if len(dead):
            says = f"{names[place]}: from step {dead[0]} on the loss is no number"
            marks.append(
                Mark("flag", float(dead[0]), math.nan, says, f"{_short(names[place], 24)}: not a number", "back")
            )
    yield _figure(Chart("losses of the runs", lines, marks, unit="training loss", height=340), legend)
    head = ("run", "how it ended", "steps", "left out", "rollbacks", "steps lost", "last loss")
    yield _table(head, [
        f'<tr><td><i class="key {_STYLES[i % 6]}"></i>{escape(name)}</td><td>{escape(_short(story.outcome, 60))}</td>'
        + "".join(f'<td class="number">{cell}</td>' for cell in (
            f"{len(story.step):,}", story.left_out, len(story.rollbacks), story.steps_lost, _last_loss(story)))
        + "</tr>" for i, (story, name) in enumerate(zip(stories, names, strict=True))
    ])  # fmt: skip
    yield from _measures_side_by_side(stories, names)
    yield from _settings_that_differ(stories, names)
    yield "</section>"


def _measures_side_by_side(stories: Sequence[Story], names: Sequence[str]) -> Iterator[str]:
    splits = list(dict.fromkeys(split for story in stories for split in story.evaluations))
    for split in splits:
        found = [story.evaluations[split].measurements if split in story.evaluations else {} for story in stories]
        measures = list(dict.fromkeys(name for one in found for name in one))
        if not measures:
            continue
        rows = []
        for measure in measures:
            values = [one.get(measure) if one else math.nan for one in found]
            cells = "".join(
                f'<td class="number">{_cell(value)}{"" if value is None else _bar(value, style=_STYLES[i % 6])}</td>'
                for i, value in enumerate(values)
            )
            rows.append(f"<tr><td>{escape(measure)}</td>{cells}</tr>")
        yield f"<h2>{escape(split)}, with 95 % intervals</h2>" + _table((split, *names), rows)
        yield (
            '<p class="quiet">Two intervals that overlap do not show that two runs are alike, nor that they differ: '
            "compare them sample by sample, with <code>Evaluation.compare</code>.</p>"
        )


def _cell(value: Estimate | float | None) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, Estimate):
        return f"{number(value.value)} <small>{number(value.low)} to {number(value.high)}</small>"
    return number(value)


def _settings_that_differ(stories: Sequence[Story], names: Sequence[str]) -> Iterator[str]:
    told = [dict(settings(story)) for story in stories]
    for one, story in zip(told, stories, strict=True):
        if story.started is not None:
            one["seed"] = str(story.started.seed)
    keys = [key for key in dict.fromkeys(key for one in told for key in one) if len({one.get(key) for one in told}) > 1]
    if not keys:
        yield '<p class="quiet">All settings of these runs are the same.</p>'
        return
    rows = [
        f"<tr><td>{escape(key)}</td>" + "".join(f"<td>{escape(one.get(key, 'not set'))}</td>" for one in told) + "</tr>"
        for key in keys
    ]
    yield "<h2>What differs</h2>" + _table(("setting", *names), rows)


def _figure(chart: Chart, legend: Iterable[tuple[str, str]]) -> str:
    keys = "".join(
        f'<span><i class="key {style}">{"&times;" if style == "x" else ""}</i>{escape(name)}</span>'
        for style, name in legend
    )
    return f"<figure>{chart}{f'<figcaption>{keys}</figcaption>' if keys else ''}</figure>"


def _table(head: Sequence[str], rows: Iterable[str]) -> str:
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _pairs(rows: Iterable[tuple[str, str]]) -> str:
    return f'<dl class="pairs">{"".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)}</dl>'


def _count(count: int, one: str, more: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _short(text: str, most: int = 400) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s"
