"""By how much must a candidate lead to ship? The rule of choice under several thresholds.

The candidates that take seconds are cross-validated on the labelled pictures of each draw, as ``auto`` does it; the
prior leaves the data set out. Test accuracy of what each threshold would have shipped, beside always shipping label
propagation or regression. Data sets on which ``auto`` is judged (tf_flowers, Caltech-101, digits, Fashion-MNIST,
CIFAR-10) take no part. ``rule.SURE`` is the most cautious threshold that is worse than the best one by no more than two
standard errors of their paired difference over all draws. How often each labelled picture was answered rightly is kept
with each cell: another rule needs no measuring.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Grid, score, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.api import cache_folder
from handful.choose.auto import CHEAP_REPEATS
from handful.choose.prior import prior_table
from handful.choose.rule import decide
from handful.recipes.candidate import Candidate
from handful.recipes.table import RECIPES, find, fit_candidate
from handful.recipes.task import Workshop

DATA = {  # the kind of pictures, and the space of the candidates
    "office-amazon": ("photo", "lite0"),
    "office-caltech": ("photo", "lite0"),
    "office-webcam": ("photo", "lite0"),
    "mnist": ("small", "pixels"),
    "usps": ("small", "pixels"),
}
LABELS = (4, 16)
DRAWS = range(300, 308)
SURE = (0.0, 0.25, 0.5, 1.0, 2.0)
CHEAP = [name for name, recipe in RECIPES.items() if recipe.cheap]


def measure(data: Any, on: str, n: int, seed: int, spaces: dict[str, Any]) -> dict[str, Any] | None:
    """Of each candidate: how often each labelled picture was right, a digit each, and its test accuracy (%)."""
    task = task_for(data, n, seed, pool_limit=3000)
    if len(task.labelled) < n * len(data.classes) * 0.9:
        return None
    right, test = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(cache=cache_folder(), folder=Path(folder), spaces=spaces)
        for recipe in CHEAP:
            candidate = Candidate(recipe, on)
            found = np.zeros(len(task.y), dtype=int)
            for repeat in range(CHEAP_REPEATS):
                for held in task.folds(task.n_folds, repeat):
                    fitted = fit_candidate(candidate, task.without(held), workshop)
                    guess = fitted.logits(task.labelled[held]).argmax(1)
                    found[held.numpy()] += (guess == task.y[held]).numpy()
            right[recipe] = "".join(map(str, found))
            test[recipe] = round(score(fit_candidate(candidate, task, workshop), data, test_limit=2000), 3)
    return {"folds": task.n_folds, "repeats": CHEAP_REPEATS, "right": right, "test": test}


def shipped(name: str, n: int, cell: dict[str, Any]) -> dict[str, float]:
    """Test accuracy (%) of what ships under each threshold, and of two fixed choices."""
    kind, on = DATA[name]
    test = {Candidate(recipe, on).key: accuracy for recipe, accuracy in cell["test"].items()}
    right = {
        Candidate(recipe, on).key: np.array([[int(digit) / cell["repeats"] for digit in digits]])
        for recipe, digits in cell["right"].items()
    }
    users = {Candidate(recipe, on).key: find(recipe).uses_unlabelled for recipe in cell["test"]}
    prior = prior_table().without((name,))
    verdicts = {sure: decide(users, prior, kind, n, right, cell["folds"], sure) for sure in SURE}
    return {
        **{f"{sure:g}": test[verdict.chosen] for sure, verdict in verdicts.items()},
        "propagation": test[f"propagation@{on}"],
        "logistic": test[f"logistic@{on}"],
    }


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    grid, rows, draws = Grid("choice"), [], []
    for name, (kind, on) in DATA.items():
        missing = any(not grid.done(f"{name}/{n}/{seed}") for n in LABELS for seed in DRAWS)
        data = DATASETS[name](given.data_root) if missing else None
        for n in LABELS:
            found = []
            for seed in DRAWS:
                cell, spaces = f"{name}/{n}/{seed}", dict[str, Any]()
                if not grid.done(cell):
                    figures = measure(data, on, n, seed, spaces)
                    if figures is None:
                        continue
                    grid.add(cell, **figures)
                found.append(shipped(name, n, grid.cells[cell]))
            if found:
                mean = {k: float(np.mean([row[k] for row in found])) for k in found[0]}
                draws += found
                rows.append({"data": name, "kind": kind, "labels": n, "draws": len(found), **mean})
    total = {k: float(np.mean([row[k] for row in rows])) for k in draws[0]}
    accuracy = {f"{sure:g}": np.array([row[f"{sure:g}"] for row in draws]) for sure in SURE}
    best = max(accuracy, key=lambda sure: accuracy[sure].mean())
    paired = {sure: values - accuracy[best] for sure, values in accuracy.items()}
    rows += [
        {"data": "mean of the rows", **total},
        {"data": f"paired, minus {best}", **{sure: float(d.mean()) for sure, d in paired.items()}},
        {
            "data": "its standard error",
            **{k: float(d.std(ddof=1) / len(d) ** 0.5) for k, d in paired.items()},
        },
    ]
    record("choice", rows, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}")


if __name__ == "__main__":
    main()
