"""tf_flowers at 1, 4, 16 and 64 labels per class, 5 label draws, every recipe and the floor on the same draws.

The floor is what an afternoon's script reaches: the better of plain regression and plain label propagation on
fp32 features of the same backbone, written here with scikit-learn and scipy alone. The prior that ``auto`` uses
leaves tf_flowers out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from benchmarks.cells import Grid, run_cell, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import Dataset, tf_flowers
from handful.api import cache_folder
from handful.data.features import cached_features
from handful.models.backbones import create
from handful.recipes.task import Task
from handful.statistics import mean_interval

LABELS = (1, 4, 16, 64)
DRAWS = 5
AUTO_SECONDS = 60
STEPS = 40  # of fine-tuning, 16 labelled pictures each
COMPARED = (
    "logistic", "nearest-mean", "knn", "propagation", "fine-tune", "fine-tune-pseudo", "auto",
)  # fmt: skip


def floor(data: Dataset, task: Task) -> dict[str, float]:
    """The script: centred, normalised fp32 features; C = 10; 10 neighbours, cosine cubed, alpha 0.9, 20 rounds."""
    raw, _ = cached_features(
        "lite0",
        create("lite0", pretrained=True),
        data.images,
        fingerprint=data.images.fingerprint,
        cache=cache_folder() / "features",
        backend="torch-eager-fp32",
    )
    raw = raw.numpy()
    pool = torch.cat([task.labelled, task.unlabelled]).numpy()
    x = raw - raw[pool].mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y, test = task.y.numpy(), data.test
    truth = data.y[test]
    regression = LogisticRegression(C=10, max_iter=1000).fit(x[task.labelled], y)
    found = {"regression": 100 * float((regression.predict(x[test]) == truth).mean())}
    means = np.stack([x[task.labelled][y == k].mean(0) for k in range(task.n_classes)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    found["nearest mean"] = 100 * float(((x[test] @ means.T).argmax(1) == truth).mean())
    distance, index = NearestNeighbors(n_neighbors=11, metric="cosine").fit(x[pool]).kneighbors(x[pool])
    rows = np.repeat(np.arange(len(pool)), 10)
    weight = (1 - distance[:, 1:]).clip(0).ravel() ** 3
    a = sparse.csr_matrix((weight, (rows, index[:, 1:].ravel())), shape=(len(pool), len(pool)))
    a = a + a.T
    scale = sparse.diags(1 / np.sqrt(np.asarray(a.sum(1)).ravel().clip(1e-9)))
    s = scale @ a @ scale
    start = np.zeros((len(pool), task.n_classes))
    start[np.arange(len(y)), y] = 1
    f = start.copy()
    for _ in range(20):
        f = 0.9 * (s @ f) + 0.1 * start
    guess = f.argmax(1)
    guess[: len(y)] = y
    learnt = LogisticRegression(C=10, max_iter=1000).fit(x[pool], guess)
    found["propagation"] = 100 * float((learnt.predict(x[test]) == truth).mean())
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    given = parser.parse_args()
    grid = Grid("flowers")
    data = tf_flowers(given.data_root)
    networks = {"fine-tune", "fine-tune-pseudo"}
    for costly in (False, True):  # the quick cells first
        for n in LABELS:
            for seed in range(DRAWS):
                task = task_for(data, n, seed)
                spaces: dict[Any, Any] = {}
                if not grid.done(f"tf_flowers/{n}/{seed}/floor"):
                    found = floor(data, task)
                    grid.add(f"tf_flowers/{n}/{seed}/floor", accuracy=max(found.values()), **found)
                for recipe in COMPARED:
                    cell = f"tf_flowers/{n}/{seed}/{recipe}"
                    if grid.done(cell) or (recipe in networks) != costly:
                        continue
                    training = {"steps": STEPS} if costly else {}
                    result = run_cell(
                        data, task, recipe, "lite0", seconds=AUTO_SECONDS, training=training,
                        without=("tf_flowers",), spaces=spaces,
                    )  # fmt: skip
                    grid.add(cell, **result)
    rows: list[dict[str, Any]] = []
    for n in LABELS:
        cells = [
            [grid.cells[f"tf_flowers/{n}/{seed}/{r}"] for seed in range(DRAWS)] for r in ("floor", *COMPARED)
        ]
        columns = ("regression", "nearest mean", "propagation")
        by_column = {c: [cell[c] for cell in cells[0]] for c in columns}
        best = max(columns, key=lambda c: float(np.mean(by_column[c])))
        rows += [{"labels": n, "recipe": f"floor: {c}", **spread(by_column[c])} for c in columns]
        for recipe, these in zip(COMPARED, cells[1:]):
            values = [cell["accuracy"] for cell in these]
            gain = mean_interval(np.array(values) - np.array(by_column[best]))
            taken = float(np.mean([cell["seconds"] for cell in these]))
            rows.append(
                {
                    "labels": n, "recipe": recipe, **spread(values), "minus the floor's better column": gain.value,
                    "low": gain.low, "high": gain.high, "seconds": taken,
                }
            )  # fmt: skip
            if recipe == "auto":
                rows[-1]["chosen"] = ", ".join(sorted({cell["chosen"] for cell in these}))
    record("flowers", rows, seeds=f"label draws 0 to {DRAWS - 1}")


if __name__ == "__main__":
    main()
