"""Label propagation stopped after a number of sweeps, against its limit.

The limit (1 - alpha)(I - alpha S)^-1 Y is solved for by conjugate gradients to a residual of 1e-8. "head" rows are
test accuracies (%) of the linear head, with all else as ``recipes.label_propagation`` sets it for such pictures;
"labels" rows are the share (%) of the pool's unlabelled pictures that get the right label with the settings of
self-training's teacher on pixels. Means over the same label draws.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import cg

from benchmarks.cells import Grid, score, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from handful.api import cache_folder
from handful.methods.label_propagation import LabelPropagation
from handful.recipes.label_propagation import propagate, propagation_for, teacher_for, teacher_targets
from handful.recipes.task import Workshop

DATA = {"tf_flowers": "lite0", "office-caltech": "lite0", "usps": "pixels", "mnist": "pixels"}
LABELS, DRAWS, POOL_LIMIT = (1, 4, 16), range(20, 25), 3000
SWEEPS = ((0.9, 20), (0.95, 30), (0.99, 100))  # those in use, for photographs, pixels and the teacher
RESIDUAL = 1e-8


class Limit(LabelPropagation):
    """The sweeps carried on for ever."""

    def diffuse(self, s: sparse.csr_matrix, start: np.ndarray) -> np.ndarray:
        system = sparse.identity(s.shape[0]) - self.alpha * s
        columns = []
        for column in start.T:
            f, failed = cg(system, (1 - self.alpha) * column, rtol=RESIDUAL, atol=0, maxiter=5000)
            assert not failed
            columns.append(f)
        return np.stack(columns, 1)


def variants(base: LabelPropagation) -> dict[str, LabelPropagation]:
    """By name: sweeps at each alpha, and their limit."""
    found = {f"{a:g} x {t}": replace(base, alpha=a, iterations=t) for a, t in SWEEPS}
    settings = {k: v for k, v in vars(base).items() if k not in ("alpha", "iterations")}
    limits = {f"{a:g} limit": Limit(**settings, alpha=a) for a in dict.fromkeys(a for a, _ in SWEEPS)}
    return dict(sorted((found | limits).items()))


def measure(data: Dataset, on: str, n: int, seed: int, spaces: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of one draw."""
    task = task_for(data, n, seed, pool_limit=POOL_LIMIT)
    truth = torch.from_numpy(data.y)[task.unlabelled]
    found: dict[str, dict[str, float]] = {"head": {}}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(cache_folder(), Path(folder), spaces=spaces)
        for key, method in variants(propagation_for(task)).items():
            head = propagate(task, workshop, on=on, method=method)
            found["head"][key] = round(score(head, data, test_limit=2000), 3)
        teacher = teacher_for(on)
        for key, method in variants(teacher).items() if teacher else ():
            p = teacher_targets(task, workshop, on=on, method=method)
            right = float(100 * (p.argmax(1) == truth).double().mean())
            found.setdefault("labels", {})[key] = round(right, 3)
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="*", default=list(DATA), help="measure only these sets now")
    given = parser.parse_args()
    grid, rows = Grid("sweeps"), []
    for name, on in DATA.items():
        data = DATASETS[name](given.data_root) if name in given.only else None
        for n in LABELS:
            spaces = dict[str, Any]()
            for seed in DRAWS:
                if data is not None and not grid.done(f"{name}/{n}/{seed}"):
                    grid.add(f"{name}/{n}/{seed}", **measure(data, on, n, seed, spaces))
            done = [grid.cells[f"{name}/{n}/{seed}"] for seed in DRAWS if grid.done(f"{name}/{n}/{seed}")]
            for what in ("head", "labels") if done and "labels" in done[0] else ("head",) if done else ():
                means = {k: round(float(np.mean([c[what][k] for c in done])), 2) for k in done[0][what]}
                rows.append({"data": name, "of": what, "labels": n, "draws": len(done), **means})
    record("sweeps", rows, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}")


if __name__ == "__main__":
    main()
