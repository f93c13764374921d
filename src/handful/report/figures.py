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
from unicodedata import east_asian_width

from markupsafe import Markup, escape

from handful.report.record import Thumb, Tried

WIDTH = 360
DASHES = ("", "5 3", "2 2", "8 3 2 3", "1 3", "10 4")
FEW = 10
MANY = 20
"""A confusion matrix of more classes than this is shown as a list of its worst pairs."""


def percent(fraction: float, digits: int = 1) -> str:
    """0.934 to "93.4 %", with a space that does not break."""
    return f"{100 * fraction:.{digits}f}\u00a0%"


def columns(text: str) -> int:
    """Width of ``text`` in Latin letters: Chinese, Japanese and Korean characters are twice as wide."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, length: int) -> str:
    """At most ``length`` columns, with an ellipsis in the middle: names often differ at their end."""
    if columns(text) <= length:
        return text
    head = tail = ""
    for front, back in zip(text, reversed(text)):
        if columns(head + front + tail) < length:
            head += front
        if columns(head + back + tail) < length:
            tail = back + tail
    return f"{head}…{tail}"


def dots(tried: Sequence[Tried]) -> Markup:
    """Accuracy with interval of each recipe in cross-validation; a dashed line marks the baseline."""
    rows = [t for t in tried if t.cv_accuracy is not None]
    ends = [x for t in rows for x in (t.cv_accuracy, *(t.cv_interval or ())) if x is not None]
    if not ends:
        return Markup("")
    low, high = math.floor(min(ends) * 10 - 1e-9) / 10, math.ceil(max(ends) * 10 + 1e-9) / 10
    low, high = max(low, 0.0), min(high, 1.0)
    left, right, step, top = 16, WIDTH - 62, 36, 8

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    bottom = top + step * len(rows) + 4
    ticks = max(1, round((high - low) * 10 / 5))
    body = []
    for i in range(0, round((high - low) * 10) + 1, ticks):
        value = low + i / 10
        body.append(_line(x(value), top, x(value), bottom, "grid"))
        body.append(_text(x(value), bottom + 14, percent(value, 0), "tick", "middle"))
    for t in rows:
        if t.baseline and t.cv_accuracy is not None:
            body.append(_line(x(t.cv_accuracy), top, x(t.cv_accuracy), bottom, "c1 thin", dash="4 3"))
    for i, t in enumerate(rows):
        y = top + i * step + 24
        colour = "c0" if t.chosen else "c1" if t.baseline else "c9"
        marks = [word for word, on in (("chosen", t.chosen), ("baseline", t.baseline)) if on]
        tail = f" ({', '.join(marks)})" if marks else ""
        name = shorten(t.name, 50 - len(tail)) + tail
        body.append(_text(0, y - 9, name, "name strong" if t.chosen else "name", "start"))
        if t.cv_interval:
            body.append(_line(x(t.cv_interval[0]), y, x(t.cv_interval[1]), y, f"{colour} bar"))
        hollow = "" if t.uses_unlabelled else " hollow"
        value = t.cv_accuracy or 0.0
        spoken = f"{t.name}: {percent(value)}"
        if t.cv_interval:
            spoken += f", 95 % interval {percent(t.cv_interval[0])} to {percent(t.cv_interval[1])}"
        body.append(_circle(x(value), y, 5, f"{colour} dot{hollow}", spoken))
        body.append(_text(WIDTH - 2, y + 4, percent(value), "value", "end"))
    return _svg(bottom + 18, "Accuracy of every recipe tried, with its interval", body)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], title: str, fractions: bool = False) -> Markup:
    """Curves against the step; ``fractions`` makes the axis percent. Long ones are thinned to 300 points."""
    shown = {name: _thin(points) for name, points in series.items() if points}
    xs = [p[0] for points in shown.values() for p in points]
    ys = [p[1] for points in shown.values() for p in points]
    if not xs:
        return Markup("")
    marks = _ticks(min(ys), max(ys))
    low, high = min(marks[0], min(ys)), max(marks[-1], max(ys))
    first, last = min(xs), max(xs)
    left, right, top, bottom = 46, WIDTH - 12, 8, 168

    def at(px: float, py: float) -> tuple[float, float]:
        across = (px - first) / (last - first) if last > first else 0.5
        return left + (right - left) * across, bottom - (bottom - top) * (py - low) / (high - low)

    body = []
    for mark in marks:
        y = at(first, mark)[1]
        body.append(_line(left, y, right, y, "grid"))
        body.append(_text(left - 5, y + 4, percent(mark, 0) if fractions else f"{mark:g}", "tick", "end"))
    for value, anchor in ((first, "start"), (last, "end")) if last > first else ((first, "middle"),):
        body.append(
            _text(at(value, low)[0], bottom + 15, f"{value:,.0f}".replace(",", "\u202f"), "tick", anchor)
        )
    body.append(
        _text((left + right) / 2, bottom + 15, "step", "tick", "middle") if last > first else Markup("")
    )
    for i, (name, points) in enumerate(shown.items()):
        colour, path = f"c{i % 6}", " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(*p) for p in points))
        body.append(
            Markup(
                '<polyline class="{} curve" points="{}" stroke-dasharray="{}"><title>{}</title></polyline>'
            ).format(colour, path, DASHES[i % 6], name)
        )
        if len(points) <= 30:
            body += [
                _circle(*at(*p), 2.5, f"{colour} dot", f"{name}, step {p[0]:g}: {p[1]:.4g}") for p in points
            ]
        y, x0 = bottom + 34 + 17 * i, left
        end = percent(points[-1][1]) if fractions else f"{points[-1][1]:.4g}"
        body.append(_line(x0, y - 4, x0 + 24, y - 4, f"{colour} curve", dash=DASHES[i % 6]))
        body.append(
            _text(x0 + 30, y, f"{shorten(name, 28).replace('_', ' ')}, at the end {end}", "name", "start")
        )
    return _svg(bottom + 26 + 17 * len(shown), title, body)


def own_curve(
    measured: Sequence[tuple[int, float]], expected: Sequence[tuple[int, float, float, float]]
) -> Markup:
    """Accuracy against labels per class (log scale): measured points, then (labels, accuracy, low, high)."""
    every = [n for n, *_ in (*measured, *expected)]
    values = [a for _, *rest in (*measured, *expected) for a in rest]
    if not measured or not expected:
        return Markup("")
    first, last = math.log(min(every)), math.log(max(every))
    marks = _ticks(min(values), max(values))
    low, high = marks[0], max(marks[-1], max(values))
    left, right, top, bottom = 46, WIDTH - 14, 10, 190

    def at(n: float, accuracy: float) -> tuple[float, float]:
        across = (math.log(n) - first) / (last - first) if last > first else 0.5
        return left + (right - left) * across, bottom - (bottom - top) * (accuracy - low) / (high - low)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in points))

    body = []
    for mark in marks:
        y = at(min(every), mark)[1]
        body.append(_line(left, y, right, y, "grid"))
        body.append(_text(left - 5, y + 4, percent(mark, 0), "tick", "end"))
    taken = -99.0
    for n in sorted(set(every)):
        x = at(n, low)[0]
        if x - taken >= 24:  # further apart than the numbers are wide
            body.append(_text(x, bottom + 15, str(n), "tick", "middle"))
            taken = x
    body.append(_text((left + right) / 2, bottom + 31, "labels per class", "tick", "middle"))
    band = [(n, up) for n, _, _, up in expected] + [(n, down) for n, _, down, _ in reversed(expected)]
    body.append(Markup('<polygon class="band-fill" points="{}"/>').format(path(band)))
    series = [("c0", "", measured), ("c1", "5 3", [measured[-1], *((n, a) for n, a, _, _ in expected)])]
    for colour, dash, points in series:
        text = '<polyline class="{} curve" points="{}" stroke-dasharray="{}"/>'
        body.append(Markup(text).format(colour, path(points), dash))
    body += [_circle(*at(*p), 3.5, "c0 dot", f"{p[0]} labels per class: {percent(p[1])}") for p in measured]
    for n, a, down, up in expected:
        spoken = f"{n} labels per class: {percent(a)} expected, {percent(down)} to {percent(up)}"
        body.append(_circle(*at(n, a), 3.5, "c1 dot hollow", spoken))
    return _svg(bottom + 38, "Accuracy against labels per class, measured and expected", body)


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
        _text(margin + cell * k / 2, 11, "predicted", "tick", "middle"),
        _text(0, 0, "true class", "tick", "middle", turn=(9, top + cell * k / 2, -90)),
    ]
    for i, name in enumerate(classes):
        label, middle = shorten(name, 14), margin + cell * (i + 0.5)
        body.append(_text(margin - 4, top + cell * (i + 0.5) + size * 0.35, label, "name", "end", size, name))
        if upright:
            body.append(_text(middle, top - 5, label, "name", "middle", size, name))
        else:
            body.append(_text(0, 0, label, "name", "start", size, name, (middle + size * 0.35, top - 4, -90)))
    for i, row in enumerate(matrix):
        total = sum(row) or 1
        for j, count in enumerate(row):
            share = count / total
            x, y = margin + cell * j, top + cell * i
            colour = "good" if i == j else "bad"
            strength = 0.12 + 0.88 * share if count else 0
            tip = f"true {classes[i]}, predicted {classes[j]}: {count} of {sum(row)}"
            place = (x, y, cell - 1, cell - 1)
            body += [Markup("<g><title>{}</title>").format(tip), _box(*place, "cell")]
            body.append(_box(*place, colour, opacity=strength))
            if count:
                ink, digits = ("count on" if strength > 0.55 else "count"), len(str(count))
                fits = min(size + 1, cell * 0.72, cell / (0.76 * digits))
                body.append(
                    _text(x + cell / 2 - 0.5, y + cell / 2 + fits * 0.34, str(count), ink, "middle", fits)
                )
            body.append(Markup("</g>"))
    return _svg(top + cell * k + 2, "Confusion matrix", body)


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
    body = []
    for i, (truth, predicted, count, total) in enumerate(pairs):
        y = 36 * i
        name = f"{shorten(truth, 19)} → {shorten(predicted, 19)}"
        body.append(_text(0, y + 14, name, "name", "start", full=f"{truth} called {predicted}"))
        body.append(_text(WIDTH - 2, y + 14, f"{count} of {total}", "value", "end"))
        body.append(_box(0, y + 20, WIDTH - 2, 8, "cell"))
        body.append(_box(0, y + 20, (WIDTH - 2) * count / total, 8, "bad"))
    return _svg(36 * len(pairs), "Most confused pairs of classes", body) if pairs else Markup("")


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
        body.append(_line(left, y, left + side, y, "grid"))
        body.append(_line(x, top, x, top + side, "grid"))
        body.append(_text(left - 5, y + 4, percent(i / 5, 0), "tick", "end"))
        body.append(_text(x, top + side + 14, percent(i / 5, 0), "tick", "middle"))
    body.append(_line(*at(0, 0), *at(1, 1), "ideal", dash="2 3"))
    body.append(_text(left + side / 2, top + side + 30, "confidence", "tick", "middle"))
    body.append(_text(0, 0, "how often right", "tick", "middle", turn=(9, top + side / 2, -90)))
    most = max((n for *_, n in (*before, *after)), default=1)
    for i, (name, bins) in enumerate((("before temperature scaling", before), ("after", after))):
        colour, dash = ("c1", "5 3") if i == 0 else ("c0", "")
        path = " ".join(
            "{:.1f},{:.1f}".format(*at(c, a)) for c, a, n in bins if n >= FEW
        )  # no line through chance
        body.append(
            Markup('<polyline class="{} curve" points="{}" stroke-dasharray="{}"/>').format(
                colour, path, dash
            )
        )
        for c, a, n in bins:
            spoken = f"{name}: confidence {percent(c)}, right {percent(a)} of {n}"
            hollow = " hollow" if i == 0 else ""
            body.append(_circle(*at(c, a), 2.5 + 5 * math.sqrt(n / most), f"{colour} dot{hollow}", spoken))
        y = top + side + 50 + 17 * i
        body.append(_line(left, y - 4, left + 24, y - 4, f"{colour} curve", dash=dash))
        body.append(_circle(left + 12, y - 4, 4, f"{colour} dot{' hollow' if i == 0 else ''}", name))
        body.append(_text(left + 30, y, name, "name", "start"))
    return _svg(top + side + 74, "Reliability: confidence against accuracy", body)


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
        body.append(_box(x, 3, 11, 11, f"f{i % 6}"))
        body.append(_text(x + 16, 13, split, "name", "start"))
        x += 30 + 7 * len(split)
    for i, name in enumerate(names):
        y, start = 24 + 20 * i, float(left)
        body.append(_text(left - 6, y + 12, shorten(name, 17), "name", "end", full=name))
        for j, split in enumerate(splits):
            n = counts[name].get(split, 0)
            width = (right - left) * n / widest
            if n:
                body.append(_box(start, y, max(width, 1.5), 15, f"f{j % 6}", f"{name}, {split}: {n}"))
            start += width
        body.append(_text(start + 5, y + 12, str(sum(counts[name].values())), "value", "start"))
    return _svg(26 + 20 * len(names), "Pictures per class", body)


def gauge(value: float, interval: tuple[float, float] | None) -> Markup:
    """A bar from 0 to 100 % with the value and its interval."""
    body = [_box(0, 8, WIDTH, 6, "cell")]
    if interval:
        low, high = interval
        body.append(_box(WIDTH * low, 4, max(WIDTH * (high - low), 2), 14, "span"))
    body.append(_box(min(max(WIDTH * value - 1.5, 0), WIDTH - 3), 0, 3, 22, "f0"))
    spoken = f"Accuracy {percent(value)}"
    if interval:
        spoken += f", 95 % interval {percent(interval[0])} to {percent(interval[1])}"
    return _svg(22, spoken, body)


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


def _svg(height: float, title: str, body: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}"><title>{}</title>')
    return head.format(WIDTH, height, title, title) + Markup("").join(body) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, dash: str = "") -> Markup:
    text = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke-dasharray="{}"/>'
    return Markup(text).format(kind, x1, y1, x2, y2, dash or "none")


def _circle(x: float, y: float, radius: float, kind: str, title: str) -> Markup:
    text = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
    return Markup(text).format(kind, x, y, radius, title)


def _box(
    x: float, y: float, width: float, height: float, kind: str, title: str = "", opacity: float = 1.0
) -> Markup:
    head = Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.2g}">'
    )
    told = Markup("<title>{}</title>").format(title) if title else Markup("")
    return head.format(kind, x, y, width, height, opacity) + told + Markup("</rect>")


def _text(
    x: float,
    y: float,
    text: str,
    kind: str,
    anchor: str,
    size: float | None = None,
    full: str = "",
    turn: tuple[float, float, float] | None = None,
) -> Markup:
    """``full`` is told on hovering if ``text`` is shorter; ``turn`` = (x, y, degrees) moves and turns."""
    extra = Markup(' style="font-size:{:.1f}px"').format(size) if size else Markup("")
    if turn:
        extra += Markup(' transform="translate({:.1f} {:.1f}) rotate({:g})"').format(*turn)
    told = Markup("<title>{}</title>").format(full) if full and full != text else Markup("")
    head = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>').format(
        kind, x, y, anchor, extra
    )
    return head + escape(text) + told + Markup("</text>")


def _thin(points: Sequence[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most ``most`` points, first and last kept: each stands for a run of steps by the run's mean."""
    if len(points) <= most:
        return list(points)
    edges = [1 + round(i * (len(points) - 2) / (most - 2)) for i in range(most - 1)]
    runs = [points[a:b] for a, b in pairwise(edges)]
    middle = [(sum(p[0] for p in run) / len(run), sum(p[1] for p in run) / len(run)) for run in runs if run]
    return [points[0], *middle, points[-1]]


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover [low, high]."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
