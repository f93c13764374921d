"""Figures of a comparison as inline SVG: accuracy against labels, labels saved, time against accuracy.

The horizontal axes are logarithmic. Every series has a letter, so that it can be found without colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from handful.report import svg
from handful.report.svg import DASHES, WIDTH
from handful.report.words import percent, shorten, with_interval
from handful.stats.labels_saved import LabelsSaved


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
            ends = None if a is None or b is None else (a, b)
            if ends:
                body.append(svg.line(x, down(ends[0]), x, down(ends[1]), f"{colour} bar"))
            spoken = f"{name}, {n:g} labels per class: {with_interval(mean, ends)}"
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


def saved_bars(rows: Sequence[tuple[str, str, LabelsSaved]], largest: float) -> Markup:
    """From the labels that were given to what they are worth, by (recipe, worth in words, figures); an open end where
    the baseline never got there."""
    least, most = 1.0, largest * 1.6
    left, right, step, top = 6, WIDTH - 26, 40, 6
    across = svg.log_scale(least, most, left, right)
    bottom = top + step * len(rows) + 4
    body = []
    tick = 1.0
    while tick <= largest:
        body.append(svg.line(across(tick), top, across(tick), bottom, "grid"))
        body.append(svg.text(across(tick), bottom + 14, f"{tick:g}", "tick", "middle"))
        tick *= 4 if largest > 30 else 2
    body.append(svg.text((left + right) / 2, bottom + 29, "labels per class", "tick", "middle"))
    for i, (name, words, saved) in enumerate(rows):
        y, tip = top + step * i + 26, f"{name}: {words}"
        short = f"{shorten(name, 50 - len(words))}: {words}"
        body.append(svg.text(0, y - 12, short, "name", "start", full=tip))
        beyond = least if saved.beyond == "below" else most
        end = beyond if saved.labels is None else saved.labels
        a, b = sorted((across(saved.given), across(end)))
        body.append(svg.box(a, y - 5, max(b - a, 1.5), 10, "f0" if end >= saved.given else "f5", tip))
        if saved.labels is None and beyond == most:
            body.append(svg.text(b + 2, y + 5, "→", "value", "start"))
        if saved.low is not None or saved.high is not None:
            low, high = (
                least if saved.low is None else saved.low,
                most if saved.high is None else saved.high,
            )
            body.append(svg.line(across(low), y, across(high), y, "c9 bar"))
        body.append(
            svg.circle(across(saved.given), y, 4.5, "c9 dot hollow", f"given: {saved.given} per class")
        )
    return svg.drawing(bottom + 34, "Labels saved: what the labels given are worth to the baseline", body)


def time_against_accuracy(points: Mapping[str, tuple[str, bool, float, float]], title: str) -> Markup:
    """{name: (letter, uses unlabelled, seconds, accuracy)}: seconds of a run on a log axis against accuracy."""
    if not points:
        return Markup("")
    seconds = [max(p[2], 0.01) for p in points.values()]
    values = [p[3] for p in points.values()]
    marks = svg.ticks(min(values), max(values))
    left, right, top, bottom = 46, WIDTH - 22, 8, 188
    across = svg.log_scale(min(seconds) / 1.5, max(seconds) * 1.5, left, right)
    down = svg.scale(marks[0], marks[-1], bottom, top)
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
