"""How the recipes ``fixmatch``, ``mpl`` and ``mpl-reduced`` were set: USPS and MNIST shrunk to 8 pixels, 4 labels per
class, pool 1,300.

Test accuracy after 400 steps in all, of each recipe as it stands and with one thing changed at a time; beside them
every other consistency recipe, and what there was before. Digits and Fashion-MNIST, which judge it, are not looked at.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.cells import Grid, score, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from handful.api import cache_folder
from handful.data.images import from_array
from handful.methods.table import CONSISTENCY, REGISTRY
from handful.recipes.table import find
from handful.recipes.task import Workshop
from handful.recipes.training import small_training
from handful.study.contenders import parse

SETS, LABELS, POOL, STEPS, SIDE = ("usps", "mnist"), 4, 1300, 400, 8
CHANGES = (
    "fixmatch",
    "fixmatch:method.threshold=0.95",
    "fixmatch:method.align=false",
    "fixmatch:method.weak_view=weak",
    "fixmatch:method.view=weak",
    "fixmatch:method.passes=1",
    "fixmatch:training.start=supervised",
    "fixmatch:training.start=random",
)
OTHERS = (
    "supervised",
    "pseudo-label",
    *(name for name, row in REGISTRY.items() if row.family == CONSISTENCY and name != "fixmatch"),
)
META = (
    "mpl",
    "mpl:method.feedback_weight=0.0",
    "mpl:method.uda_weight=0.0",
    "mpl:method.labels=sample",
    "mpl:method.labels=soft",
    "mpl:method.tune_steps=0",
    "mpl:training.start=supervised",
    "mpl:training.start=random",
    "mpl:training.start=random,method.feedback_weight=0.0",
)
REDUCED = (
    "mpl-reduced",
    "mpl-reduced:method.feedback_weight=0.0",
    "mpl-reduced:method.anchor=0.0",
    "mpl-reduced:method.anchor=0.1",
    "mpl-reduced:method.labels=soft",
    "mpl-reduced:method.labels=soft,method.anchor=0.1",
)
CONTENDERS = (*CHANGES, *OTHERS, *META, *REDUCED)


def shrunk(data: Dataset) -> Dataset:
    """The first 4,000 pictures of the pool and 1,000 of the test part, averaged to 8 x 8."""
    rows = np.concatenate([data.pool[:4000], data.test[:1000]])
    x = F.interpolate(data.images.take(torch.from_numpy(rows)).float(), size=SIDE, mode="area")
    images = from_array(x.round().to(torch.uint8)[:, 0].numpy())
    n = len(data.pool[:4000])
    return Dataset(images, data.y[rows], np.arange(n), np.arange(n, len(rows)), data.classes)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", default="", help="names that begin so, and no table")
    given = parser.parse_args()
    grid = Grid("matching")
    for name in SETS:
        data = shrunk(DATASETS[name](given.data_root))
        for seed in range(given.draws):
            task = task_for(data, LABELS, seed, POOL)
            spaces: dict[Any, Any] = {}
            for text in CONTENDERS:
                cell = f"{name}/{seed}/{text}"
                if grid.done(cell) or not text.startswith(given.only):
                    continue
                contender = parse(text)
                row = find(contender.recipe)
                training = replace(small_training(task), **{"steps": STEPS, **contender.training})
                begin = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    workshop = Workshop(cache_folder(), Path(folder), save_every=0, spaces=spaces)
                    method = row.make(**contender.method)
                    fitted = row.run(
                        task, workshop, on="pixels", method=method, training=training, stage=contender.recipe
                    )
                grid.add(
                    cell,
                    accuracy=round(score(fitted, data), 3),
                    seconds=round(time.perf_counter() - begin, 1),
                )
    if given.only:
        return
    rows = []
    for text in CONTENDERS:
        row_: dict[str, Any] = {"recipe": text}
        for name in SETS:
            found = spread([grid.cells[f"{name}/{seed}/{text}"]["accuracy"] for seed in range(given.draws)])
            row_ |= {name: found["mean"], f"{name} sd": found["sd"]}
        rows.append(row_)
    record("matching", rows, seeds=f"label draws 0 to {given.draws - 1}", steps=STEPS, pool=POOL)


if __name__ == "__main__":
    main()
