"""The page of ``handful inspect``: what is in the data, what is wrong with them, how far they are from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from handful.data.audit import WORDS, in_short
from handful.data.gap import Gap, Measures
from handful.data.images import Images
from handful.data.manifest import LABELLED, SPLITS, TEST, VALIDATION, Issue, Manifest, printable
from handful.report import figures
from handful.report.inspect_figures import histogram, shifts, strips
from handful.report.record import Thumb
from handful.report.templates import fill
from handful.report.words import percent, shorten, span, thousands

COUPLES = 24  # problems that are shown as pictures
LISTED = 200  # problems that are listed in words
GALLERY = 10
MEAN_OF = 500  # pictures of a class that go into its mean
NOT_BALANCED = 3  # times as many labels in the largest class as in the smallest


@dataclass(frozen=True)
class Side:
    """One of two sets that are compared: its pictures, and which rows of them were used."""

    manifest: Manifest
    images: Images
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Look:
    """Everything that the page shows.

    Attributes:
        rows: row numbers of the pictures that ``figures`` are of.
        figures: by name, float64 [len(rows)].
        sizes: "width", "height" of the originals, of a sample.
        gap: with the two sets, where there is another one.
    """

    manifest: Manifest
    images: Images
    issues: Sequence[Issue]
    rows: NDArray[np.int64]
    figures: Measures
    sizes: Measures
    gap: tuple[Gap, Side, Side] | None = None
    command: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def render(look: Look) -> str:
    """The page as text; it needs nothing else."""
    m = look.manifest
    counts = {name: row for name, row in m.counts().items() if name}
    splits = [s for s in (LABELLED, VALIDATION, TEST) if any(row[s] for row in counts.values())]
    page = {
        "name": m.name,
        "verdict": verdict(look),
        "facts": [
            (len(m.classes), "classes"),
            *((int((m.splits == s).sum()), s) for s in SPLITS),
        ],
        "issues": look.issues[:LISTED],
        "more": max(0, len(look.issues) - LISTED),
        "in_short": in_short(look.issues),
        "couples": _couples(look),
        "counts": counts,
        "splits": splits,
        "balance": figures.balance({name: {s: row[s] for s in splits} for name, row in counts.items()}),
        "means": _means(look),
        "sample": f"Of {thousands(len(look.rows))} pictures as they are stored ({look.images.side} px a side, "
        f"{'colour' if look.images.channels == 3 else 'gray'}); sizes of the files themselves.",
        "charts": _charts(look),
        "gap": _gap(look),
        "command": look.command,
        "about": look.about,
    }
    return fill(
        "inspect.html.j2",
        deviations,
        p=page,
        fig=figures,
    )


def deviations(d: float) -> str:
    """0.513 to "+0.51"; "∞" where both sets have no spread at all."""
    return f"{d:+.2f}".replace("-", "\u2212").replace("inf", "∞")


def verdict(look: Look) -> str:
    """One paragraph: is anything wrong, are the classes balanced, does brightness give classes away?"""
    m = look.manifest
    words = [f"Look at {in_short(look.issues)}." if look.issues else "No problem was found."]
    n = np.bincount(m.labels[m.ids(LABELLED)], minlength=len(m.classes)) if m.classes else np.zeros(0, int)
    if len(n) and n.max() >= NOT_BALANCED * max(n.min(), 1):
        words.append(
            f"The classes are not balanced: {n.max()} labelled pictures of {m.classes[n.argmax()]}, {n.min()} of "
            f"{m.classes[n.argmin()]}."
        )
    elif len(n):
        words.append(
            "The classes are balanced." if n.max() > n.min() else f"Every class has {n.max()} labels."
        )
    share, name = _gives_away(look)
    if share > 0.3:
        words.append(
            f"The {name} differs by class ({100 * share:.0f} % of its variance): if it is not part of what the classes "
            "mean, a model may learn it in their place."
        )
    return " ".join(words)


def _gives_away(look: Look) -> tuple[float, str]:
    """The figure that differs most between classes: its eta squared, less what chance alone gives, and its name."""
    y = look.manifest.labels[look.rows]
    known = y >= 0
    best = (0.0, "")
    for name, values in look.figures.items():
        v, k = values[known], y[known]
        groups = [v[k == c] for c in np.unique(k)]
        if len(v) <= len(groups) + 10 or len(groups) < 2 or v.var() == 0:
            continue
        between = sum(len(g) * (g.mean() - v.mean()) ** 2 for g in groups) / (v.var() * len(v))
        corrected = 1 - (1 - between) * (len(v) - 1) / (len(v) - len(groups))
        best = max(best, (float(corrected), name))
    return best


def _couples(look: Look) -> list[tuple[list[Thumb], str]]:
    """Problems that have pictures: the two copies, or the picture whose label is doubted."""
    row_of = {printable(path): row for row, path in enumerate(look.manifest.paths)}
    shown = []
    for issue in look.issues:
        rows = [row_of[name] for name in (issue.file, issue.other) if name in row_of]
        if rows and issue.kind in ("leak", "conflict", "suspect", "copy"):
            text = f"{WORDS[issue.kind][0].capitalize()}: {issue.file} {issue.reason}."
            shown.append(([_thumb(look, row) for row in rows], shorten(text, 260)))
        if len(shown) == COUPLES:
            break
    return shown


def _thumb(of: Look | Side, row: int, label: str = "") -> Thumb:
    picture = of.images.take(torch.tensor([row]))[0].numpy()
    return Thumb(picture, caption=printable(of.manifest.paths[row]), label=label)


def _means(look: Look) -> list[Thumb]:
    m = look.manifest
    rows = [np.flatnonzero((m.labels == k) & (m.splits == LABELLED))[:MEAN_OF] for k in range(len(m.classes))]
    return [Thumb.of_mean(look.images.take(some), name) for some, name in zip(rows, m.classes)]


def _charts(look: Look) -> list[tuple[str, Markup]]:
    m, f = look.manifest, look.figures
    splits = m.splits[look.rows]
    kinds = [s for s in SPLITS if (splits == s).any()]

    def by_split(name: str) -> dict[str, NDArray[np.float64]]:
        return {s: f[name][splits == s] for s in kinds}

    charts = [(name.capitalize(), histogram(by_split(name), name, fractions=True)) for name in f]
    if m.classes:
        y = m.labels[look.rows]
        by_class = {name: f["brightness"][y == k] for k, name in enumerate(m.classes)}
        charts.append(
            ("Brightness by class: middle half and median", strips(by_class, "Brightness by class"))
        )
    if len(look.sizes["width"]):
        short, long = (g(look.sizes["width"], look.sizes["height"]) for g in (np.minimum, np.maximum))
        charts.append(("Shorter side of the files, pixels", histogram({"shorter side": short}, "Size")))
        charts.append(
            ("Longer side for each pixel of the shorter", histogram({"ratio": long / short}, "Shape"))
        )
    return charts


def _gap(look: Look) -> dict[str, object] | None:
    if look.gap is None:
        return None
    gap, first, second = look.gap
    names = (first.manifest.name, second.manifest.name)
    names = names if names[0] != names[1] else ("first set", "second set")
    told = f"{percent(gap.accuracy.value)} (95 % interval {span(gap.accuracy.interval)}, chance 50 %)"
    if gap.apart:
        sentence = (
            f"{names[0]} and {names[1]} can be told apart: {told} of pictures are put into the right set."
        )
        meaning = (
            "The two sets differ in something that a classifier sees. A model that learnt from one may be worse on the "
            "other; figures measured on one do not hold for the other until you have measured there."
        )
    else:
        sentence = f"{names[0]} and {names[1]} could not be told apart: {told} of pictures are put into the right set."
        meaning = "No difference was found. A larger sample could still find a small one."
    galleries = []
    for side, p in ((first, gap.p_first), (second, gap.p_second)):
        order = np.argsort(-p, kind="stable")
        name = names[0] if side is first else names[1]
        titles = (
            f"{name}: the pictures that give it away",
            f"{name}: the pictures that could be of the other set",
        )
        for title, some in zip(titles, (order[:GALLERY], order[::-1][:GALLERY])):
            thumbs = [_thumb(side, int(side.rows[i]), f"{100 * p[i]:.0f} %") for i in some]
            galleries.append((title, thumbs if gap.apart else []))
    return {
        "names": names,
        "accuracy": gap.accuracy,
        "sentence": sentence,
        "meaning": meaning,
        "how": f"{thousands(gap.n)} pictures of each set, brought to one size; every picture was judged by a "
        "classifier that had learnt from others (five-fold cross-validation). Below the pictures: how sure it was of "
        "the right set.",
        "figure": shifts(gap.shifts, names),
        "shifts": gap.shifts,
        "galleries": galleries,
    }
