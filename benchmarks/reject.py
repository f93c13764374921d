"""What does "none of these" catch? Digits with two classes left out of the training and of the unlabelled pictures, 8
labels for each of the others, 10 draws of both: how many answers fall below the threshold that was set without them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.common import arguments, record
from handful.choose.auto import choose
from handful.data.images import from_array
from handful.recipes.candidate import Candidate
from handful.recipes.task import Task, Workshop
from handful.stats.intervals import mean_interval
from handful.stats.reject import LOSS, threshold

DRAWS, LABELS, N_TEST = 10, 8, 450


def draw(seed: int) -> dict[str, float]:
    """Shares of the test answers that are rejected: right ones, wrong ones, those about the classes left out."""
    x, y = load_digits(return_X_y=True)
    images = from_array(np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8))
    random = np.random.RandomState(seed)
    strange = random.choice(10, 2, replace=False)
    known = np.setdiff1d(np.arange(10), strange)
    order = random.permutation(len(y))
    test, pool = order[:N_TEST], order[N_TEST:][~np.isin(y[order[N_TEST:]], strange)]
    labelled = np.concatenate([pool[y[pool] == k][:LABELS] for k in known])
    number = torch.from_numpy(np.searchsorted(known, y[labelled]))
    unlabelled = torch.from_numpy(np.setdiff1d(pool, labelled))
    task = Task(images, torch.from_numpy(labelled), number, unlabelled, tuple(map(str, known)), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        outcome = choose(task, Workshop(Path(folder), Path(folder)), only=Candidate("propagation", "pixels"))
    trial = outcome.trials[outcome.chosen]
    limit = threshold(trial.logits, trial.truth, outcome.temperature)["threshold"]
    confidence, guess = (t.numpy() for t in outcome.probabilities(torch.from_numpy(test)).max(1))
    right, unknown = known[guess] == y[test], np.isin(y[test], strange)
    groups = {"right answers": right, "wrong answers": ~right & ~unknown, "classes left out": unknown}
    return {name: float((confidence[rows] < limit).mean()) for name, rows in groups.items()}


def main() -> None:
    arguments(__doc__ or "").parse_args()
    draws = [draw(seed) for seed in range(DRAWS)]
    rows = []
    for name in draws[0]:
        estimate = mean_interval(np.array([100 * found[name] for found in draws]))
        figures = {"mean": estimate.value, "low": estimate.low, "high": estimate.high}
        rows.append({"rejected of": name, **{key: round(value, 1) for key, value in figures.items()}})
    aim = f"at most {100 * LOSS:.0f} % of right answers"
    record(
        "reject", rows, seeds=f"draws 0 to {DRAWS - 1}", aim=aim, labels=LABELS, recipe="propagation@pixels"
    )


if __name__ == "__main__":
    main()
