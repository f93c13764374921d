"""Benchmarks that are comparisons: ``python -m benchmarks.NAME`` = a ``handful compare`` grid with a name.

The cells live below ``runs/benchmarks/NAME`` (a killed sweep goes on there); the result with every cell goes to
``results/NAME.json``, the curves to ``docs/figures/NAME.svg``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import command, record
from benchmarks.datasets import DATASETS
from handful import api
from handful.recipes.table import RECIPES
from handful.report import page as report_page
from handful.report.compare import Comparison, curves
from handful.stats.intervals import mean_interval
from handful.study.draws import Source

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
RUNS = Path("runs") / "benchmarks"


class Printer(api.Teller):
    """Every line at once, for a log."""

    def tell(self, line: str) -> None:
        print(line, flush=True)


def source(name: str, root: Path, pool: int = 0) -> Source:
    """A benchmark data set as a comparison takes it."""
    data = DATASETS[name](root)
    return Source(data.images, data.y, data.pool, data.test, data.classes, name).limited(pool)


def sweep(name: str, data: str, root: Path, *, pool: int = 0, **options: Any) -> Comparison:
    """Run what is missing of a grid, print its sentences, draw its curves."""
    chosen = api.CompareOptions(pool=0, **options)
    done = api.compare(
        partial(source, data, root, pool),
        chosen,
        out=RUNS / name,
        teller=Printer(),
        command=command(),
    )
    print("\n".join(done.sentences))
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.svg").write_text(standalone(str(curves(done.comparison))))
    return done.comparison


def standalone(svg: str) -> str:
    """A figure of the report as a file of its own: with its name space and its style, light colours only."""
    css = (Path(report_page.__file__).parent / "page.css").read_text("utf-8")
    style = f"<style>{css}</style><rect width='100%' height='100%' fill='#fff'/>"
    head, mark, rest = svg.partition(">")
    return head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + mark + style + rest + "\n"


def rows(c: Comparison) -> list[dict[str, Any]]:
    """One a recipe and size, in percent."""
    found = []
    for r in c.rows:
        row: dict[str, Any] = {
            "labels": r.labels,
            "recipe": r.contender,
            "accuracy": _percent(r.accuracy.value),
        }
        row |= {"low": _percent(r.accuracy.low), "high": _percent(r.accuracy.high), "sd": _percent(r.sd)}
        if r.gain:
            row |= {
                "gain": _percent(r.gain.value),
                "gain low": _percent(r.gain.low),
                "gain high": _percent(r.gain.high),
            }
        row["baseline"] = r.baseline
        if r.saved:
            from handful.stats.labels_saved import worth

            row["worth in labels"] = worth(r.saved)
        row |= {
            "calibration error": _percent(r.calibration_error),
            "seconds": round(r.seconds, 1),
            "steps": r.steps or "",
        }
        if r.chosen:
            row["chosen"] = r.chosen
        found.append(row)
    return found


def keep(name: str, c: Comparison, extra: list[dict[str, Any]] | None = None, **info: Any) -> None:
    """``results/NAME.json``: the rows, the sentences and every cell."""
    cells = [[x.contender, x.labels, x.seed, _percent(x.accuracy), round(x.seconds, 1)] for x in c.cells]
    record(name, rows(c) + (extra or []), seeds=f"label draws {c.seeds[0]} to {c.seeds[-1]}", **info)
    add_cells(name, {"columns": ["recipe", "labels", "draw", "accuracy", "seconds"], "cells": cells})


def paired(c: Comparison, against: Sequence[str]) -> list[dict[str, Any]]:
    """The networks' gains over the contenders ``against``, paired by draw."""
    rows: list[dict[str, Any]] = []
    names = list(dict.fromkeys(cell.contender for cell in c.cells))
    table = {(x.contender, x.labels, x.seed): 100 * (x.accuracy or float("nan")) for x in c.cells}
    baselines = [n for n in names if n in against or n.replace("@pixels", "") in against]
    for size in sorted({x.labels for x in c.cells}):
        for name in names:
            for base in baselines:
                gain = mean_interval(np.array([table[name, size, s] - table[base, size, s] for s in c.seeds]))
                if name != base and RECIPES[name.partition("@")[0]].trains:
                    words = f"{name} minus {base}, paired"
                    rows.append(
                        {
                            "labels": size,
                            "recipe": words,
                            "gain": gain.value,
                            "gain low": gain.low,
                            "gain high": gain.high,
                        }
                    )
    return rows


def add_cells(name: str, cells: dict[str, Any]) -> None:
    """Every cell's accuracy beside the result, one line each."""
    import json

    from benchmarks.common import RESULTS

    lines = ",\n".join(json.dumps(cell) for cell in cells["cells"])
    head = json.dumps(cells["columns"])
    (RESULTS / f"{name}.cells.json").write_text(f'{{"columns": {head}, "cells": [\n{lines}\n]}}\n')


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None or fraction != fraction else round(100 * fraction, 2)
