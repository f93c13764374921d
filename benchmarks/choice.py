"""By how much must a candidate lead to ship? The rule of choice under several thresholds, on photographs.

The candidates that take seconds are cross-validated on the labelled pictures of each draw, as ``auto`` does it; the
prior leaves the data set out. Test accuracy of what each threshold would have shipped, beside always shipping label
propagation or regression. tf_flowers takes no part: ``auto`` is judged on it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Grid, score, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.api import cache_folder
from handful.choose.auto import CHEAP_REPEATS, MOST_FOLDS
from handful.choose.rule import EVIDENCE_FROM, decide, prior_table
from handful.data.split import folds
from handful.recipes.candidate import Candidate
from handful.recipes.table import RECIPES, find, fit_candidate
from handful.recipes.task import Workshop

DATA = ("office-amazon", "office-caltech", "office-webcam")
LABELS = (4, 16)
DRAWS = range(300, 304)
SURE = (0.0, 0.25, 0.5, 1.0, 2.0)
CHEAP = [name for name, recipe in RECIPES.items() if recipe.cheap]


def measure(data: Any, name: str, n: int, seed: int, spaces: dict[str, Any]) -> dict[str, Any] | None:
    """Test accuracy (%) by threshold, and of two fixed choices."""
    task = task_for(data, n, seed, pool_limit=5000)
    if len(task.labelled) < n * len(data.classes) * 0.9:
        return None
    n_folds = min(MOST_FOLDS, n)
    right: dict[str, np.ndarray] = {}
    test: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(cache=cache_folder(), folder=Path(folder), spaces=spaces)
        for recipe in CHEAP:
            candidate = Candidate(recipe, "lite0")
            found = np.zeros((CHEAP_REPEATS, len(task.y)))
            for repeat, fold_of in enumerate(folds(task.y.numpy(), n_folds, CHEAP_REPEATS, seed)):
                for fold in range(n_folds):
                    held = torch.from_numpy(fold_of == fold)
                    fitted = fit_candidate(candidate, task.without(held), workshop)
                    guess = fitted.logits(task.labelled[held]).argmax(1)
                    found[repeat, fold_of == fold] = (guess == task.y[held]).numpy()
            right[candidate.key] = found
            test[candidate.key] = score(fit_candidate(candidate, task, workshop), data)
    prior = prior_table().without((name,))
    users = {Candidate(recipe, "lite0").key: find(recipe).uses_unlabelled for recipe in CHEAP}
    assert n >= EVIDENCE_FROM
    shipped = {
        f"{sure:g}": test[decide(users, prior, "photo", n, right, n_folds, sure).chosen] for sure in SURE
    }
    return {**shipped, "propagation": test["propagation@lite0"], "logistic": test["logistic@lite0"]}


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    grid = Grid("choice")
    rows = []
    for name in DATA:
        data, spaces = DATASETS[name](given.data_root), dict[str, Any]()
        for n in LABELS:
            found = []
            for seed in DRAWS:
                cell = f"{name}/{n}/{seed}"
                if not grid.done(cell):
                    figures = measure(data, name, n, seed, spaces)
                    if figures is None:
                        continue
                    grid.add(cell, **figures)
                found.append({k: v for k, v in grid.cells[cell].items() if k != "cell"})
            if found:
                mean = {k: float(np.mean([row[k] for row in found])) for k in found[0]}
                rows.append({"data": name, "labels": n, "draws": len(found), **mean})
    total = {
        k: float(np.mean([row[k] for row in rows])) for k in rows[0] if k not in ("data", "labels", "draws")
    }
    record(
        "choice",
        [*rows, {"data": "mean of the rows", **total}],
        seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}",
    )


if __name__ == "__main__":
    main()
