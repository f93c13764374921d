"""Parts of a drawing as SVG: lines, points, boxes, texts, axes. Names are escaped.

Colours and sizes are the classes of the page's style sheet: ``c0`` ... ``c5`` for lines, ``f0`` ... ``f5`` for areas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

WIDTH = 360
DASHES = ("", "5 3", "2 2", "8 3 2 3", "1 3", "10 4")


def drawing(height: float, title: str, body: Sequence[Markup]) -> Markup:
    """The whole drawing, ``WIDTH`` wide, of these parts."""
    head = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}"><title>{}</title>')
    return head.format(WIDTH, height, title, title) + Markup("").join(body) + Markup("</svg>")


def line(x1: float, y1: float, x2: float, y2: float, kind: str, dash: str = "") -> Markup:
    """A line from (x1, y1) to (x2, y2)."""
    tag = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke-dasharray="{}"/>'
    return Markup(tag).format(kind, x1, y1, x2, y2, dash or "none")


def circle(x: float, y: float, radius: float, kind: str, title: str) -> Markup:
    """A point; ``title`` is shown on hovering."""
    tag = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
    return Markup(tag).format(kind, x, y, radius, title)


def box(
    x: float, y: float, width: float, height: float, kind: str, title: str = "", opacity: float = 1.0
) -> Markup:
    """A rectangle; ``title`` is shown on hovering."""
    head = Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.2g}">'
    )
    shown = Markup("<title>{}</title>").format(title) if title else Markup("")
    return head.format(kind, x, y, width, height, opacity) + shown + Markup("</rect>")


def text(
    x: float,
    y: float,
    words: str,
    kind: str,
    anchor: str,
    size: float | None = None,
    full: str = "",
    turn: tuple[float, float, float] | None = None,
) -> Markup:
    """``full`` is shown on hovering if ``words`` are shorter; ``turn`` = (x, y, degrees) moves and turns."""
    extra = Markup(' style="font-size:{:.1f}px"').format(size) if size else Markup("")
    if turn:
        extra += Markup(' transform="translate({:.1f} {:.1f}) rotate({:g})"').format(*turn)
    shown = Markup("<title>{}</title>").format(full) if full and full != words else Markup("")
    head = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>').format(
        kind, x, y, anchor, extra
    )
    return head + escape(words) + shown + Markup("</text>")


def curve(points: Iterable[tuple[float, float]], kind: str, dash: str = "", title: str = "") -> Markup:
    """A line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    tag = Markup('<polyline class="{} curve" points="{}" stroke-dasharray="{}"').format(kind, path, dash)
    return tag + (Markup("><title>{}</title></polyline>").format(title) if title else Markup("/>"))


def key(x: float, y: float, kind: str, dash: str, words: str, full: str = "") -> list[Markup]:
    """A row of a legend: a piece of the curve and its name."""
    return [
        line(x, y - 4, x + 24, y - 4, f"{kind} curve", dash),
        text(x + 30, y, words, "name", "start", full=full),
    ]


def share_bar(y: float, name: str, value: str, share: float, kind: str, full: str) -> list[Markup]:
    """A name, a value, and below them a bar that is filled to ``share``, 0 to 1."""
    return [
        text(0, y + 14, name, "name", "start", full=full),
        text(WIDTH - 2, y + 14, value, "value", "end"),
        box(0, y + 20, WIDTH - 2, 8, "cell"),
        box(0, y + 20, (WIDTH - 2) * share, 8, kind),
    ]


def levels(
    marks: Sequence[float],
    down: Callable[[float], float],
    left: float,
    right: float,
    words: Callable[[float], str],
) -> list[Markup]:
    """Horizontal grid lines with their values on the left."""
    body = []
    for mark in marks:
        body.append(line(left, down(mark), right, down(mark), "grid"))
        body.append(text(left - 5, down(mark) + 4, words(mark), "tick", "end"))
    return body


def scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    """Values from ``low`` to ``high`` to positions from ``first`` to ``last``; the middle where there is one value."""
    if high <= low:
        return lambda value: (first + last) / 2
    return lambda value: first + (last - first) * (value - low) / (high - low)


def log_scale(first: float, last: float, left: float, right: float) -> Callable[[float], float]:
    """Positive numbers to positions on a logarithmic axis, held inside it."""
    across = scale(math.log(first), math.log(last), left, right)
    return lambda value: min(max(across(math.log(value)), left), right)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover [low, high]."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
