"""Distillation on Fashion-MNIST: 1,000 labels (100 a class) in a pool of 10,000, 10,000 test pictures, 3 draws.

The teacher (small-resnet, 1.03 million weights) is trained by FixMatch; students are conv-4 (0.11 million, 9 times
fewer). Every student has the same steps, labelled pictures a step and augmentation (strong); the one that has the
labels alone is the baseline, and each difference is paired by draw. Temperatures, weights of labels and answers, a
patient teacher and imitated features are all in the table: nothing was chosen by it, and the defaults come from the
literature. The teacher answers for each picture as it is, once; the patient one at every step.

About 40 minutes on one core; a killed run goes on in the training that it was in.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Grid, score, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import Dataset, fashion_mnist
from benchmarks.grids import RUNS
from handful.api import cache_folder
from handful.methods.distillation import PATIENT, Distillation
from handful.models.count import count
from handful.recipes.distill import Lessons, distilled, labels_alone, own_lessons
from handful.recipes.matching import matching
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training
from handful.statistics import mean_interval

LABELS, POOL = 100, 10_000
TEACHER = Training(backbone="small-resnet", steps=800, ratio=3)
STUDENT = Training(backbone="conv-4", steps=800, ratio=3)
VARIANTS: dict[str, Distillation] = {
    **{f"T = {t:g}, weights 0.1 / 0.9": Distillation(temperature=t) for t in (1.0, 2.0, 4.0, 10.0, 20.0)},
    **{
        f"T = 4, weights {hard:g} / {soft:g}": Distillation(hard_weight=hard, soft_weight=soft)
        for hard, soft in ((0.9, 0.1), (0.5, 0.5), (0.0, 1.0))
    },
    "T = 4, weights 0.1 / 0.9, features 1": Distillation(feature_weight=1.0),
    "T = 4, patient, MixUp, no labels": Distillation(**PATIENT),  # type: ignore[arg-type]
}
ALONE = "labels alone (weights 1 / 0)"


class Draw:
    """One label draw: its task, its teacher and what that says, each made when it is first needed."""

    def __init__(self, data: Dataset, seed: int, given: Any) -> None:
        self.data, self.given = data, given
        self.task: Task = task_for(data, LABELS, seed, given.pool - LABELS * len(data.classes))
        self.workshop = Workshop(cache_folder(), RUNS / "distill" / str(seed))
        self._teacher: Fitted | None = None
        self._lessons: Lessons | None = None

    def teacher(self) -> Fitted:
        """Trained once; kept below ``runs/``."""
        if self._teacher is None:
            training = replace(TEACHER, steps=self.given.teacher_steps)
            self._teacher = matching(
                "fixmatch", self.task, self.workshop, on="pixels", training=training, stage="teacher"
            )
        return self._teacher

    def lessons(self) -> Lessons:
        """Its answers and features."""
        if self._lessons is None:
            wanted = Distillation(feature_weight=1.0)
            self._lessons = own_lessons(self.teacher(), self.task, self.workshop, wanted)
        return self._lessons

    def student(self, name: str) -> Fitted:
        """Trained by one variant."""
        training = replace(STUDENT, steps=self.given.steps)
        stage = f"student-{[ALONE, *VARIANTS].index(name)}"
        if name == ALONE:
            return labels_alone(self.task, self.workshop, Distillation(), training, like="", stage=stage)
        return distilled(self.task, self.workshop, self.lessons(), VARIANTS[name], training, stage=stage)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STUDENT.steps, help="of each student")
    parser.add_argument("--teacher-steps", type=int, default=TEACHER.steps)
    parser.add_argument(
        "--pool", type=int, default=POOL, help="pictures to learn from, labelled ones among them"
    )
    parser.add_argument("--test", type=int, default=0, help="test pictures; 0: all")
    given = parser.parse_args()
    data, grid = fashion_mnist(given.data_root), Grid("distill")
    setting = f"{given.pool}/{given.teacher_steps}/{given.steps}/{given.test}"
    for seed in range(given.draws):
        draw = Draw(data, seed, given)
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
                accuracy=round(score(fitted, data, given.test), 3),
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
        teacher_steps=given.teacher_steps,
        threads=torch.get_num_threads(),
        note="gains: over the labels alone, paired by draw, with Student's 95 % interval",
    )


if __name__ == "__main__":
    main()
