"""Figures of a comparison as inline SVG: accuracy against labels, labels saved, time against accuracy.

The horizontal axes are logarithmic. Every series has a letter, so that it can be found without colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from handful.report.figures import (
    DASHES,
    WIDTH,
    _box,
    _circle,
    _line,
    _svg,
    _text,
    _ticks,
    percent,
    shorten,
)


class Series(NamedTuple):
    """One recipe: its letter, whether it uses unlabelled pictures, and (labels, mean, low, high) by size."""

    letter: str
    uses_unlabelled: bool
    points: Sequence[tuple[float, float, float | None, float | None]]


def accuracy_curves(series: Mapping[str, Series], title: str) -> Markup:
    """Mean accuracy against labels per class with 95 % intervals; the series stand a little apart."""
    every = [p for s in series.values() for p in s.points]
    if not every:
        return Markup("")
    sizes = sorted({p[0] for p in every})
    values = [v for p in every for v in p[1:] if v is not None]
    marks = _ticks(max(min(values), 0.0), min(max(values), 1.0))
    low, high = min(marks[0], min(values)), max(marks[-1], max(values))
    left, right, top, bottom = 46, WIDTH - 22, 8, 228
    across = _log_axis(sizes[0], sizes[-1], left + 12, right - 12)

    def down(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    body = []
    for mark in marks:
        body.append(_line(left, down(mark), right, down(mark), "grid"))
        body.append(_text(left - 5, down(mark) + 4, percent(mark, 0), "tick", "end"))
    for size in sizes:
        body.append(_text(across(size), bottom + 15, f"{size:g}", "tick", "middle"))
    body.append(_text((left + right) / 2, bottom + 30, "labels per class", "tick", "middle"))
    many = len(series)
    heights = _apart([down(one.points[-1][1]) for one in series.values()], 11)
    for i, (name, one) in enumerate(series.items()):
        colour, dash = f"c{i % 6}", DASHES[(i // 6 + i) % 6]
        shift = (i - (many - 1) / 2) * min(3.0, 24 / many)
        path = " ".join(f"{across(n) + shift:.1f},{down(mean):.1f}" for n, mean, _, _ in one.points)
        body.append(
            Markup('<polyline class="{} curve" points="{}" stroke-dasharray="{}"/>').format(
                colour, path, dash
            )
        )
        for n, mean, a, b in one.points:
            x = across(n) + shift
            spoken = f"{name}, {n:g} labels per class: {percent(mean)}"
            if a is not None and b is not None:
                body.append(_line(x, down(a), x, down(b), f"{colour} bar"))
                spoken += f", 95 % interval {percent(a)} to {percent(b)}"
            hollow = "" if one.uses_unlabelled else " hollow"
            body.append(_circle(x, down(mean), 3.5, f"{colour} dot{hollow}", spoken))
        body.append(_text(right + 10, heights[i] + 4, one.letter, "value", "start", 10))
    return _svg(bottom + 36 + _legend(body, series, bottom + 50), title, body)


def _legend(body: list[Markup], series: Mapping[str, Series], top: float) -> float:
    """Letters, dashes and names below a figure; returns their height."""
    for i, (name, one) in enumerate(series.items()):
        y, colour = top + 17 * i, f"c{i % 6}"
        body.append(_text(0, y, one.letter, "value", "start"))
        body.append(_line(18, y - 4, 42, y - 4, f"{colour} curve", dash=DASHES[(i // 6 + i) % 6]))
        hollow = "" if one.uses_unlabelled else " hollow"
        body.append(_circle(30, y - 4, 3.5, f"{colour} dot{hollow}", name))
        body.append(_text(50, y, shorten(name, 44), "name", "start", full=name))
    return 17 * len(series)


class Worth(NamedTuple):
    """``given`` labels per class with this recipe do what ``labels`` do for the baseline; None: outside the curve,
    below its first point where ``below`` says so."""

    name: str
    given: float
    labels: float | None
    low: float | None
    high: float | None
    words: str
    below: bool = False


def saved_bars(rows: Sequence[Worth], largest: float) -> Markup:
    """From the labels that were given to what they are worth; an open end where the baseline never got there."""
    if not rows:
        return Markup("")
    least = min(1.0, min(r.given for r in rows))
    left, right, step, top = 6, WIDTH - 26, 40, 6
    across = _log_axis(least, largest * 1.6, left, right)
    bottom = top + step * len(rows) + 4
    body = []
    tick = 1.0
    while tick <= largest:
        body.append(_line(across(tick), top, across(tick), bottom, "grid"))
        body.append(_text(across(tick), bottom + 14, f"{tick:g}", "tick", "middle"))
        tick *= 4 if largest > 30 else 2
    body.append(_text((left + right) / 2, bottom + 29, "labels per class", "tick", "middle"))
    for i, row in enumerate(rows):
        y = top + step * i + 26
        body.append(_text(0, y - 12, shorten(f"{row.name}: {row.words}", 58), "name", "start", full=row.name))
        end = row.labels if row.labels is not None else least if row.below else largest * 1.6
        gains = end >= row.given
        a, b = sorted((across(row.given), across(end)))
        tip = f"{row.name}: {row.words}"
        body.append(_box(a, y - 5, max(b - a, 1.5), 10, "f0" if gains else "f5", tip))
        if row.labels is None and not row.below:
            body.append(_text(b + 2, y + 5, "→", "value", "start"))
        if row.low is not None or row.high is not None:
            ends = (
                row.low if row.low is not None else least,
                row.high if row.high is not None else largest * 1.6,
            )
            body.append(_line(across(ends[0]), y, across(ends[1]), y, "c9 bar"))
        body.append(_circle(across(row.given), y, 4.5, "c9 dot hollow", f"given: {row.given:g} per class"))
    return _svg(bottom + 34, "Labels saved: what the labels given are worth to the baseline", body)


def time_against_accuracy(points: Mapping[str, tuple[str, bool, float, float]], title: str) -> Markup:
    """{name: (letter, uses unlabelled, seconds, accuracy)}: seconds of a run on a log axis against accuracy."""
    if not points:
        return Markup("")
    seconds = [max(p[2], 0.01) for p in points.values()]
    values = [p[3] for p in points.values()]
    marks = _ticks(min(values), max(values))
    low, high = min(marks[0], min(values)), max(marks[-1], max(values))
    left, right, top, bottom = 46, WIDTH - 22, 8, 188
    across = _log_axis(min(seconds) / 1.5, max(seconds) * 1.5, left, right)

    def down(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    body = []
    for mark in marks:
        body.append(_line(left, down(mark), right, down(mark), "grid"))
        body.append(_text(left - 5, down(mark) + 4, percent(mark, 0), "tick", "end"))
    for power in range(-2, 6):
        tick = 10.0**power
        if min(seconds) / 1.5 <= tick <= max(seconds) * 1.5:
            body.append(_line(across(tick), top, across(tick), bottom, "grid"))
            body.append(_text(across(tick), bottom + 15, f"{tick:g} s", "tick", "middle"))
    body.append(_text((left + right) / 2, bottom + 30, "seconds of a run", "tick", "middle"))
    for i, (name, (letter, unlabelled, taken, value)) in enumerate(points.items()):
        x, y = across(max(taken, 0.01)), down(value)
        tip = f"{name}: {percent(value)} in {taken:.3g} s"
        body.append(_circle(x, y, 5, f"c{i % 6} dot{'' if unlabelled else ' hollow'}", tip))
        body.append(_text(x + 8, y + 4, letter, "value", "start"))
    return _svg(bottom + 36, title, body)


def _apart(places: Sequence[float], least: float) -> list[float]:
    """The same positions, moved as little as keeps them ``least`` apart, in the same order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved, last = dict.fromkeys(order, 0.0), -math.inf
    for i in order:
        last = moved[i] = max(places[i], last + least)
    over = max(0.0, last - max(places, default=0.0)) / 2
    return [moved[i] - over for i in range(len(places))]


def _log_axis(first: float, last: float, left: float, right: float) -> Callable[[float], float]:
    """Positive numbers to positions on a logarithmic axis, held inside it."""
    span = math.log(last / first) if last > first else 1.0
    middle = (left + right) / 2

    def across(value: float) -> float:
        if last <= first:
            return middle
        return min(max(left + (right - left) * math.log(value / first) / span, left), right)

    return across
