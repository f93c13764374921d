"""Handwritten digits at 4 labels per class, 20 label draws: does the shipped model beat labelled-only training?

The prior that ``auto`` uses leaves the digits out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import digits
from handful.statistics import mean_interval

DRAWS = 20
SECONDS = 90  # as the demo
COMPARED = (
    ("logistic", "pixels"),
    ("nearest-mean", "pixels"),
    ("knn", "pixels"),
    ("propagation", "pixels"),
    ("supervised", "pixels"),
    ("pseudo-label", "pixels"),
    ("auto", ""),
)
LABELLED_ONLY = ("logistic", "nearest-mean", "knn", "supervised")


def main() -> None:
    arguments(__doc__ or "").parse_args()
    grid = Grid("digits")
    data = digits()
    for seed in range(DRAWS):
        task = task_for(data, 4, seed)
        spaces: dict[str, Any] = {}
        for recipe, on in COMPARED:
            cell = f"digits/4/{seed}/{recipe}"
            if not grid.done(cell):
                training = {"steps": 200} if recipe != "auto" else {}
                grid.add(
                    cell,
                    **run_cell(
                        data,
                        task,
                        recipe,
                        on,
                        seconds=SECONDS,
                        training=training,
                        without=("digits",),
                        spaces=spaces,
                    ),
                )
    by = {
        recipe: [grid.cells[f"digits/4/{seed}/{recipe}"]["accuracy"] for seed in range(DRAWS)]
        for recipe, _ in COMPARED
    }
    best = max(LABELLED_ONLY, key=lambda recipe: float(np.mean(by[recipe])))
    gain = mean_interval(np.array(by["auto"]) - np.array(by[best]))
    rows: list[dict[str, Any]] = [{"recipe": recipe, **spread(values)} for recipe, values in by.items()]
    rows.append(
        {"recipe": f"auto minus {best}, paired", "mean": gain.value, "low": gain.low, "high": gain.high}
    )
    chosen = [grid.cells[f"digits/4/{seed}/auto"]["chosen"] for seed in range(DRAWS)]
    record(
        "digits",
        rows,
        seeds=f"label draws 0 to {DRAWS - 1}",
        chosen={c: chosen.count(c) for c in set(chosen)},
    )


if __name__ == "__main__":
    main()
