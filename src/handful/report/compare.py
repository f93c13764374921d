"""A finished grid as tables: ``compare.json``, ``compare.csv`` and the page.

Legend: S sizes (labels per class), R label draws. Accuracies and differences are fractions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from markupsafe import Markup

from handful.files import as_csv, write_atomic
from handful.report import compare_figures
from handful.report.compare_figures import Series
from handful.report.templates import fill
from handful.report.words import percent, titled
from handful.stats.forecast import forecast
from handful.stats.intervals import Estimate, mean_interval
from handful.stats.labels_saved import LabelsSaved, labels_saved, sentence, worth
from handful.study.contenders import Contender
from handful.study.grid import Cell

MOST_DRAWN = 8  # curves in one figure; the others stand in the table


@dataclass(frozen=True)
class Row:
    """One contender at one size: means over draws.

    Attributes:
        labels: per class.
        accuracy: mean with Student's t interval over draws; ``sd`` is the spread between draws.
        gain: paired difference to ``baseline``, the best labelled-only contender of this size; None for itself.
        saved: what the labels are worth to the labelled-only baselines; None for those.
    """

    contender: str
    title: str
    uses_unlabelled: bool
    labels: int
    n_labels: float
    draws: int
    accuracy: Estimate
    sd: float
    balanced_accuracy: float
    calibration_error: float
    seconds: float
    peak_memory: float | None
    steps: int
    chosen: str
    baseline: str
    gain: Estimate | None = None
    saved: LabelsSaved | None = None
    macro_f1: float = math.nan
    learned_bytes: float = 0.0


@dataclass
class Comparison:
    """All that the page shows.

    Attributes:
        scored_on: in words.
        cells: every cell, failed ones too.
        about: command, seeds, versions, date, machine.
    """

    data: str
    scored_on: str
    classes: int
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    rows: list[Row]
    cells: list[Cell]
    about: dict[str, Any] = field(default_factory=dict)
    caution: str = ""
    forecast: str = ""

    @property
    def sentences(self) -> list[str]:
        """One a recipe that uses unlabelled pictures, at the size where it saves most."""
        best: dict[str, tuple[float, str]] = {}
        titles = {row.contender: row.title for row in self.rows}
        for row in self.rows:
            if row.saved:
                ends = {"above": row.saved.largest, "below": 0}
                share = (row.saved.labels or ends.get(row.saved.beyond, 0)) / row.labels
                if share > best.get(row.contender, (-1.0, ""))[0]:
                    said = replace(row.saved, baseline=titles.get(row.saved.baseline, row.saved.baseline))
                    best[row.contender] = (share, sentence(row.title, said))
        return [words for _, words in best.values()]

    @property
    def failed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.failed]


def analyse(
    cells: Sequence[Cell], contenders: Sequence[Contender], titles: Mapping[str, str], **rest: Any
) -> Comparison:
    """Means, paired differences and labels saved of a grid's cells.

    Args:
        titles: recipe name to its title for people.
        rest: the fields of ``Comparison`` that the cells do not tell.
    """
    sizes = tuple(sorted({c.labels for c in cells}))
    seeds = tuple(sorted({c.seed for c in cells}))
    figures_of = {(c.contender, c.labels, c.seed): c for c in cells if not c.failed}

    def table(name: str) -> np.ndarray:
        """Accuracies [S, R], NaN where a cell failed."""
        values = [[figures_of.get((name, n, s)) for s in seeds] for n in sizes]
        return np.array(
            [[math.nan if c is None else c.accuracy for c in line] for line in values], dtype=float
        )

    tables = {c.name: table(c.name) for c in contenders}
    baselines = {c.name: tables[c.name] for c in contenders if not c.uses_unlabelled}
    rows = []
    for c in contenders:
        saved = labels_saved(sizes, baselines, tables[c.name]) if c.uses_unlabelled else [None] * len(sizes)
        for i, n in enumerate(sizes):
            mine = [figures_of[(c.name, n, s)] for s in seeds if (c.name, n, s) in figures_of]
            if not mine:
                continue
            best = _best(baselines, i)
            pairs = tables[c.name][i] - baselines[best][i] if best else np.array([])
            pairs = pairs[~np.isnan(pairs)]
            spread = np.array([m.accuracy for m in mine], dtype=float)
            rows.append(
                Row(
                    contender=c.name,
                    title=_title(c, titles),
                    uses_unlabelled=c.uses_unlabelled,
                    labels=n,
                    n_labels=_mean(m.n_labels for m in mine),
                    draws=len(mine),
                    accuracy=_inside(mean_interval(spread)),
                    sd=float(spread.std(ddof=1)) if len(spread) > 1 else math.nan,
                    balanced_accuracy=_mean(m.balanced_accuracy or 0.0 for m in mine),
                    calibration_error=_mean(m.calibration_error or 0.0 for m in mine),
                    seconds=_mean(m.seconds for m in mine),
                    peak_memory=_mean(m.peak_memory for m in mine if m.peak_memory)
                    if mine[0].peak_memory
                    else None,
                    learned_bytes=_mean(m.learned_bytes for m in mine),
                    steps=max(m.steps for m in mine),
                    chosen=", ".join(sorted({m.chosen for m in mine if m.chosen})),
                    baseline=best,
                    gain=mean_interval(pairs) if len(pairs) and best != c.name else None,
                    saved=saved[i],
                    macro_f1=_mean(m.macro_f1 for m in mine if m.macro_f1 is not None),
                )
            )
    told = _forecast(sizes, tables, {r.contender: r.title for r in rows}, rest.get("classes", 1))
    return Comparison(sizes=sizes, seeds=seeds, rows=rows, cells=list(cells), forecast=told, **rest)


def _title(c: Contender, titles: Mapping[str, str]) -> str:
    """For people: the recipe's title, the features it works on, and the settings that differ."""
    settings = [f"{k} {v}" for k, v in {**c.method, **c.training}.items()]
    about = ", ".join(filter(None, [c.on, *settings]))
    return titled(titles.get(c.recipe, c.recipe), about)


