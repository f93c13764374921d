"""Figures of a comparison as inline SVG: accuracy against labels, labels saved, time against accuracy.

The horizontal axes are logarithmic. Every series has a letter, so that it can be found without colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from handful.report import svg
from handful.report.figures import percent, shorten
from handful.report.svg import DASHES, WIDTH


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
    marks = svg.ticks(max(min(values), 0.0), min(max(values), 1.0))
    low, high = min(marks[0], min(values)), max(marks[-1], max(values))
    left, right, top, bottom = 46, WIDTH - 22, 8, 228
    across = svg.log_scale(sizes[0], sizes[-1], left + 12, right - 12)
    down = svg.scale(low, high, bottom, top)
    body = svg.levels(marks, down, left, right, lambda v: percent(v, 0))
    for size in sizes:
        body.append(svg.text(across(size), bottom + 15, f"{size:g}", "tick", "middle"))
    body.append(svg.text((left + right) / 2, bottom + 30, "labels per class", "tick", "middle"))
    many = len(series)
    heights = _apart([down(one.points[-1][1]) for one in series.values()], 11, top)
    for i, (name, one) in enumerate(series.items()):
        colour, dash = f"c{i % 6}", DASHES[(i // 6 + i) % 6]
        shift = (i - (many - 1) / 2) * min(3.0, 24 / many)
        body.append(
            svg.curve([(across(n) + shift, down(mean)) for n, mean, _, _ in one.points], colour, dash)
        )
        for n, mean, a, b in one.points:
            x = across(n) + shift
            spoken = f"{name}, {n:g} labels per class: {percent(mean)}"
            if a is not None and b is not None:
                body.append(svg.line(x, down(a), x, down(b), f"{colour} bar"))
                spoken += f", 95 % interval {percent(a)} to {percent(b)}"
            hollow = "" if one.uses_unlabelled else " hollow"
            body.append(svg.circle(x, down(mean), 3.5, f"{colour} dot{hollow}", spoken))
        body.append(svg.text(right + 10, heights[i] + 4, one.letter, "value", "start", 10))
    return svg.drawing(bottom + 36 + _legend(body, series, bottom + 50), title, body)


def _legend(body: list[Markup], series: Mapping[str, Series], top: float) -> float:
    """Letters, dashes and names below a figure; returns their height."""
    for i, (name, one) in enumerate(series.items()):
        y, colour = top + 17 * i, f"c{i % 6}"
        hollow = "" if one.uses_unlabelled else " hollow"
        body.append(svg.text(0, y, one.letter, "value", "start"))
        body += svg.key(18, y, colour, DASHES[(i // 6 + i) % 6], shorten(name, 44), name)
        body.append(svg.circle(30, y - 4, 3.5, f"{colour} dot{hollow}", name))
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
    across = svg.log_scale(least, largest * 1.6, left, right)
    bottom = top + step * len(rows) + 4
    body = []
    tick = 1.0
    while tick <= largest:
        body.append(svg.line(across(tick), top, across(tick), bottom, "grid"))
        body.append(svg.text(across(tick), bottom + 14, f"{tick:g}", "tick", "middle"))
        tick *= 4 if largest > 30 else 2
    body.append(svg.text((left + right) / 2, bottom + 29, "labels per class", "tick", "middle"))
    for i, row in enumerate(rows):
        y = top + step * i + 26
        name = shorten(row.name, 50 - len(row.words))
        body.append(
            svg.text(0, y - 12, f"{name}: {row.words}", "name", "start", full=f"{row.name}: {row.words}")
        )
        end = row.labels if row.labels is not None else least if row.below else largest * 1.6
        gains = end >= row.given
        a, b = sorted((across(row.given), across(end)))
        tip = f"{row.name}: {row.words}"
        body.append(svg.box(a, y - 5, max(b - a, 1.5), 10, "f0" if gains else "f5", tip))
        if row.labels is None and not row.below:
            body.append(svg.text(b + 2, y + 5, "→", "value", "start"))
        if row.low is not None or row.high is not None:
            ends = (
                row.low if row.low is not None else least,
                row.high if row.high is not None else largest * 1.6,
            )
            body.append(svg.line(across(ends[0]), y, across(ends[1]), y, "c9 bar"))
        body.append(svg.circle(across(row.given), y, 4.5, "c9 dot hollow", f"given: {row.given:g} per class"))
    return svg.drawing(bottom + 34, "Labels saved: what the labels given are worth to the baseline", body)


def time_against_accuracy(points: Mapping[str, tuple[str, bool, float, float]], title: str) -> Markup:
    """{name: (letter, uses unlabelled, seconds, accuracy)}: seconds of a run on a log axis against accuracy."""
    if not points:
        return Markup("")
    seconds = [max(p[2], 0.01) for p in points.values()]
    values = [p[3] for p in points.values()]
    marks = svg.ticks(min(values), max(values))
    low, high = min(marks[0], min(values)), max(marks[-1], max(values))
    left, right, top, bottom = 46, WIDTH - 22, 8, 188
    across = svg.log_scale(min(seconds) / 1.5, max(seconds) * 1.5, left, right)
    down = svg.scale(low, high, bottom, top)
    body = svg.levels(marks, down, left, right, lambda v: percent(v, 0))
    for power in range(-2, 6):
        tick = 10.0**power
        if min(seconds) / 1.5 <= tick <= max(seconds) * 1.5:
            body.append(svg.line(across(tick), top, across(tick), bottom, "grid"))
            body.append(svg.text(across(tick), bottom + 15, f"{tick:g} s", "tick", "middle"))
    body.append(svg.text((left + right) / 2, bottom + 30, "seconds of a run", "tick", "middle"))
    for i, (name, (letter, unlabelled, taken, value)) in enumerate(points.items()):
        x, y = across(max(taken, 0.01)), down(value)
        tip = f"{name}: {percent(value)} in {taken:.3g} s"
        body.append(svg.circle(x, y, 5, f"c{i % 6} dot{'' if unlabelled else ' hollow'}", tip))
        body.append(svg.text(x + 8, y + 4, letter, "value", "start"))
    return svg.drawing(bottom + 36, title, body)


def _apart(places: Sequence[float], least: float, top: float) -> list[float]:
    """The same positions, moved as little as keeps them ``least`` apart and below ``top``, in the same order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved, last = dict.fromkeys(order, 0.0), -math.inf
    for i in order:
        last = moved[i] = max(places[i], last + least)
    over = min(max(0.0, last - max(places)) / 2, max(0.0, min(places) - top))
    return [moved[i] - over for i in range(len(places))]
