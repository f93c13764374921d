"""FixMatch on frozen Lite0 features against label propagation and regression on the same: 4 and 16 labels per class.

The recipe's settings were tried on draws 100 to 102 of tf_flowers; these draws, and the other sets, are fresh.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.statistics import mean_interval

SETS = ("tf_flowers", "office-amazon", "office-caltech", "office-webcam", "caltech101")
RECIPES = ("logistic", "propagation", "fixmatch-features")
LABELS, DRAWS = (4, 16), range(200, 205)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", nargs="+", default=list(SETS))
    given = parser.parse_args()
    grid = Grid("feature_matching")
    rows: list[dict[str, Any]] = []
    for name in given.data:
        data = DATASETS[name](given.data_root)
        for n in LABELS:
            if np.bincount(data.y[data.pool]).min() <= n:
                continue
            for seed in DRAWS:
                task, spaces = task_for(data, n, seed), dict[str, Any]()
                for recipe in RECIPES:
                    cell = f"{name}/{n}/{seed}/{recipe}"
                    if not grid.done(cell):
                        grid.add(cell, **run_cell(data, task, recipe, "lite0", seconds=0, spaces=spaces))
            found = {r: [grid.cells[f"{name}/{n}/{s}/{r}"]["accuracy"] for s in DRAWS] for r in RECIPES}
            gain = mean_interval(np.array(found["fixmatch-features"]) - np.array(found["propagation"]))
            row: dict[str, Any] = {
                "data": name,
                "labels": n,
                **{r: spread(v)["mean"] for r, v in found.items()},
            }
            rows.append(row | {"gain over propagation": gain.value, "low": gain.low, "high": gain.high})
    record("feature_matching", rows, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}")


if __name__ == "__main__":
    main()