def _forecast(
    sizes: tuple[int, ...], tables: Mapping[str, np.ndarray], titles: Mapping[str, str], classes: int
) -> str:
    """What more labels would bring to the recipe that is best with the most labels; "" with fewer than three sizes."""
    whole = {name: t for name, t in tables.items() if name in titles and not np.isnan(t).all(axis=1).any()}
    if len(sizes) < 3 or not whole:
        return ""
    best = max(whole, key=lambda name: float(np.nanmean(whole[name][-1])))
    if whole[best].shape[1] < 2:
        return ""
    told = forecast(sizes, whole[best], n_classes=classes).advice()
    return f"Beyond {sizes[-1]} labels per class with {titles[best]}: {told}."


def _best(baselines: Mapping[str, np.ndarray], size: int) -> str:
    """The labelled-only contender with the highest mean at a size, "" where none was measured."""
    means = {name: float(np.nanmean(a[size])) for name, a in baselines.items() if not np.isnan(a[size]).all()}
    return max(means, key=lambda name: means[name], default="")


def _inside(e: Estimate) -> Estimate:
    """An accuracy's interval held between 0 and 1 (Student's t knows no such ends)."""
    return Estimate(e.value, max(0.0, e.low), min(1.0, e.high)) if math.isfinite(e.low) else e


def _mean(values: Any) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan


