"""Batch norm's statistics after training: those of the training, or found anew from pictures as they are.

Networks here learn from strongly changed pictures and are used on plain ones. USPS and MNIST shrunk to 8 pixels, 4 and
25 labels per class, a pool of 1,300, 400 steps, three draws: test accuracy of three recipes as they stand, with
statistics from the labelled pictures as they are (no unlabelled one is looked at), and from the pool's.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Grid, score, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from benchmarks.matching import POOL, SETS, STEPS, shrunk
from handful.api import cache_folder
from handful.engine.norms import find_norms
from handful.recipes.table import find
from handful.recipes.task import Workshop
from handful.recipes.training import small_training
from handful.stats.intervals import mean_interval

LABELS, DRAWS = (4, 25), range(3)
RECIPES = ("supervised", "uda", "fixmatch")


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    grid = Grid("norms")
    for name in SETS:
        data = shrunk(DATASETS[name](given.data_root))
        for n in LABELS:
            for seed in DRAWS:
                task, spaces = task_for(data, n, seed, POOL), dict[Any, Any]()
                for recipe in RECIPES:
                    cell = f"{name}/{n}/{seed}/{recipe}"
                    if grid.done(cell):
                        continue
                    row = find(recipe)
                    with tempfile.TemporaryDirectory() as folder:
                        workshop = Workshop(cache_folder(), Path(folder), save_every=0, spaces=spaces)
                        training = replace(small_training(task), steps=STEPS, precise_norms=False)
                        fitted = row.run(
                            task, workshop, on="pixels", method=row.make(), training=training, stage=recipe
                        )
                    right = {"trained": score(fitted, data)}
                    for kind, rows in (("labelled", task.labelled), ("pool", task.pool())):
                        find_norms(fitted.classifier.backbone, task.images, rows, workshop.device)
                        right[kind] = score(fitted, data)
                    grid.add(cell, **{kind: round(value, 3) for kind, value in right.items()})
    table = []
    for name in SETS:
        for n in LABELS:
            for recipe in RECIPES:
                cells = [grid.cells[f"{name}/{n}/{seed}/{recipe}"] for seed in DRAWS]
                line: dict[str, Any] = {"data": name, "labels": n, "recipe": recipe}
                line["as trained"] = round(float(np.mean([cell["trained"] for cell in cells])), 2)
                for kind in ("labelled", "pool"):
                    gain = mean_interval(np.array([cell[kind] - cell["trained"] for cell in cells]))
                    line |= {
                        f"gain, {kind}": gain.value,
                        f"{kind} low": gain.low,
                        f"{kind} high": gain.high,
                    }
                table.append(line)
    record("norms", table, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}", steps=STEPS, pool=POOL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
