"""Long-tailed labels: Fashion-MNIST where the most frequent class has 20 times the pictures of the rarest, among the
labels (40 to 2) and in the pool (4,000 to 200) alike; which class is rare changes with the draw.

A small residual net (28 px) trains for 300 steps by each method, with and without distribution alignment, and by
supervised training with the same steps and views. The test part is balanced, 1,000 pictures a class, so accuracy on it
is balanced accuracy; "accuracy" is what it would be where the classes come as often as in the pool. Differences are
paired by draw. About 25 minutes on one core with bfloat16 and without AMX. The settings are the recipes' own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Grid, spread
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.grids import RUNS
from handful.api import cache_folder
from handful.randomness import permutation
from handful.recipes.table import find
from handful.recipes.task import Task, Workshop
from handful.recipes.training import small_training
from handful.stats.intervals import balanced_accuracy, macro_f1, mean_interval
from handful.study.contenders import parse

TAIL, MOST_LABELS, MOST, STEPS, RATIO, RARE = 20, 40, 4000, 300, 4, 3
ALONE = "supervised"
PAIRS = {
    name: (f"{name}:method.align=false", f"{name}:method.align=true")
    for name in ("fixmatch", "uda", "softmatch")
}
CONTENDERS = (ALONE, *(text for pair in PAIRS.values() for text in pair))


def tail(most: int, k: int) -> np.ndarray:
    """Pictures of each class, most frequent first: falling by equal factors from ``most`` to a twentieth."""
    return np.round(most * TAIL ** (-np.arange(k) / (k - 1))).astype(np.int64)


def long_tailed(data: Dataset, seed: int, most: int = MOST) -> tuple[Task, np.ndarray]:
    """A task whose labels and pool have the same long tail, and the classes from the most frequent to the rarest."""
    k = len(data.classes)
    order = permutation(k, "tail", seed)
    labelled, rest = [], []
    for few, many, c in zip(tail(MOST_LABELS, k), tail(most, k), order):
        rows = data.pool[data.y[data.pool] == c]
        rows = rows[permutation(len(rows), "long tail", seed, int(c))]
        labelled.append(rows[:few])
        rest.append(rows[few : few + many])
    rows = torch.from_numpy(np.sort(np.concatenate(labelled)))
    y = torch.from_numpy(data.y[rows.numpy()])
    others = torch.from_numpy(np.sort(np.concatenate(rest)))
    return Task(data.images, rows, y, others, data.classes, seed=seed), order


def measure(task: Task, order: np.ndarray, data: Dataset, text: str, steps: int) -> dict[str, float]:
    """Percent on the balanced test part, and as it would be with the pool's tail."""
    contender = parse(text)
    row = find(contender.recipe)
    training = replace(small_training(task), steps=steps, ratio=RATIO)
    # one folder for a draw: with and without alignment go on from the same first student
    workshop = Workshop(cache_folder(), RUNS / "imbalance" / f"{task.seed}")
    method = row.make(**contender.method)
    fitted = row.run(task, workshop, on="pixels", method=method, training=training, stage=contender.recipe)
    guess, truth = fitted.logits(torch.from_numpy(data.test)).argmax(1).numpy(), data.y[data.test]
    recall = np.array([(guess[truth == c] == c).mean() for c in order])
    share = tail(MOST, len(order)) / tail(MOST, len(order)).sum()
    found = {
        "accuracy": float(share @ recall),
        "balanced": balanced_accuracy(truth, guess, len(order)),
        "macro_f1": macro_f1(truth, guess, len(order)),
        "rarest": float(recall[-RARE:].mean()),
    }
    return {name: round(100 * value, 3) for name, value in found.items()}


def rows(grid: Grid, seeds: range) -> list[dict[str, Any]]:
    """Means over draws; what alignment gives, and what each gives over labelled-only training, paired."""

    def column(text: str, name: str) -> np.ndarray:
        return np.array([grid.cells[f"{seed}/{text}"][name] for seed in seeds])

    found: list[dict[str, Any]] = []
    for text in CONTENDERS:
        row: dict[str, Any] = {"recipe": text}
        for name in ("accuracy", "balanced", "macro_f1", "rarest"):
            told = spread(list(column(text, name)))
            row |= {name: told["mean"], f"{name} sd": told["sd"]}
        found.append(row)
    for name, (without, aligned) in PAIRS.items():
        for words, a, b in (
            (f"{name}: aligned minus not", aligned, without),
            (f"{name}, aligned, minus {ALONE}", aligned, ALONE),
        ):
            gain = mean_interval(column(a, "balanced") - column(b, "balanced"))
            row = {"recipe": words, "balanced": round(gain.value, 2)}
            found.append(row | {"balanced low": round(gain.low, 2), "balanced high": round(gain.high, 2)})
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--most", type=int, default=MOST, help="pictures without labels of the most frequent class"
    )
    given = parser.parse_args()
    grid, data = Grid("imbalance"), DATASETS["fashion_mnist"](given.data_root)
    seeds = range(given.draws)
    for seed in seeds:
        task, order = long_tailed(data, seed, given.most)
        for text in CONTENDERS:
            if not grid.done(f"{seed}/{text}"):
                grid.add(f"{seed}/{text}", **measure(task, order, data, text, given.steps))
    about = {"seeds": f"draws 0 to {given.draws - 1}", "steps": given.steps, "ratio of the tail": TAIL}
    record("imbalance", rows(grid, seeds), **about, labels=f"{MOST_LABELS} to {MOST_LABELS // TAIL} a class")


if __name__ == "__main__":
    main()
