"""The page of ``handful moons``: a table, and each method's decision regions as a small drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from handful.files import write_atomic
from handful.report.templates import fill
from handful.report.words import percent
from handful.study.moons import Played

WIDTH, GAP, HEAD = 192, 12, 18
SHOWN = 300  # points that are drawn; all are scored
STYLE = """
.m0 { fill: #0072b2; } .m1 { fill: #e69f00; }
rect.m0, rect.m1 { opacity: .28; } circle { opacity: .75; }
.star { stroke: #000; stroke-width: .8; opacity: 1; }
text { font: 11px system-ui, sans-serif; fill: currentColor; }
"""


def panel(played: Played, x: float = 0, y: float = 0) -> Markup:
    """One method's regions, some of the points, and the labelled ones as stars; a group of SVG at (x, y)."""
    left, bottom, right, top = played.box
    scale = WIDTH / (right - left)
    rows, columns = played.region.shape
    cell, high = WIDTH / columns, (top - bottom) * scale / rows

    def at(point: Sequence[float]) -> tuple[float, float]:
        return (point[0] - left) * scale, (top - point[1]) * scale + HEAD

    name = f"{played.name.replace('meta-pseudo-labels,', 'MPL,')}: {percent(played.right)}"  # the panel is narrow
    body = [Markup('<text x="0" y="12">{}</text>').format(name)]
    for row, line in enumerate(played.region.tolist()):
        column = 0
        for kind, run in groupby(line):
            length = len(list(run))
            body.append(
                Markup('<rect class="m{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.2f}"/>').format(
                    kind, column * cell, HEAD + row * high, length * cell, high + 0.05
                )
            )
            column += length
    for row in range(0, len(played.points), max(1, len(played.points) // SHOWN)):
        px, py = at(played.points[row].tolist())
        dot = '<circle class="m{}" cx="{:.1f}" cy="{:.1f}" r="1.1"/>'
        body.append(Markup(dot).format(int(played.y[row]), px, py))
    for row in played.labelled.tolist():
        px, py = at(played.points[row].tolist())
        star = '<path class="star m{}" d="{}"/>'
        body.append(Markup(star).format(int(played.y[row]), _star(px, py, 5.0)))
    return (
        Markup('<g transform="translate({:.0f} {:.0f})">').format(x, y)
        + Markup("").join(body)
        + Markup("</g>")
    )


def drawing(played: Sequence[Played], across: int = 4) -> Markup:
    """A grid of panels as one SVG with its own style."""
    left, bottom, right, top = played[0].box
    step = HEAD + (top - bottom) * WIDTH / (right - left) + GAP
    down = -(-len(played) // across)
    width, height = across * (WIDTH + GAP) - GAP, down * step - GAP
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">'
        "<style>{}</style>"
    )
    title = "Decision regions of each method on two moons; labelled points are stars"
    panels = [panel(p, (i % across) * (WIDTH + GAP), (i // across) * step) for i, p in enumerate(played)]
    return (
        Markup(head).format(width, height, title, Markup(STYLE)) + Markup("").join(panels) + Markup("</svg>")
    )


def write(
    folder: Path, rows: Sequence[dict[str, Any]], played: Sequence[Played], about: dict[str, str]
) -> Path:
    """``moons.html`` and ``moons.svg`` in ``folder``; returns the page."""
    figure = drawing(played)
    page = fill("moons.html.j2", rows=rows, figure=figure, about=about, seed=played[0].seed)
    write_atomic(folder / "moons.svg", figure)
    write_atomic(folder / "moons.html", page)
    return folder / "moons.html"


def _star(x: float, y: float, size: float) -> str:
    """A five-pointed star as a path."""
    corners = []
    for i in range(10):
        radius = size if i % 2 == 0 else size * 0.45
        angle = math.pi * i / 5
        corners.append(f"{x + radius * math.sin(angle):.1f} {y - radius * math.cos(angle):.1f}")
    return f"M{'L'.join(corners)}Z"
