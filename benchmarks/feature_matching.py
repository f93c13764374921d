"""Every method on frozen Lite0 features, seconds a run, against label propagation and regression on the same.

tf_flowers at 4 and 16 labels per class, Office-Caltech's Amazon pictures at 4; CIFAR-10 (JPEG files) at 25, its whole
pool of 50,000. Five label draws. The settings of the recipes were tried on draws 100 to 102 of tf_flowers; these draws,
and the other sets, are fresh.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.recipes.table import RECIPES as KNOWN
from handful.stats.intervals import mean_interval

SETS = {"tf_flowers": (4, 16), "office-amazon": (4,), "cifar10": (25,)}  # labels per class
BEFORE = ("logistic", "propagation")
RECIPES = (*BEFORE, *(name for name in KNOWN if name.endswith("-features")))
DRAWS = range(200, 205)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", nargs="+", default=list(SETS))
    given = parser.parse_args()
    grid = Grid("feature_matching")
    rows: list[dict[str, Any]] = []
    for name in given.data:
        data = DATASETS[name](given.data_root)
        for n in SETS[name]:
            if np.bincount(data.y[data.pool]).min() <= n:
                continue
            for seed in DRAWS:
                task, spaces = task_for(data, n, seed), dict[str, Any]()
                for recipe in RECIPES:
                    cell = f"{name}/{n}/{seed}/{recipe}"
                    if not grid.done(cell):
                        grid.add(cell, **run_cell(data, task, recipe, "lite0", seconds=0, spaces=spaces))
            rows += summary(grid, name, n)
    record("feature_matching", rows, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}")


def summary(grid: Grid, name: str, n: int) -> list[dict[str, Any]]:
    """A row a recipe: accuracy, and how far it lies from regression and from propagation, paired by draw."""
    cells = {recipe: [grid.cells[f"{name}/{n}/{seed}/{recipe}"] for seed in DRAWS] for recipe in RECIPES}
    right = {recipe: np.array([cell["accuracy"] for cell in of]) for recipe, of in cells.items()}
    rows = []
    for recipe, values in right.items():
        found = spread(list(values))
        row: dict[str, Any] = {
            "data": name,
            "labels": n,
            "recipe": recipe,
            "accuracy": found["mean"],
            "sd": found["sd"],
        }
        for base in BEFORE:
            if recipe not in BEFORE[: BEFORE.index(base) + 1]:
                gain = mean_interval(values - right[base])
                row |= {
                    f"over {base}": gain.value,
                    f"over {base} low": gain.low,
                    f"over {base} high": gain.high,
                }
        rows.append(row | {"seconds": round(float(np.mean([cell["seconds"] for cell in cells[recipe]])), 1)})
    return rows


if __name__ == "__main__":
    main()
