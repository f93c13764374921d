"""Figures of a look at data as inline SVG: distributions, brightness of each class, shifts between two sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from handful.data.gap import Shift
from handful.report import svg
from handful.report.svg import DASHES, WIDTH
from handful.report.words import columns, percent, shorten

FEWEST_BINS, MOST_BINS = 10, 32
MOST_CLASSES = 30


def histogram(series: Mapping[str, NDArray[np.float64]], title: str, *, fractions: bool = False) -> Markup:
    """Distributions of a figure as outlines over common bins, each of area 1; the vertical axis has no scale.

    Values beyond the 0.5th and 99.5th percentile of all are put into the outer bins.
    """
    shown = {name: values[np.isfinite(values)] for name, values in series.items()}
    shown = {name: values for name, values in shown.items() if len(values)}
    if not shown:
        return Markup("")
    every = np.concatenate(list(shown.values()))
    low, high = (float(v) for v in np.quantile(every, [0.005, 0.995]))
    if high - low < 1e-9:
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    bins = int(np.clip(2 * min(map(len, shown.values())) ** 0.5, FEWEST_BINS, MOST_BINS))
    edges = np.linspace(low, high, bins + 1)
    heights = {
        name: np.histogram(np.clip(values, low, high), edges)[0] / len(values)
        for name, values in shown.items()
    }
    top, bottom, left, right = 6, 120, 16, WIDTH - 18
    tallest = max(float(h.max()) for h in heights.values())
    at = svg.scale(low, high, left, right)
    body = [svg.line(left, bottom, right, bottom, "grid")]
    for mark in svg.ticks(low, high):
        if low <= mark <= high:
            body.append(svg.line(at(mark), bottom, at(mark), bottom + 4, "grid"))
            body.append(
                svg.text(
                    at(mark), bottom + 16, percent(mark, 0) if fractions else f"{mark:g}", "tick", "middle"
                )
            )
    for i, (name, h) in enumerate(heights.items()):
        down = svg.scale(0, tallest, bottom, top)
        steps = [(x, down(value)) for k, value in enumerate(h) for x in (at(edges[k]), at(edges[k + 1]))]
        outline = [(at(edges[0]), bottom), *steps, (at(edges[-1]), bottom)]
        body.append(svg.curve(outline, f"c{i % 6}", DASHES[i % 6], name))
        middle = float(np.median(shown[name]))
        median = percent(middle) if fractions else f"{middle:.4g}"
        words = f"{shorten(name, 24)}: median {median} of {len(shown[name]):,}"
        body += svg.key(left, bottom + 34 + 17 * i, f"c{i % 6}", DASHES[i % 6], words)
    return svg.drawing(bottom + 26 + 17 * len(shown), title, body)


def strips(series: Mapping[str, NDArray[np.float64]], title: str) -> Markup:
    """The middle half (bar) and the median (dot) of a figure for every class; above ``MOST_CLASSES`` the ends."""
    order = sorted((c for c in series if len(series[c])), key=lambda c: float(np.median(series[c])))
    if len(order) > MOST_CLASSES:
        order = order[: MOST_CLASSES // 2] + order[-(MOST_CLASSES // 2) :]
    if not order:
        return Markup("")
    quarters = {c: [float(v) for v in np.quantile(series[c], [0.25, 0.5, 0.75])] for c in order}
    marks = svg.ticks(min(q[0] for q in quarters.values()), max(q[2] for q in quarters.values()))
    low, high = marks[0], marks[-1]
    left, right = 14 + 7.2 * max(columns(shorten(c, 17)) for c in order), WIDTH - 14
    bottom = 8 + 20 * len(order)
    at = svg.scale(low, high, left, right)
    body = []
    for mark in marks:
        body.append(svg.line(at(mark), 4, at(mark), bottom, "grid"))
        body.append(svg.text(at(mark), bottom + 14, percent(mark, 0), "tick", "middle"))
    for i, name in enumerate(order):
        y = 16 + 20 * i
        first, median, third = quarters[name]
        body.append(svg.text(left - 8, y + 4, shorten(name, 17), "name", "end", full=name))
        body.append(svg.line(at(first), y, at(third), y, "c0 bar"))
        body.append(
            svg.circle(
                at(median), y, 4, "c0 dot", f"{name}: median {percent(median)}, {len(series[name])} pictures"
            )
        )
    return svg.drawing(bottom + 18, title, body)


def shifts(rows: Sequence[Shift], names: tuple[str, str]) -> Markup:
    """Differences of simple figures in standard deviations, with their intervals, around 0; beyond 3 cut off."""
    if not rows:
        return Markup("")
    reach = 3.0
    top, step, left, right = 20, 34, 8, WIDTH - 8

    def at(value: float) -> float:
        return left + (right - left) * (min(max(value, -reach), reach) + reach) / (2 * reach)

    bottom = top + step * len(rows)
    body = [svg.text(left, 12, f"← more in {shorten(names[0], 16)}", "tick", "start")]
    body.append(svg.text(right, 12, f"more in {shorten(names[1], 16)} →", "tick", "end"))
    for mark in (-3, -2, -1, 0, 1, 2, 3):
        body.append(svg.line(at(mark), top, at(mark), bottom, "grid" if mark else "ideal"))
        body.append(svg.text(at(mark), bottom + 14, f"{mark:g}".replace("-", "\u2212"), "tick", "middle"))
    for i, row in enumerate(rows):
        y = top + step * i + 24
        value, low, high = row.effect
        colour = "c1" if abs(value) >= 0.2 and (low > 0 or high < 0) else "c9"
        body.append(svg.text(left, y - 9, row.name, "name", "start"))
        body.append(svg.line(at(low), y, at(high), y, f"{colour} bar"))
        body.append(
            svg.circle(at(value), y, 5, f"{colour} dot", f"{row.name}: {value:+.2f} standard deviations")
        )
    return svg.drawing(bottom + 18, "Shifts between the two sets in standard deviations", body)
