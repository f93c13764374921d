"""A grid of cells (data set x labels per class x label draw x recipe), resumable cell by cell.

Every recipe of a draw sees the same labelled pictures; test labels are read only to score.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS
from benchmarks.datasets import Dataset
from handful import machine
from handful.api import cache_folder
from handful.choose.auto import choose
from handful.choose.prior import prior_table
from handful.data.split import draw
from handful.recipes.candidate import Candidate
from handful.recipes.table import find, fit_candidate
from handful.recipes.task import Fitted, Task, Workshop


class Grid:
    """Cells that are done, in a file beside the result: a killed benchmark goes on where it was."""

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.cells.jsonl"
        self.cells: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                cell = json.loads(line)
                self.cells[cell["cell"]] = cell
        machine.tune_allocator()
        machine.set_threads()

    def done(self, cell: str) -> bool:
        return cell in self.cells

    def add(self, cell: str, **figures: Any) -> None:
        """Keep a cell's figures and print them."""
        self.cells[cell] = {"cell": cell, **figures}
        RESULTS.mkdir(exist_ok=True)
        with self.path.open("a") as out:
            out.write(json.dumps(self.cells[cell]) + "\n")
        print(cell, " ".join(f"{k}={v}" for k, v in figures.items()), flush=True)


def task_for(data: Dataset, per_class: int, seed: int, pool_limit: int = 0) -> Task:
    """The task of one label draw; a pool above ``pool_limit`` is sampled (the same for every recipe)."""
    pool = data.pool
    labelled = pool[draw(data.y[pool], per_class, seed)]
    rest = np.setdiff1d(pool, labelled)
    if pool_limit and len(rest) > pool_limit:
        rest = np.sort(np.random.RandomState(seed).choice(rest, pool_limit, replace=False))
    y = torch.from_numpy(data.y[labelled])
    return Task(data.images, torch.from_numpy(labelled), y, torch.from_numpy(rest), data.classes, seed=seed)


def score(fitted: Fitted, data: Dataset, test_limit: int = 0, rows: np.ndarray | None = None) -> float:
    """Accuracy in percent on the test part, or on some rows of it."""
    rows = data.test if rows is None else rows
    if test_limit and len(rows) > test_limit:
        rows = np.sort(np.random.RandomState(0).choice(rows, test_limit, replace=False))
    guess = fitted.logits(torch.from_numpy(rows)).argmax(1).numpy()
    return float(100 * (guess == data.y[rows]).mean())


def run_cell(
    data: Dataset,
    task: Task,
    recipe: str,
    on: str,
    *,
    seconds: float,
    training: Mapping[str, Any] | None = None,
    without: Iterable[str] = (),
    spaces: dict[str, Any] | None = None,
    test_limit: int = 0,
    plan: Mapping[str, Any] | None = None,
    method: Any = None,
    parts: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Train one recipe, or let ``auto`` choose, and score it on the test part (and on named ``parts`` of it).

    ``spaces`` carries feature tables from cell to cell of the same draw; ``plan`` fixes what the machine would decide.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(cache=cache_folder(), folder=Path(folder), save_every=0, plan=dict(plan or {}))
        if spaces is not None:
            workshop.spaces = spaces
        if recipe == "auto":
            outcome = choose(task, workshop, seconds=seconds, prior=prior_table().without(without))
            extra = {
                "chosen": outcome.chosen,
                "baseline": outcome.verdict.baseline if outcome.verdict else "",
            }
            fitted = outcome.fitted
        else:
            candidate = Candidate(recipe, on, method, training or {})
            fitted = fit_candidate(candidate, task, workshop)
            extra = (
                {"steps": training["steps"]}
                if training and "steps" in training and find(recipe).trains
                else {}
            )
    seconds_taken = time.perf_counter() - begin
    return {
        "accuracy": round(score(fitted, data, test_limit), 3),
        **{name: round(score(fitted, data, rows=rows), 3) for name, rows in (parts or {}).items()},
        "seconds": round(seconds_taken, 1),
        **extra,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {
        "mean": round(float(np.mean(values)), 2),
        "sd": round(float(np.std(values, ddof=1)), 2) if len(values) > 1 else 0.0,
        "n": len(values),
    }
