"""Learnt on bright pictures, tested on dark ones, with and without augmentation of the brightness.

The training part is the half of each class that is brighter (mean gray above the class's median); each network is
tested on the darker half of the test pictures and, for comparison, on the brighter half. CIFAR-10 with 100 labels per
class, a small network from random weights, 400 steps; tf_flowers with 16, EfficientNet-Lite0 fine-tuned for 100 steps.
Three label draws. How far the halves are apart is measured as ``handful inspect --against`` does, without its frozen
features.

    python -m benchmarks.bright_dark [--only cifar10|tf_flowers] [--steps N]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.cells import Grid, run_cell, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from handful.data import gap as gaps
from handful.data.images import from_array
from handful.recipes.table import find

VIEWS = {
    "weak": "weak",
    "weak + brightness": "weak+brightness:low=0.2:high=1.2",
    "weak + RandAugment": "weak+randaugment:n=2:m=9",
}
CASES: dict[str, tuple[str, str, int, int, dict[str, Any]]] = {
    "cifar10": ("supervised", "pixels", 100, 400, {"batch": 64}),
    "tf_flowers": ("fine-tune", "lite0", 16, 100, {}),
}
COMPARED = 1000  # pictures of each half that the gap is measured on


def brighter(data: Dataset) -> np.ndarray:
    """Whether each picture is brighter than the middle of its class and part: bool [N]."""
    gray = np.concatenate(
        [
            data.images.take(some).float().mean((1, 2, 3)).numpy()
            for some in torch.arange(len(data.y)).split(4096)
        ]
    )
    bright = np.zeros(len(data.y), bool)
    for part in (data.pool, data.test):
        for k in range(len(data.classes)):
            some = part[data.y[part] == k]
            bright[some] = gray[some] > np.median(gray[some])
    return bright


def apart(data: Dataset, learnt: np.ndarray, tested: np.ndarray) -> dict[str, Any]:
    """How well two parts can be told apart, and by how much their brightness differs."""
    figures, looks = [], []
    n = min(COMPARED, len(learnt), len(tested))
    for part in (learnt, tested):
        some = np.sort(np.random.RandomState(0).choice(part, n, replace=False))
        images = from_array(data.images.take(some).numpy())
        figures.append(gaps.measures(images, torch.arange(n)))
        looks.append(gaps.looks(images, torch.arange(n)))
    names = list(figures[0])
    features = [
        torch.cat([x, gaps.as_features(f, names)], 1) for x, f in zip(gaps.components(*looks), figures)
    ]
    found = gaps.gap((features[0], figures[0]), (features[1], figures[1]))
    light = next(shift for shift in found.shifts if shift.name == "brightness")
    return {
        "told apart": round(100 * found.accuracy.value, 1),
        "low": round(100 * found.accuracy.low, 1),
        "high": round(100 * found.accuracy.high, 1),
        "brightness learnt": round(light.first, 3),
        "brightness tested": round(light.second, 3),
        "shift in sd": round(light.effect.value, 2),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--steps", type=int, default=0, help="instead of the usual number: for a quick try")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    grid = Grid("bright_dark")
    found: list[dict[str, Any]] = []
    for name, (recipe, on, labels, usual, more) in CASES.items():
        if given.only not in (None, name):
            continue
        data = DATASETS[name](given.data_root)
        bright = brighter(data)
        pool = data.pool[bright[data.pool]]
        parts = {word: data.test[bright[data.test] == (word == "bright")] for word in ("dark", "bright")}
        for word, rows in parts.items():
            found.append({"data": name, "augmentation": f"gap to the {word} half", **apart(data, pool, rows)})
        training = {"steps": given.steps or usual, **more}
        right: dict[str, dict[str, np.ndarray]] = {}
        for words, view in VIEWS.items():
            cells = []
            for seed in range(given.seeds):
                cell = f"{name}-{words}-{training['steps']}-{seed}"
                if not grid.done(cell):
                    method = find(recipe).make(view=view)
                    task = task_for(data._replace(pool=pool), labels, seed)
                    scored = run_cell(
                        data, task, recipe, on, seconds=0, training=training, method=method, parts=parts
                    )
                    grid.add(cell, **scored)
                cells.append(grid.cells[cell])
            right[words] = {word: np.array([c[word] for c in cells]) for word in parts}
            lost = right[words]["bright"] - right[words]["dark"]
            more_in_the_dark = right[words]["dark"] - right["weak"]["dark"]
            row: dict[str, Any] = {"data": name, "augmentation": words, "labels": labels}
            for word in parts:
                row |= {
                    f"{word} half": float(right[words][word].mean()),
                    f"{word} sd": _sd(right[words][word]),
                }
            row |= {"lost in the dark": float(lost.mean()), "lost sd": _sd(lost)}
            row |= {
                "dark, minus weak": float(more_in_the_dark.mean()),
                "minus weak sd": _sd(more_in_the_dark),
            }
            found.append(row)
    record("bright_dark", found, seeds=f"label draws 0 to {given.seeds - 1}")


def _sd(values: np.ndarray) -> float:
    return round(float(values.std(ddof=1)), 2) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
