"""Figures and names as the words of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unicodedata import east_asian_width

from markupsafe import Markup, escape

from handful.data.audit import WORDS

MINUS, THIN = "\u2212", "\u202f"


def percent(fraction: float, digits: int = 1) -> str:
    """0.934 to "93.4 %", with a space that does not break."""
    return f"{100 * fraction:.{digits}f}\u00a0%"


def sure(confidence: float) -> str:
    """0.832 to "83 %"; close to certain with a digit more, and never rounded up to 100 %."""
    if 0.99 <= confidence < 1:
        return f"{math.floor(1000 * confidence) / 10:.1f}\u00a0%"
    return percent(confidence, 0)


def span(interval: tuple[float, float] | None) -> str:
    """(0.88, 0.94) to "88.0 to 94.0 %"; nothing for None."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {percent(interval[1])}"


def with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """0.9 and (0.88, 0.94) to "90.0 %, 95 % interval 88.0 % to 94.0 %"."""
    ends = f", 95 % interval {percent(interval[0])} to {percent(interval[1])}" if interval else ""
    return f"{percent(value)}{ends}"


def points(difference: float | None) -> str:
    """0.042 to "+4.2 points", with a real minus sign."""
    return "" if difference is None else f"{_signed(difference)} points"


def points_span(interval: tuple[float, float] | None) -> str:
    """(-0.01, 0.05) to "−1.0 to +5.0"; nothing for None."""
    return "" if interval is None else f"{_signed(interval[0])} to {_signed(interval[1])}"


def _signed(difference: float) -> str:
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """0.31 to "0.3 s", 125 to "2 min 5 s", 7500 to "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def thousands(number: int) -> str:
    """12345 with a thin space: groups read the same in every country."""
    return f"{number:,}".replace(",", THIN)


def of_kind(number: int, kind: str) -> str:
    """What so many problems of a kind are called; kinds that are not in the table keep their name."""
    return WORDS[kind][number > 1] if kind in WORDS else kind


def titled(title: str, about: str) -> str:
    """A recipe's title with what it works on: "FixMatch (small network; pixels)", "label propagation (pixels)"."""
    if not about:
        return title
    return f"{title[:-1]}; {about})" if title.endswith(")") else f"{title} ({about})"


def shortlist(names: Sequence[str], most: int, more: str = " …") -> str:
    """The first ``most`` names, and ``more`` where there are others."""
    return ", ".join(names[:most]) + (more if len(names) > most else "")


def commands(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts)
    )


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


FILTERS = (percent, sure, span, points, points_span, duration, thousands, of_kind, commands)
