"""tf_flowers at 1, 4, 16 and 64 labels per class, 5 label draws, every recipe and the floor on the same draws.

The floor is what an afternoon's script reaches: the better of plain regression and plain label propagation on
fp32 features of the same backbone, written here with scikit-learn and scipy alone. The prior that ``auto`` uses
leaves tf_flowers out.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from benchmarks.common import arguments
from benchmarks.datasets import Dataset, tf_flowers
from benchmarks.grids import RUNS, keep, source, sweep
from handful.api import cache_folder
from handful.files import write_atomic
from handful.inference.features import extract
from handful.models.backbones import create
from handful.recipes.task import Task
from handful.stats.intervals import mean_interval

LABELS = (1, 4, 16, 64)
DRAWS, FIRST_DRAW = 5, 5
AUTO_SECONDS = 45
RECIPES = ("propagation", "fine-tune-pseudo@lite0:training.steps=40", "auto")  # 16 labelled pictures a step


def floor(data: Dataset, task: Task) -> dict[str, float]:
    """The script: centred, normalised fp32 features; C = 10; 10 neighbours, cosine cubed, alpha 0.9, 20 rounds."""
    raw, _ = extract(
        create("lite0", pretrained=True),
        data.images,
        key=f"lite0 {data.images.fingerprint}",
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
    given = arguments(__doc__ or "").parse_args()
    options: dict[str, Any] = {"recipes": RECIPES, "labels": LABELS, "seeds": DRAWS, "first_seed": FIRST_DRAW}
    c = sweep(
        "flowers",
        "tf_flowers",
        given.data_root,
        seconds=AUTO_SECONDS,
        without_priors=("tf_flowers",),
        **options,
    )
    path = RUNS / "flowers" / "floor.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    data, drawn = tf_flowers(given.data_root), source("tf_flowers", given.data_root)
    for n in LABELS:
        for seed in c.seeds:
            if f"{n}/{seed}" not in found:
                task, _ = next(iter(drawn.tasks(n, seed)))
                found[f"{n}/{seed}"] = floor(data, task)
                write_atomic(path, json.dumps(found))
    extra: list[dict[str, Any]] = []
    for n in LABELS:
        columns = {
            k: [found[f"{n}/{seed}"][k] for seed in c.seeds]
            for k in ("regression", "nearest mean", "propagation")
        }
        best = max(columns, key=lambda k: float(np.mean(columns[k])))
        extra += [
            {
                "labels": n,
                "recipe": f"floor: {k}",
                "accuracy": float(np.mean(v)),
                "sd": float(np.std(v, ddof=1)),
            }
            for k, v in columns.items()
        ]
        for name in dict.fromkeys(cell.contender for cell in c.cells):
            mine = [100 * (x.accuracy or 0) for x in c.cells if (x.contender, x.labels) == (name, n)]
            gain = mean_interval(np.array(mine) - np.array(columns[best]))
            words = f"{name} minus floor: {best}, paired"
            extra.append(
                {
                    "labels": n,
                    "recipe": words,
                    "gain": gain.value,
                    "gain low": gain.low,
                    "gain high": gain.high,
                }
            )
    keep(
        "flowers",
        c,
        extra,
        note="draws 0 to 4 were looked at when the rule of choice was made; these are fresh",
    )


if __name__ == "__main__":
    main()
