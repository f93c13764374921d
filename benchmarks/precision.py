"""Does bfloat16 training cost accuracy? Fashion-MNIST, 25 labels per class, the small residual network, 5 draws of
the labels, the same steps in float32 and in bfloat16 (dense convolutions)."""

from __future__ import annotations

import numpy as np

from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import fashion_mnist
from handful.stats.intervals import mean_interval

DRAWS = 5
STEPS = 200


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    grid = Grid("precision")
    data = fashion_mnist(given.data_root)
    for seed in range(DRAWS):
        task = task_for(data, 25, seed, pool_limit=5000)
        for name in ("fp32", "bf16"):
            cell = f"fashion_mnist/25/{seed}/{name}"
            if not grid.done(cell):
                plan = {"precision of dense networks": name}
                found = run_cell(
                    data, task, "supervised", "pixels", seconds=0, training={"steps": STEPS}, plan=plan
                )
                grid.add(cell, **found)
    by = {
        n: [grid.cells[f"fashion_mnist/25/{s}/{n}"]["accuracy"] for s in range(DRAWS)]
        for n in ("fp32", "bf16")
    }
    gain = mean_interval(np.array(by["bf16"]) - np.array(by["fp32"]))
    rows = [{"precision": name, **spread(values)} for name, values in by.items()]
    rows.append(
        {"precision": "bf16 minus fp32, paired", "mean": gain.value, "low": gain.low, "high": gain.high}
    )
    record("precision", rows, seeds=f"label draws 0 to {DRAWS - 1}", steps=STEPS)


if __name__ == "__main__":
    main()
