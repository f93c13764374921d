"""Is a temperature from so few labels worth having? Calibration error on the test part, before and after.

Heads on frozen features, 4 and 16 labels a class, 5 label draws. The temperature is set as in a run, by the held-out
logits of one cross-validation: without a prior (and 1 where every answer was right, as likelihood alone would make the
model certain of all), and with a normal prior on log T of several widths. ``CHOSEN_ON`` chose the width, by the mean
cross-entropy on their test parts; the sets in ``JUDGED_ON`` took no part. Pools and test parts above 2,000 are sampled.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cells import Grid, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from handful.api import cache_folder
from handful.recipes.table import find
from handful.recipes.task import Fitted, Task, Workshop
from handful.stats.calibration import TEMPERATURE_SD, expected_calibration_error, fit_temperature

CHOSEN_ON = ("digits", "usps", "fashion_mnist", "office-amazon", "office-webcam")
JUDGED_ON = ("mnist", "caltech101", "tf_flowers")
RECIPES = ("logistic", "propagation")
LABELS = (4, 16)
DRAWS = range(200, 205)
WIDTHS = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
LIMIT = 2000


def held_out_logits(task: Task, run: Any) -> Tensor:
    """Logits [n, K] of the labelled pictures, each by a model of the fold that held it out."""
    z = torch.zeros(len(task.y), task.n_classes)
    for held in task.folds(task.n_folds):
        z[held] = run(task.without(held)).logits(task.labelled[held])
    return z


def measure(data: Dataset, task: Task, recipe: str, spaces: dict[str, Any]) -> dict[str, Any]:
    """Calibration error (points) and cross-entropy on the test part, by rule."""
    rows = data.test
    if len(rows) > LIMIT:
        rows = np.sort(np.random.RandomState(0).choice(rows, LIMIT, replace=False))
    test, y = torch.from_numpy(rows), torch.from_numpy(data.y[rows])
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(cache_folder(), Path(folder), save_every=0, spaces=spaces)

        def run(given: Task) -> Fitted:
            on = "lite0" if given.photographs else "pixels"
            return find(recipe).run(given, workshop, on=on, stage=recipe)  # type: ignore[no-any-return]

        z, z_test = held_out_logits(task, run), run(task).logits(test)
    all_right = bool((z.argmax(1) == task.y).all())
    rules = {"T = 1": 1.0, "no prior": 1.0 if all_right else fit_temperature(z, task.y, sd=math.inf)}
    rules |= {f"{sd:g}": fit_temperature(z, task.y, sd=sd) for sd in WIDTHS}
    found: dict[str, Any] = {"accuracy": float(100 * (z_test.argmax(1) == y).float().mean()), "rules": {}}
    for rule, t in rules.items():
        confidence, guess = (z_test / t).softmax(1).max(1)
        error = 100 * expected_calibration_error(confidence.numpy(), (guess == y).numpy())
        loss = float(F.cross_entropy(z_test.double() / t, y))
        found["rules"][rule] = {"T": round(t, 4), "error": round(error, 3), "loss": round(loss, 5)}
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--sets", nargs="+", default=[*CHOSEN_ON, *JUDGED_ON], help="measure only these now")
    given = parser.parse_args()
    grid = Grid("calibration")
    for name in given.sets:
        data = DATASETS[name](given.data_root)
        for n in LABELS:
            for seed in DRAWS:
                task = task_for(data, n, seed, pool_limit=LIMIT)
                if len(task.labelled) < 0.9 * n * len(data.classes):
                    continue  # the pool does not have that many of each class
                spaces: dict[str, Any] = {}
                for recipe in RECIPES:
                    cell = f"{name}/{n}/{seed}/{recipe}"
                    if not grid.done(cell):
                        grid.add(cell, **measure(data, task, recipe, spaces))
    record(
        "calibration", table(grid), seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}", width=TEMPERATURE_SD,
        loss_by_width=widths(grid), chosen_on=", ".join(CHOSEN_ON),
    )  # fmt: skip


def table(grid: Grid) -> list[dict[str, Any]]:
    """A row for each data set, size and recipe: means over the draws, and the worst draw."""
    rows = []
    for name in (*JUDGED_ON, *CHOSEN_ON):
        for n in LABELS:
            for recipe in RECIPES:
                ours = [
                    c for k, c in grid.cells.items() if k.startswith(f"{name}/{n}/") and k.endswith(recipe)
                ]
                if not ours:
                    continue
                row: dict[str, Any] = {
                    "data": name + (" (chose the width)" if name in CHOSEN_ON else ""),
                    "labels": n,
                    "recipe": recipe,
                    "accuracy": round(float(np.mean([c["accuracy"] for c in ours])), 1),
                }
                for title, rule in (
                    ("T = 1", "T = 1"),
                    ("no prior", "no prior"),
                    ("prior", f"{TEMPERATURE_SD:g}"),
                ):
                    errors = [c["rules"][rule]["error"] for c in ours]
                    row[f"calibration error, {title}"] = round(float(np.mean(errors)), 1)
                    row[f"worst draw, {title}"] = round(max(errors), 1)
                rows.append(row)
    return rows


def widths(grid: Grid) -> dict[str, float]:
    """Mean cross-entropy over the data sets that chose, by width of the prior."""
    ours = [c for k, c in grid.cells.items() if k.partition("/")[0] in CHOSEN_ON]
    rules = ours[0]["rules"] if ours else []
    return {rule: round(float(np.mean([c["rules"][rule]["loss"] for c in ours])), 4) for rule in rules}


if __name__ == "__main__":
    main()
