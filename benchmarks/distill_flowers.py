"""Distillation on tf_flowers: EfficientNet-Lite0, fine-tuned on 16 labels a class with propagated pseudo-labels,
teaches conv-4 (64 px, random weights, 30 times smaller) on the 2,934 pictures of the train part; 736 test pictures, 3
label draws.

By ``handful distill`` itself: sizes, FLOPs, latency in PyTorch and in ONNX Runtime, parity of the ONNX file, accuracy
and agreement with the teacher stand in each run's folder below ``runs/benchmarks/distill_flowers``. The student learns
with the 80 labels, without any label, and from a patient teacher without any; its twin has the labels alone. All have
the same steps and augmentation.

About 40 minutes on one core; a killed run goes on in the training that it was in.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Grid, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import Dataset, tf_flowers
from benchmarks.grids import RUNS, Printer
from handful.api import DistillOptions, cache_folder, distill
from handful.data.sources import Arrays
from handful.inference.model_file import SIDE_CAR, save_model
from handful.methods.distillation import PATIENT, Distillation
from handful.recipes.candidate import Candidate
from handful.recipes.table import fit_candidate
from handful.recipes.task import Task, Workshop
from handful.stats.intervals import mean_interval

LABELS, SIZE = 16, 64
RECIPE = "fine-tune-pseudo"
VARIANTS: dict[str, tuple[Distillation, bool]] = {  # with what, and whether without labels
    "with labels": (Distillation(), False),
    "no labels": (Distillation(hard_weight=0.0, soft_weight=1.0), True),
    "no labels, patient teacher": (Distillation(**PATIENT), True),  # type: ignore[arg-type]
}


def as_arrays(data: Dataset, task: Task) -> Arrays:
    """The draw as ``api.distill`` takes data: labels of the drawn pictures and of the test part, no others."""
    y = np.full(len(data.y), -1)
    y[task.labelled.numpy()] = task.y.numpy()
    y[data.test] = data.y[data.test]
    splits = np.full(len(y), "train", dtype=object)
    splits[task.unlabelled.numpy()] = "unlabeled"
    splits[data.test] = "test"
    return Arrays(
        data.images.data.numpy(), y.tolist(), splits.tolist(), classes=data.classes, name="tf_flowers"
    )


def teacher(task: Task, folder: Path, steps: int) -> Path:
    """The fine-tuned network as a model on disk, trained once."""
    if not (folder / SIDE_CAR).exists():
        workshop = Workshop(cache_folder(), folder)
        candidate = Candidate(RECIPE, "lite0", training={"steps": steps})
        fitted = fit_candidate(candidate, task, workshop, stage="teacher")
        save_model(folder, fitted.classifier, task.classes, task.images.channels, task.images.side)
    return folder


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--student", default="conv-4")
    parser.add_argument("--steps", type=int, default=400, help="of each student")
    parser.add_argument("--teacher-steps", type=int, default=40)
    given = parser.parse_args()
    data, grid = tf_flowers(given.data_root), Grid("distill_flowers")
    setting = f"{given.student}/{given.teacher_steps}/{given.steps}"
    for seed in range(given.draws):
        task = task_for(data, LABELS, seed)
        place = RUNS / "distill_flowers" / f"{given.teacher_steps}-{seed}"
        for name, (method, label_free) in VARIANTS.items():
            cell = f"{setting}/{seed}/{name}"
            if grid.done(cell):
                continue
            options = DistillOptions(
                given.student,
                method,
                {"steps": given.steps, "batch": 16, "ratio": 3, "size": SIZE},
                label_free=label_free,
                seed=seed,
            )
            known = teacher(task, place / "teacher", given.teacher_steps)
            out = place / f"{given.student}-{given.steps}-{list(VARIANTS).index(name)}"
            done = distill(known, as_arrays(data, task), options, out=out, teller=Printer())
            grid.add(cell, figures=asdict(done.figures))
    rows = table(grid, setting, given.draws)
    record(
        "distill_flowers",
        rows,
        seeds=f"label draws 0 to {given.draws - 1}",
        labels=LABELS * len(data.classes),
        steps=given.steps,
        teacher=f"{RECIPE}@lite0, {given.teacher_steps} steps",
        note="gains: over the labels alone, paired by draw, Student's 95 % interval; times: one picture, one thread",
    )


def table(grid: Grid, setting: str, draws: int) -> list[dict[str, Any]]:
    """Means over draws; costs of the first."""

    def of(name: str, row: int) -> list[dict[str, Any]]:
        return [grid.cells[f"{setting}/{seed}/{name}"]["figures"]["rows"][row] for seed in range(draws)]

    first = next(iter(VARIANTS))
    networks = {"teacher": of(first, 0), "labels alone": of(first, 2)}
    networks |= {f"distilled, {name}": of(name, 1) for name in VARIANTS}
    base = np.array([100 * found["accuracy"] for found in networks["labels alone"]])
    rows = []
    for name, found in networks.items():
        cost, right = found[0]["cost"], np.array([100 * one["accuracy"] for one in found])
        difference = found[0]["cost"]["difference"]
        row: dict[str, Any] = {
            "network": name,
            "weights, MB": round(cost["bytes"] / 1e6, 2),
            "parameters": cost["parameters"],
            "MFLOPs": round(cost["flops"] / 1e6, 1),
            "PyTorch, ms": round(float(np.median([one["cost"]["torch_ms"] for one in found])), 2),
            "ONNX, ms": _median([one["cost"]["onnx_ms"] for one in found]),
            "difference of the ONNX file": "" if difference is None else difference,
            "accuracy": round(float(right.mean()), 2),
            "sd": round(float(right.std(ddof=1)), 2) if draws > 1 else 0.0,
        }
        if name != "teacher":
            row["agrees with the teacher"] = round(
                100 * float(np.mean([one["agreement"] for one in found])), 2
            )
        if name.startswith("distilled"):
            gain = mean_interval(right - base)
            row |= {
                "gain": round(gain.value, 2),
                "gain low": round(gain.low, 2),
                "gain high": round(gain.high, 2),
            }
        rows.append(row)
    return rows


def _median(values: list[float | None]) -> float | str:
    known = [value for value in values if value is not None]
    return round(float(np.median(known)), 2) if known else "onnx not installed"


if __name__ == "__main__":
    main()
