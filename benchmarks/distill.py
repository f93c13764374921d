"""Distillation on CIFAR-10: 1,000 labels (100 a class) in a pool of 10,000 pictures, 5,000 test pictures, 3 draws.

The teacher is what ``handful fit`` would make of them: label propagation on features of EfficientNet-Lite0 (3.4 million
weights). Students are conv-4 from random weights (0.11 million, 30 times fewer). Every student has the same steps,
labelled pictures a step and augmentation (weak); the one that has the labels alone is the baseline, and each difference
is paired by draw. Temperatures, weights of labels and answers, and imitated features are all in the table: nothing was
chosen by it, and the defaults come from the literature. The teacher answers for each picture as it is, once.

About 35 minutes on one core; a killed run goes on in the training that it was in.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Grid, score, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import Dataset, cifar10
from benchmarks.grids import RUNS
from handful.api import cache_folder
from handful.data.images import from_array
from handful.methods.distillation import Distillation
from handful.models.count import count
from handful.randomness import permutation
from handful.recipes.distill import Lessons, distilled, labels_alone
from handful.recipes.feature_space import space
from handful.recipes.label_propagation import propagate
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.training import Training
from handful.stats.intervals import mean_interval

LABELS, POOL, TEST = 100, 10_000, 5_000
STUDENT = Training(backbone="conv-4", steps=400, ratio=3)
VIEW: dict[str, Any] = {"view": "weak", "taught_view": "weak"}
VARIANTS: dict[str, Distillation] = {
    **{f"T = {t:g}, weights 0.1 / 0.9": Distillation(t, **VIEW) for t in (1.0, 2.0, 4.0, 10.0, 20.0)},
    **{
        f"T = 4, weights {hard:g} / {soft:g}": Distillation(4.0, hard, soft, **VIEW)
        for hard, soft in ((0.9, 0.1), (0.5, 0.5), (0.0, 1.0))
    },
    "T = 4, weights 0.1 / 0.9, features 1": Distillation(
        4.0, feature_weight=1.0, feature_loss="direction", **VIEW
    ),
}
ALONE = "labels alone (weights 1 / 0)"


def some(data: Dataset, pool: int, test: int) -> Dataset:
    """A fixed sample of the pool and of the test part."""
    parts = [
        np.sort(rows[permutation(len(rows), name)[:n]])
        for rows, name, n in ((data.pool, "pool", pool), (data.test, "test", test))
    ]
    rows = np.concatenate(parts)
    images = from_array(data.images.take(rows).numpy())
    n = len(parts[0])
    return Dataset(images, data.y[rows], np.arange(n), np.arange(n, len(rows)), data.classes)


class Draw:
    """One label draw: its task, its teacher and what that says, each made when it is first needed."""

    def __init__(self, data: Dataset, seed: int, steps: int) -> None:
        self.task: Task = task_for(data, LABELS, seed)
        self.workshop = Workshop(cache_folder(), RUNS / "distill" / f"{len(data.pool)}-{seed}")
        self.training = replace(STUDENT, steps=steps)
        self._teacher: Fitted | None = None

    def teacher(self) -> Fitted:
        """A head on frozen features, which the cache keeps."""
        self._teacher = self._teacher or propagate(self.task, self.workshop, on="lite0")
        return self._teacher

    def lessons(self) -> Lessons:
        """Its answers, and its features as the head sees them (centred, of length 1)."""
        rows = self.task.pool()
        log_p = self.teacher().logits(rows).log_softmax(1)
        return Lessons(rows, log_p, space(self.task, self.workshop, "lite0").table[rows])

    def student(self, name: str) -> Fitted:
        """Trained by one variant; its stage is kept below ``runs/``."""
        stage = f"student-{[ALONE, *VARIANTS].index(name)}"
        if name == ALONE:
            method = Distillation(**VIEW)
            return labels_alone(Stage("", self.task, method, self.training), self.workshop, name=stage)
        return distilled(
            Stage(stage, self.task, VARIANTS[name], self.training), self.lessons(), self.workshop
        )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STUDENT.steps, help="of each student")
    parser.add_argument(
        "--pool", type=int, default=POOL, help="pictures to learn from, labelled ones among them"
    )
    parser.add_argument("--test", type=int, default=TEST, help="test pictures")
    given = parser.parse_args()
    data, grid = some(cifar10(given.data_root), given.pool, given.test), Grid("distill")
    setting = f"{given.pool}/{given.steps}/{given.test}"
    for seed in range(given.draws):
        draw = Draw(data, seed, given.steps)
        for name in ("teacher", ALONE, *VARIANTS):
            cell = f"{setting}/{seed}/{name}"
            if grid.done(cell):
                continue
            begin = time.perf_counter()
            fitted = draw.teacher() if name == "teacher" else draw.student(name)
            spec = fitted.classifier.spec
            size = count(fitted.classifier, (spec.channels, spec.size, spec.size))
            grid.add(
                cell,
                accuracy=round(score(fitted, data), 3),
                parameters=size.parameters,
                mflops=round(size.flops / 1e6, 2),
                seconds=round(time.perf_counter() - begin, 1),
            )
    rows = []
    for name in ("teacher", ALONE, *VARIANTS):
        cells = [grid.cells[f"{setting}/{seed}/{name}"] for seed in range(given.draws)]
        base = [grid.cells[f"{setting}/{seed}/{ALONE}"]["accuracy"] for seed in range(given.draws)]
        mine = np.array([cell["accuracy"] for cell in cells])
        row = {
            "network": name,
            "parameters": cells[0]["parameters"],
            "MFLOPs": cells[0]["mflops"],
            "accuracy": round(float(mine.mean()), 2),
            "sd": round(float(mine.std(ddof=1)), 2) if len(mine) > 1 else 0.0,
        }
        if name not in ("teacher", ALONE):
            gain = mean_interval(mine - np.array(base))
            row |= {
                "gain": round(gain.value, 2),
                "gain low": round(gain.low, 2),
                "gain high": round(gain.high, 2),
            }
        rows.append(row | {"seconds": round(float(np.mean([cell["seconds"] for cell in cells])), 1)})
    record(
        "distill",
        rows,
        seeds=f"label draws 0 to {given.draws - 1}",
        labels=LABELS * len(data.classes),
        pool=given.pool,
        steps=given.steps,
        test=given.test,
        threads=torch.get_num_threads(),
        note="gains: over the labels alone, paired by draw, with Student's 95 % interval",
    )


if __name__ == "__main__":
    main()
