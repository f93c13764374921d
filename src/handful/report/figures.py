"""Figures as inline SVG: no plotting library, no script, text stays text.

Every function returns one ``<svg>`` (or ``<img>``) as Markup, with all names escaped. Colours are the
classes ``c0`` ... ``c5`` and the variables that the page's style sheet sets for light, dark and print; the
hues are those of Okabe and Ito, told apart with any kind of colour vision, and series differ in their dashes
too. Drawings are 360 units wide, about the width of a phone, so that their text is never too small.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from handful.report import svg
from handful.report.record import Thumb, Tried
from handful.report.svg import DASHES, WIDTH
from handful.report.words import columns, percent, shorten, with_interval

FEW = 10
MANY = 20
"""A confusion matrix of more classes than this is shown as a list of its worst pairs."""


def dots(tried: Sequence[Tried]) -> Markup:
    """Accuracy with interval of each recipe in cross-validation; a dashed line marks the baseline."""
    rows = [t for t in tried if t.cv_accuracy is not None]
    ends = [x for t in rows for x in (t.cv_accuracy, *(t.cv_interval or ())) if x is not None]
    if not ends:
        return Markup("")
    low, high = math.floor(min(ends) * 10 - 1e-9) / 10, math.ceil(max(ends) * 10 + 1e-9) / 10
    low, high = max(low, 0.0), min(high, 1.0)
    left, right, step, top = 16, WIDTH - 62, 36, 8

    x = svg.scale(low, high, left, right)
    bottom = top + step * len(rows) + 4
    ticks = max(1, round((high - low) * 10 / 5))
    body = []
    for i in range(0, round((high - low) * 10) + 1, ticks):
        value = low + i / 10
        body.append(svg.line(x(value), top, x(value), bottom, "grid"))
        body.append(svg.text(x(value), bottom + 14, percent(value, 0), "tick", "middle"))
    for t in rows:
        if t.baseline and t.cv_accuracy is not None:
            body.append(svg.line(x(t.cv_accuracy), top, x(t.cv_accuracy), bottom, "c1 thin", dash="4 3"))
    for i, t in enumerate(rows):
        y = top + i * step + 24
        colour = "c0" if t.chosen else "c1" if t.baseline else "c9"
        marks = [word for word, on in (("chosen", t.chosen), ("baseline", t.baseline)) if on]
        tail = f" ({', '.join(marks)})" if marks else ""
        name = shorten(t.name, 50 - len(tail)) + tail
        body.append(svg.text(0, y - 9, name, "name strong" if t.chosen else "name", "start"))
        if t.cv_interval:
            body.append(svg.line(x(t.cv_interval[0]), y, x(t.cv_interval[1]), y, f"{colour} bar"))
        hollow = "" if t.uses_unlabelled else " hollow"
        value = t.cv_accuracy or 0.0
        spoken = f"{t.name}: {with_interval(value, t.cv_interval)}"
        body.append(svg.circle(x(value), y, 5, f"{colour} dot{hollow}", spoken))
        body.append(svg.text(WIDTH - 2, y + 4, percent(value), "value", "end"))
    return svg.drawing(bottom + 18, "Accuracy of every recipe tried, with its interval", body)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], title: str, fractions: bool = False) -> Markup:
    """Curves against the step; ``fractions`` makes the axis percent. Long ones are thinned to 300 points."""
    shown = {name: _thin(points) for name, points in series.items() if points}
    xs = [p[0] for points in shown.values() for p in points]
    ys = [p[1] for points in shown.values() for p in points]
    if not xs:
        return Markup("")
    marks = svg.ticks(min(ys), max(ys))
    first, last = min(xs), max(xs)
    left, right, top, bottom = 46, WIDTH - 12, 8, 168

    across, down = svg.scale(first, last, left, right), svg.scale(marks[0], marks[-1], bottom, top)
    body = svg.levels(marks, down, left, right, lambda v: percent(v, 0) if fractions else f"{v:g}")
    for value, anchor in ((first, "start"), (last, "end")) if last > first else ((first, "middle"),):
        words = f"{value:,.0f}".replace(",", "\u202f")
        body.append(svg.text(across(value), bottom + 15, words, "tick", anchor))
    if last > first:
        body.append(svg.text((left + right) / 2, bottom + 15, "step", "tick", "middle"))
    for i, (name, points) in enumerate(shown.items()):
        colour, dash = f"c{i % 6}", DASHES[i % 6]
        body.append(svg.curve([(across(x), down(y)) for x, y in points], colour, dash, name))
        if len(points) <= 30:
            body += [
                svg.circle(across(x), down(y), 2.5, f"{colour} dot", f"{name}, step {x:g}: {y:.4g}")
                for x, y in points
            ]
        end = percent(points[-1][1]) if fractions else f"{points[-1][1]:.4g}"
        words = f"{shorten(name, 28).replace('_', ' ')}, at the end {end}"
        body += svg.key(left, bottom + 34 + 17 * i, colour, dash, words)
    return svg.drawing(bottom + 26 + 17 * len(shown), title, body)


def own_curve(
    measured: Sequence[tuple[int, float]], expected: Sequence[tuple[int, float, float, float]]
) -> Markup:
    """Accuracy against labels per class (log scale): measured points, then (labels, accuracy, low, high)."""
    every = [n for n, *_ in (*measured, *expected)]
    values = [a for _, *rest in (*measured, *expected) for a in rest]
    if not measured or not expected:
        return Markup("")
    marks = svg.ticks(min(values), max(values))
    left, right, top, bottom = 46, WIDTH - 14, 10, 190
    across = svg.log_scale(min(every), max(every), left, right)
    down = svg.scale(marks[0], marks[-1], bottom, top)
    body = svg.levels(marks, down, left, right, lambda v: percent(v, 0))
    taken = -99.0
    for n in sorted(set(every)):
        x = across(n)
        if x - taken >= 24:  # further apart than the numbers are wide
            body.append(svg.text(x, bottom + 15, str(n), "tick", "middle"))
            taken = x
    body.append(svg.text((left + right) / 2, bottom + 31, "labels per class", "tick", "middle"))
    band = [(n, up) for n, _, _, up in expected] + [(n, low) for n, _, low, _ in reversed(expected)]
    path = " ".join(f"{across(n):.1f},{down(a):.1f}" for n, a in band)
    body.append(Markup('<polygon class="band-fill" points="{}"/>').format(path))
    series = [("c0", "", measured), ("c1", "5 3", [measured[-1], *((n, a) for n, a, _, _ in expected)])]
    for colour, dash, points in series:
        body.append(svg.curve([(across(n), down(a)) for n, a in points], colour, dash))
    for n, a in measured:
        body.append(svg.circle(across(n), down(a), 3.5, "c0 dot", f"{n} labels per class: {percent(a)}"))
    for n, a, low, high in expected:
        spoken = f"{n} labels per class: {percent(a)} expected, {percent(low)} to {percent(high)}"
        body.append(svg.circle(across(n), down(a), 3.5, "c1 dot hollow", spoken))
    return svg.drawing(bottom + 38, "Accuracy against labels per class, measured and expected", body)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """Heat cells with counts, row = truth, column = predicted; above 20 classes the most confused pairs.

    ``matrix`` is [K, K]; cells are coloured by their share of the row. Raises ValueError where the number of
    names is another than K.
    """
    k = len(matrix)
    if k != len(classes) or any(len(row) != k for row in matrix):
        raise ValueError(f"{len(classes)} class names for a confusion matrix of {k} rows")
    if k > MANY:
        return confused_bars(matrix, classes)
    longest = max((columns(shorten(c, 14)) for c in classes), default=1)
    size = max(7.0, min(12.0, 150 / k))
    margin = min(112.0, 24 + longest * size * 0.56)
    cell = (WIDTH - margin - 2) / k
    upright = longest * size * 0.56 <= cell
    top = size + 22 if upright else margin + 8
    body = [
        svg.text(margin + cell * k / 2, 11, "predicted", "tick", "middle"),
        svg.text(0, 0, "true class", "tick", "middle", turn=(9, top + cell * k / 2, -90)),
    ]
    for i, name in enumerate(classes):
        label, middle = shorten(name, 14), margin + cell * (i + 0.5)
        body.append(
            svg.text(margin - 4, top + cell * (i + 0.5) + size * 0.35, label, "name", "end", size, name)
        )
        if upright:
            body.append(svg.text(middle, top - 5, label, "name", "middle", size, name))
        else:
            body.append(
                svg.text(0, 0, label, "name", "start", size, name, (middle + size * 0.35, top - 4, -90))
            )
    for i, row in enumerate(matrix):
        total = sum(row) or 1
        for j, count in enumerate(row):
            share = count / total
            x, y = margin + cell * j, top + cell * i
            colour = "good" if i == j else "bad"
            strength = 0.12 + 0.88 * share if count else 0
            tip = f"true {classes[i]}, predicted {classes[j]}: {count} of {sum(row)}"
            place = (x, y, cell - 1, cell - 1)
            body += [Markup("<g><title>{}</title>").format(tip), svg.box(*place, "cell")]
            body.append(svg.box(*place, colour, opacity=strength))
            if count:
                ink, digits = ("count on" if strength > 0.55 else "count"), len(str(count))
                fits = min(size + 1, cell * 0.72, cell / (0.76 * digits))
                body.append(
                    svg.text(x + cell / 2 - 0.5, y + cell / 2 + fits * 0.34, str(count), ink, "middle", fits)
                )
            body.append(Markup("</g>"))
    return svg.drawing(top + cell * k + 2, "Confusion matrix", body)


def worst_pairs(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, int]]:
    """(true class, predicted class, times, pictures of the true class), most frequent first, no zeros."""
    pairs = [
        (classes[i], classes[j], count, sum(row))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda p: (-p[2], p[3], p[0], p[1]))


def confused_bars(matrix: Sequence[Sequence[int]], classes: Sequence[str], top: int = 15) -> Markup:
    """The ``top`` most confused pairs as bars: share of the true class that was called the other one."""
    pairs = worst_pairs(matrix, classes)[:top]
    body: list[Markup] = []
    for i, (truth, predicted, count, total) in enumerate(pairs):
        name, full = f"{shorten(truth, 19)} → {shorten(predicted, 19)}", f"{truth} called {predicted}"
        body += svg.share_bar(36 * i, name, f"{count} of {total}", count / total, "bad", full)
    return svg.drawing(36 * len(pairs), "Most confused pairs of classes", body) if pairs else Markup("")


def reliability(
    before: Sequence[tuple[float, float, int]], after: Sequence[tuple[float, float, int]]
) -> Markup:
    """Accuracy against confidence in bins (confidence, accuracy, n); a larger point holds more pictures, and bins of
    fewer than FEW are not joined to the others."""
    left, top, side = 58, 8, 280

    def at(c: float, a: float) -> tuple[float, float]:
        return left + side * c, top + side * (1 - a)

    body = []
    for i in range(6):
        x, y = at(i / 5, i / 5)
        body.append(svg.line(left, y, left + side, y, "grid"))
        body.append(svg.line(x, top, x, top + side, "grid"))
        body.append(svg.text(left - 5, y + 4, percent(i / 5, 0), "tick", "end"))
        body.append(svg.text(x, top + side + 14, percent(i / 5, 0), "tick", "middle"))
    body.append(svg.line(*at(0, 0), *at(1, 1), "ideal", dash="2 3"))
    body.append(svg.text(left + side / 2, top + side + 30, "confidence", "tick", "middle"))
    body.append(svg.text(0, 0, "how often right", "tick", "middle", turn=(9, top + side / 2, -90)))
    most = max((n for *_, n in (*before, *after)), default=1)
    for i, (name, bins) in enumerate((("before temperature scaling", before), ("after", after))):
        colour, dash = ("c1", "5 3") if i == 0 else ("c0", "")
        joined = [at(c, a) for c, a, n in bins if n >= FEW]  # no line through chance
        body.append(svg.curve(joined, colour, dash))
        for c, a, n in bins:
            spoken = f"{name}: confidence {percent(c)}, right {percent(a)} of {n}"
            hollow = " hollow" if i == 0 else ""
            body.append(svg.circle(*at(c, a), 2.5 + 5 * math.sqrt(n / most), f"{colour} dot{hollow}", spoken))
        y = top + side + 50 + 17 * i
        body += svg.key(left, y, colour, dash, name)
        body.append(svg.circle(left + 12, y - 4, 4, f"{colour} dot{' hollow' if i == 0 else ''}", name))
    return svg.drawing(top + side + 74, "Reliability: confidence against accuracy", body)


def balance(counts: Mapping[str, Mapping[str, int]], most: int = 40) -> Markup:
    """Stacked bars of pictures per class and split; above ``most`` classes, the largest and smallest."""
    order = sorted(counts, key=lambda c: -sum(counts[c].values()))
    names = list(counts) if len(order) <= most else order[: most // 2] + order[-(most // 2) :]
    splits = list(dict.fromkeys(s for row in counts.values() for s in row))
    widest = max((sum(counts[c].values()) for c in names), default=0)
    if not widest:
        return Markup("")
    longest = max(columns(shorten(c, 17)) for c in names)
    left = 14 + longest * 7.2
    right = WIDTH - 34
    body, x = [], 0.0
    for i, split in enumerate(splits):
        body.append(svg.box(x, 3, 11, 11, f"f{i % 6}"))
        body.append(svg.text(x + 16, 13, split, "name", "start"))
        x += 30 + 7 * len(split)
    for i, name in enumerate(names):
        y, start = 24 + 20 * i, float(left)
        body.append(svg.text(left - 6, y + 12, shorten(name, 17), "name", "end", full=name))
        for j, split in enumerate(splits):
            n = counts[name].get(split, 0)
            width = (right - left) * n / widest
            if n:
                body.append(svg.box(start, y, max(width, 1.5), 15, f"f{j % 6}", f"{name}, {split}: {n}"))
            start += width
        body.append(svg.text(start + 5, y + 12, str(sum(counts[name].values())), "value", "start"))
    return svg.drawing(26 + 20 * len(names), "Pictures per class", body)


def gauge(value: float, interval: tuple[float, float] | None) -> Markup:
    """A bar from 0 to 100 % with the value and its interval."""
    body = [svg.box(0, 8, WIDTH, 6, "cell")]
    if interval:
        low, high = interval
        body.append(svg.box(WIDTH * low, 4, max(WIDTH * (high - low), 2), 14, "span"))
    body.append(svg.box(min(max(WIDTH * value - 1.5, 0), WIDTH - 3), 0, 3, 22, "f0"))
    return svg.drawing(22, f"Accuracy {with_interval(value, interval)}", body)


def picture(thumb: Thumb, largest: int = 144) -> Markup:
    """An ``<img>`` with its data inside: PNG for tiny pictures, shown as crisp squares; JPEG for others."""
    shown = thumb.to_pil(largest)
    data, tiny = io.BytesIO(), max(shown.size) <= 48
    if tiny or shown.mode == "RGBA":
        shown.save(data, "PNG", optimize=True)
    else:
        shown.save(data, "JPEG", quality=82, optimize=True)
    kind = "png" if tiny or shown.mode == "RGBA" else "jpeg"
    text = base64.b64encode(data.getvalue()).decode("ascii")
    spoken = thumb.caption or thumb.truth or thumb.label or "picture"
    return Markup('<img{} src="data:image/{};base64,{}" alt="{}" width="{}" height="{}">').format(
        Markup(' class="tiny"') if tiny else "", kind, text, spoken, *shown.size
    )


def _thin(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most ``most`` points, first and last kept: each stands for a run of steps by the run's mean."""
    if len(points) <= most:
        return list(points)
    edges = [1 + round(i * (len(points) - 2) / (most - 2)) for i in range(most - 1)]
    runs = [points[a:b] for a, b in pairwise(edges)]
    middle = [(sum(p[0] for p in run) / len(run), sum(p[1] for p in run) / len(run)) for run in runs if run]
    return [points[0], *middle, points[-1]]
