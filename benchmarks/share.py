"""Label propagation's head: how much of the labelled pictures' own regression should be in it?

Photographs at 192 px; regression alone, the propagated labels alone, and half of each, on the same 6 label draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.methods.label_propagation import LabelPropagation
from handful.methods.probe import LogisticRegression

PHOTO = ("office-amazon", "office-caltech", "office-webcam", "caltech101", "tf_flowers")
LABELS = (1, 4, 16, 64)
DRAWS = range(200, 206)
HEADS: dict[str, tuple[str, Any]] = {
    "regression": ("logistic", LogisticRegression()),
    "s = 0": ("propagation", LabelPropagation(alpha=0.9, iterations=20)),
    "s = 0.5": ("propagation", LabelPropagation(alpha=0.9, iterations=20, share=0.5)),
}


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    grid = Grid("share")
    rows = []
    for name in PHOTO:
        data, spaces = DATASETS[name](given.data_root), dict[str, Any]()
        for n in LABELS:
            by: dict[str, list[float]] = {head: [] for head in HEADS}
            for seed in DRAWS:
                task = task_for(data, n, seed, pool_limit=5000)
                if len(task.labelled) < n * len(data.classes) * 0.9:
                    continue
                for head, (recipe, method) in HEADS.items():
                    cell = f"{name}/{n}/{seed}/{head}"
                    if not grid.done(cell):
                        found = run_cell(data, task, recipe, "lite0", seconds=0, spaces=spaces, method=method)
                        grid.add(cell, **found)
                    by[head].append(grid.cells[cell]["accuracy"])
            if by["regression"]:
                gain = np.array(by["s = 0.5"]) - np.array(by["s = 0"])
                rows.append(
                    {
                        "data": name,
                        "labels": n,
                        **{head: spread(values)["mean"] for head, values in by.items()},
                        "half minus none": float(gain.mean()),
                        "sd": float(gain.std(ddof=1)),
                    }
                )
    record("share", rows, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}")


if __name__ == "__main__":
    main()
