"""What each recipe reached on public data sets: the prior of the automatic choice.

``python -m benchmarks.prior`` measures and writes ``results/prior.json`` and ``src/handful/choose/prior.json``.
Pools above 5,000 and test parts above 2,000 pictures are sampled. Networks are trained for a fixed number of
steps on one label draw; the cheap recipes are measured on three.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import handful
from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.recipes.table import RECIPES, candidates

SMALL = ("digits", "usps", "mnist", "fashion_mnist", "cifar10")
COLOUR = ("cifar10",)
PHOTO = ("tf_flowers", "caltech101", "office-amazon", "office-caltech", "office-webcam")
LABELS = (1, 4, 16, 64)
DRAWS, DRAWS_OF_NETWORKS = 3, 1
STEPS = {"supervised": 200, "pseudo-label": 200, "fixmatch": 300, "fine-tune": 60, "fine-tune-pseudo": 60}
NETWORKS_ON = {
    "digits",
    "usps",
    "mnist",
    "fashion_mnist",
    "tf_flowers",
    "caltech101",
    "office-amazon",
    "office-webcam",
}
NETWORK_LABELS = (1, 4, 16)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only-cheap", action="store_true", help="no networks")
    parser.add_argument("--data", nargs="+", default=[*SMALL, *PHOTO], help="measure only these sets now")
    parser.add_argument("--labels", nargs="+", type=int, default=list(LABELS), help="and only these sizes")
    given = parser.parse_args()
    grid = Grid("prior")
    for networks in (False, True):
        for name in given.data:
            if networks and (given.only_cheap or name not in NETWORKS_ON):
                continue
            data = DATASETS[name](given.data_root)
            for n in NETWORK_LABELS if networks else LABELS:
                if n not in given.labels:
                    continue
                for seed in range(100, 100 + (DRAWS_OF_NETWORKS if networks else DRAWS)):
                    task = task_for(data, n, seed, pool_limit=5000)
                    if len(task.labelled) < n * len(data.classes) * 0.9:
                        continue  # the pool does not have that many of each class
                    spaces: dict[str, Any] = {}
                    for candidate in candidates(task):
                        cell = f"{name}/{n}/{seed}/{candidate.key}"
                        if RECIPES[candidate.recipe].trains != networks or grid.done(cell):
                            continue
                        training = {"steps": STEPS[candidate.recipe]} if networks else {}
                        result = run_cell(
                            data,
                            task,
                            candidate.recipe,
                            candidate.on,
                            seconds=0,
                            training=training,
                            spaces=spaces,
                            test_limit=2000,
                        )
                        grid.add(cell, **result)
    write(grid)


def write(grid: Grid) -> None:
    """The table that ships: mean accuracy (a fraction) by data set, kind, labels and candidate."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for cell, figures in grid.cells.items():
        name, n, _, candidate = cell.split("/")
        found.setdefault((name, int(n)), {}).setdefault(candidate, []).append(figures["accuracy"])
    rows = []
    for (name, n), by_candidate in sorted(found.items()):
        kind = "photo" if name in PHOTO else "small colour" if name in COLOUR else "small"
        accuracy = {c: round(spread(v)["mean"] / 100, 4) for c, v in sorted(by_candidate.items())}
        rows.append({"data": name, "kind": kind, "labels": n, "accuracy": accuracy})
    record("prior", rows, seeds=f"label draws 100 to {99 + DRAWS}")
    path = Path(handful.__file__).parent / "choose" / "prior.json"
    path.write_text(json.dumps({"made by": "python -m benchmarks.prior", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
