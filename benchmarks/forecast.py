"""How well a learning curve of few labels foretells the accuracy of many.

``python -m benchmarks.forecast`` trains three recipes on 1, 2, 4, 8, 16 labels per class (5 nested draws), lets
:func:`handful.stats.forecast.forecast` foretell larger sizes, and compares with what was then measured there. The
constants of ``handful.stats.forecast`` come from the sets of ``CALIBRATION`` alone (``--calibrate`` prints which cover
how much there); the sets of ``SCORED`` had no part in them.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cells import Grid, run_cell, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.stats.forecast import BASE, DRIFT, FLOOR, SHARE, forecast

DRAWS = range(5)
FIT = (1, 2, 4, 8, 16)
RECIPES = ("logistic", "nearest-mean", "propagation")
POOL_LIMIT = 5_000  # unlabelled pictures that a cell sees; propagation's graph grows with their square


class Case(NamedTuple):
    """A data set in one feature space: the curve up to ``fit`` labels per class foretells those of ``targets``."""

    data: str
    on: str
    fit: tuple[int, ...]
    targets: tuple[int, ...]


CALIBRATION = (
    Case("digits", "pixels", FIT, (32, 64, 100)),
    Case("usps", "pixels", FIT, (32, 64, 100, 400)),
    Case("fashion_mnist", "pixels", FIT, (32, 64, 100, 400)),
    Case("digits", "lite0", FIT, (32, 64, 100)),
    Case("caltech101", "lite0", FIT[:4], (16,)),
)
SCORED = (
    Case("tf_flowers", "lite0", FIT, (64,)),
    Case("cifar10", "lite0", FIT, (100, 400)),
)


def measure(grid: Grid, case: Case, root: Path) -> None:
    """Every cell of a case that is not done yet; all recipes see the same draws."""

    def name(size: int, seed: int, recipe: str) -> str:
        return f"{case.data}/{size}/{seed}/{recipe}@{case.on}"

    cells = [(size, seed) for seed in DRAWS for size in (*case.fit, *case.targets)]
    todo = [(n, s) for n, s in cells if not all(grid.done(name(n, s, recipe)) for recipe in RECIPES)]
    if not todo:
        return
    data = DATASETS[case.data](root)
    for size, seed in todo:
        task, spaces = task_for(data, size, seed, POOL_LIMIT), dict[str, Any]()
        for recipe in RECIPES:
            if not grid.done(name(size, seed, recipe)):
                figures = run_cell(data, task, recipe, case.on, seconds=0, spaces=spaces)
                grid.add(name(size, seed, recipe), **figures)


def curve(grid: Grid, case: Case, recipe: str, sizes: tuple[int, ...]) -> np.ndarray:
    """Accuracies [S, R] as fractions."""
    found = [
        [grid.cells[f"{case.data}/{n}/{s}/{recipe}@{case.on}"]["accuracy"] for s in DRAWS] for n in sizes
    ]
    return np.array(found) / 100


def scores(grid: Grid, case: Case) -> list[dict[str, Any]]:
    """A row for each recipe and target: foretold, measured (mean over draws), and whether the interval held it."""
    rows = []
    for recipe in RECIPES:
        known = curve(grid, case, recipe, case.fit)
        truth = curve(grid, case, recipe, case.targets).mean(axis=1)
        told = forecast(case.fit, known, n_classes=1, ahead=case.targets)
        naive = known[-1].mean() - truth  # "more labels bring nothing"
        for i, target in enumerate(case.targets):
            low, high = told.low[i], told.high[i]
            rows.append(
                {
                    "data": case.data,
                    "recipe": f"{recipe}@{case.on}",
                    "labels": target,
                    "forecast": round(100 * float(told.mean[i]), 2),
                    "low": round(100 * float(low), 2),
                    "high": round(100 * float(high), 2),
                    "measured": round(100 * float(truth[i]), 2),
                    "error": round(100 * abs(float(told.mean[i] - truth[i])), 2),
                    "error of no change": round(100 * abs(float(naive[i])), 2),
                    "covered": int(low <= truth[i] <= high),
                }
            )
    return rows


def summary(rows: list[dict[str, Any]], data: str) -> dict[str, Any]:
    """Median absolute error, coverage and mean width over rows."""
    return {
        "data": data,
        "forecasts": len(rows),
        "median error": round(float(np.median([row["error"] for row in rows])), 2),
        "median error of no change": round(float(np.median([row["error of no change"] for row in rows])), 2),
        "covered (%)": round(100 * float(np.mean([row["covered"] for row in rows])), 1),
        "mean width": round(float(np.mean([row["high"] - row["low"] for row in rows])), 2),
    }


def calibrate(grid: Grid) -> None:
    """Print the coverage of many constants on the calibration sets, narrowest intervals first."""
    import handful.stats.forecast as module

    found = []
    for floor, share, drift in product(
        (0.003, 0.005, 0.01), np.arange(0, 1.01, 0.1), np.arange(0, 0.0161, 0.001)
    ):
        module.FLOOR, module.SHARE, module.DRIFT = floor, float(share), float(drift)
        rows = [row for case in CALIBRATION for row in scores(grid, case)]
        found.append((summary(rows, "calibration"), f"FLOOR {floor} SHARE {share:.1f} DRIFT {drift:.3f}"))
    enough = [(s, words) for s, words in found if s["covered (%)"] >= 95]
    for figures, words in sorted(enough, key=lambda pair: pair[0]["mean width"])[:20]:
        print(words, figures)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--calibrate", action="store_true", help="print coverage by width and stop")
    names = [case.data for case in SCORED]
    parser.add_argument("--score", nargs="+", choices=names, default=names, help="data sets to score")
    options = parser.parse_args()
    grid = Grid("forecast")
    scored = [] if options.calibrate else [case for case in SCORED if case.data in options.score]
    for case in (*CALIBRATION, *scored):
        measure(grid, case, options.data_root)
    if options.calibrate:
        calibrate(grid)
        return
    rows = [row for case in scored for row in scores(grid, case)]
    calibration = [row for case in CALIBRATION for row in scores(grid, case)]
    record(
        "forecast",
        [*rows, summary(rows, "all scored"), summary(calibration, "all calibration sets")],
        seeds="label draws 0 to 4",
        pool=f"{POOL_LIMIT} unlabelled pictures at most",
        constants={"FLOOR": FLOOR, "BASE": BASE, "DRIFT": DRIFT, "SHARE": SHARE},
    )


if __name__ == "__main__":
    main()
