"""Figures of the page of a network: curves on a logarithmic scale, bars, and heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from handful.report import svg
from handful.report.svg import DASHES, WIDTH
from handful.report.words import percent, shorten

LOWEST = 1e-20  # smaller norms are drawn here


def norms(series: Mapping[str, Sequence[float]], title: str) -> Markup:
    """Positive figures of layers in order, input to output, on a logarithmic scale; 0 and what is not finite is left
    out, and the legend says so."""
    shown = {
        name: [(i, max(v, LOWEST)) for i, v in enumerate(values) if v > 0 and math.isfinite(v)]
        for name, values in series.items()
    }
    every = [v for points in shown.values() for _, v in points]
    if not every:
        return Markup("")
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)
    step = max(1, math.ceil((high - low) / 6))
    left, right, top, bottom = 46, WIDTH - 12, 8, 168

    down = svg.scale(low, high, bottom, top)
    body = svg.levels(range(low, high + 1, step), down, left, right, lambda power: power_of_ten(int(power)))
    body.append(svg.text(left, bottom + 15, "input", "tick", "start"))
    body.append(svg.text(right, bottom + 15, "output", "tick", "end"))
    for i, (name, points) in enumerate(shown.items()):
        n = len(series[name])
        across = svg.scale(0, max(1, n - 1), left, right)
        body.append(
            svg.curve([(across(k), down(math.log10(v))) for k, v in points], f"c{i % 6}", DASHES[i % 6], name)
        )
        lost = n - len(points)
        words = f"{name}{f' ({lost} not finite or 0)' if lost else ''}"
        body += svg.key(left, bottom + 34 + 17 * i, f"c{i % 6}", DASHES[i % 6], shorten(words, 42), words)
    return svg.drawing(bottom + 26 + 17 * len(shown), title, body)


def power_of_ten(power: int) -> str:
    """-3 to "10⁻³"."""
    return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(c)] if c != "-" else "⁻" for c in str(power))


def bars(series: Mapping[str, Sequence[float]], title: str, under: str) -> Markup:
    """Shares at 0, 1, 2 … as bars beside each other, one colour for each of at most three series."""
    n = max((len(v) for v in series.values()), default=0)
    tallest = max((max(v, default=0.0) for v in series.values()), default=0.0)
    if not n or tallest <= 0:
        return Markup("")
    left, right, top, bottom = 46, WIDTH - 8, 8, 140
    wide = (right - left) / n
    body = svg.levels(
        (0.0, tallest / 2, tallest),
        svg.scale(0, tallest, bottom, top),
        left,
        right,
        lambda v: percent(v, 0 if tallest > 0.04 else 1),
    )
    for i, (name, values) in enumerate(series.items()):
        thin = wide * 0.84 / len(series)
        for k, value in enumerate(values):
            x, height = left + wide * k + wide * 0.08 + thin * i, (bottom - top) * value / tallest
            body.append(svg.box(x, bottom - height, thin, height, f"f{i}", f"{name}, {k}: {percent(value)}"))
        y = bottom + 50 + 17 * i
        body.append(svg.box(left, y - 10, 20, 10, f"f{i}"))
        body.append(svg.text(left + 30, y, name, "name", "start"))
    every = max(1, math.ceil(n / 14))
    for k in range(0, n, every):
        body.append(svg.text(left + wide * (k + 0.5), bottom + 14, str(k), "tick", "middle"))
    body.append(svg.text((left + right) / 2, bottom + 30, under, "tick", "middle"))
    return svg.drawing(bottom + 42 + 17 * len(series), title, body)


def accuracies(values: Mapping[str, tuple[float, float | None]], title: str) -> Markup:
    """Shares from 0 to 1 by name, as bars below each other; a tick marks a second share (such as chance)."""
    body: list[Markup] = []
    for i, (name, (value, mark)) in enumerate(values.items()):
        y = 36 * i
        body += svg.share_bar(y, shorten(name, 40), percent(value), value, "f0", name)
        if mark is not None:
            body.append(svg.circle((WIDTH - 2) * mark, y + 24, 3, "c1 dot", f"{name}: {percent(mark)}"))
    return svg.drawing(36 * len(values), title, body) if values else Markup("")


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[H, W] of shares to colours, uint8 [3, H, W]: dark blue, then light blue, white; by the root, so that small
    values show."""
    stops = np.array([[8, 18, 42], [0, 95, 160], [86, 180, 233], [255, 255, 255]], dtype=float)
    t = np.sqrt(np.clip(values, 0, 1)) * (len(stops) - 1)
    low = np.minimum(t.astype(int), len(stops) - 2)
    part = (t - low)[..., None]
    return np.round(stops[low] * (1 - part) + stops[low + 1] * part).astype(np.uint8).transpose(2, 0, 1)


def overlay(picture: NDArray[np.uint8], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture [C, H, W] in gray where the map [H, W] (shares of its largest) is low, orange where it is high."""
    gray = picture.astype(float).mean(0)
    hot = np.array([213, 94, 0], dtype=float)[:, None, None]
    share = 0.75 * np.clip(values, 0, 1)[None]
    return np.round((1 - share) * gray[None] + share * (0.35 * gray[None] + 0.65 * hot)).astype(np.uint8)