def to_json(c: Comparison) -> str:
    """Everything, with every cell; what is not a finite number is null."""
    return json.dumps(_finite(asdict(c) | {"sentences": c.sentences}), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if hasattr(value, "_asdict"):
        return _finite(value._asdict())
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(c: Comparison) -> str:
    """One line a contender and size."""
    table: list[list[Any]] = [
        ["recipe", "uses_unlabelled", "labels_per_class", "draws", "accuracy", "low", "high", "sd", "baseline", "gain",
         "gain_low", "gain_high", "worth_labels", "worth_low", "worth_high", "balanced_accuracy", "macro_f1",
         "calibration_error", "seconds", "peak_memory_mb", "learned_kb", "steps", "chosen"]
    ]  # fmt: skip
    for r in c.rows:
        gain = r.gain or (None, None, None)
        saved = (r.saved.labels, r.saved.low, r.saved.high) if r.saved else (None, None, None)
        line = [
            r.contender,
            r.uses_unlabelled,
            r.labels,
            r.draws,
            *map(_short, (*r.accuracy, r.sd)),
            r.baseline,
        ]
        line += map(_short, (*gain, *saved, r.balanced_accuracy, r.macro_f1, r.calibration_error))
        line += [f"{r.seconds:.1f}", f"{r.peak_memory / 2**20:.0f}" if r.peak_memory else ""]
        line += [f"{r.learned_bytes / 1024:.1f}" if r.learned_bytes else "", r.steps or "", r.chosen]
        table.append(line)
    return as_csv(table)


def finite(value: float | None) -> bool:
    """It was measured."""
    return value is not None and math.isfinite(value)


def kilobytes(size: float) -> str:
    """2048 to "2.0 kB"."""
    return f"{size / 1024:,.1f} kB"


def _short(value: float | None) -> str:
    return f"{value:.4f}" if finite(value) else ""


def write(c: Comparison, folder: Path) -> None:
    """``compare.json``, ``compare.csv`` and ``report.html``."""
    write_atomic(folder / "compare.json", to_json(c))
    write_atomic(folder / "compare.csv", to_csv(c))
    write_atomic(folder / "report.html", render(c))


def render(c: Comparison) -> str:
    """The page as text; it needs nothing else."""
    letters = _letters(c)
    middle = c.sizes[min(1, len(c.sizes) - 1)]
    return fill(
        "compare.html.j2",
        worth,
        kilobytes,
        finite,
        c=c,
        headline=_headline(c),
        curves=curves(c),
        bars=_bars(c),
        times=compare_figures.time_against_accuracy(
            {
                r.title: (letters[r.contender], r.uses_unlabelled, r.seconds, r.accuracy.value)
                for r in c.rows
                if r.labels == middle and r.contender in letters
            },
            f"Seconds of a run against accuracy, {middle} labels per class",
        ),
        middle=middle,
        by_size=[(n, [r for r in c.rows if r.labels == n]) for n in c.sizes],
        left_out=[name for name in dict.fromkeys(r.contender for r in c.rows) if name not in letters],
    )


def curves(c: Comparison) -> Markup:
    """Accuracy against labels, as SVG."""
    return compare_figures.accuracy_curves(_series(c), "Accuracy against labels per class")


def _letters(c: Comparison) -> dict[str, str]:
    """The contenders that are drawn, each with its letter: with many, the best by mean over sizes and the baselines of
    any size."""
    names = list(dict.fromkeys(r.contender for r in c.rows))
    mean = {n: _mean(r.accuracy.value for r in c.rows if r.contender == n) for n in names}
    needed = {r.baseline for r in c.rows} | {r.contender for r in c.rows if r.saved}
    drawn = sorted(names, key=lambda n: (n not in needed, -mean[n]))[:MOST_DRAWN]
    return dict(zip((n for n in names if n in drawn), ascii_uppercase))


def _series(c: Comparison) -> dict[str, Series]:
    found = {}
    for name, letter in _letters(c).items():
        mine = [r for r in c.rows if r.contender == name]
        ends = [tuple(x if math.isfinite(x) else None for x in r.accuracy.interval) for r in mine]
        line = [(float(r.labels), r.accuracy.value, low, high) for r, (low, high) in zip(mine, ends)]
        found[mine[0].title] = Series(letter, mine[0].uses_unlabelled, line)
    return found


def _bars(c: Comparison) -> list[tuple[int, Markup]]:
    bars = []
    for n in c.sizes:
        rows = [(r.title, _briefly(r.saved), r.saved) for r in c.rows if r.labels == n and r.saved]
        if rows:
            bars.append((n, compare_figures.saved_bars(rows, float(max(c.sizes)))))
    return bars


def _briefly(saved: LabelsSaved) -> str:
    """``worth`` as short as the axis allows: "> 4" beyond the labels that were measured."""
    if not saved.beyond:
        return worth(saved)
    words = f"> {saved.largest}" if saved.beyond == "above" else f"< {saved.smallest}"
    return words if saved.sure else f"perhaps {words}"


def _headline(c: Comparison) -> list[str]:
    """What a manager reads: the best that each size of the budget can buy, and what the unlabelled pictures gave."""
    lines = []
    for n in c.sizes:
        here = [r for r in c.rows if r.labels == n]
        users = [r for r in here if r.saved]
        base = next((r for r in here if r.contender == r.baseline), None)
        best = max(users, key=lambda r: r.accuracy.value, default=None)
        if best is None or base is None or best.gain is None:
            continue
        word = "label" if n == 1 else "labels"
        sure = best.gain.low > 0
        if best.gain.value > 0 and best.saved:
            lines.append(
                f"{n} {word} per class: {best.title} reaches {percent(best.accuracy.value)}; the best "
                f"labelled-only recipe, {base.title}, {percent(base.accuracy.value)}. That is worth "
                f"{worth(best.saved)} labels per class"
                + ("." if sure else ", but the difference is not certain.")
            )
        else:
            lines.append(
                f"{n} {word} per class: nothing beats {base.title}, at {percent(base.accuracy.value)}, which "
                "learns from the labelled pictures alone."
            )
    return lines
