"""The user's own learning curve: sizes, held-out accuracy by hand, words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.study.test_grid import blobs

from handful.choose.auto import Outcome, Trial
from handful.data.split import draw, folds
from handful.recipes.candidate import Candidate
from handful.recipes.table import find
from handful.recipes.task import Task, Workshop
from handful.study.learning_curve import OwnCurve, own_curve, sizes_up_to


def digits_task(per_class: int) -> Task:
    source = blobs(test=False)
    rows = source.drawn(per_class, 0)
    rest = np.setdiff1d(source.pool, rows)
    as_rows = torch.from_numpy
    return Task(source.images, as_rows(rows), as_rows(source.y[rows]), as_rows(rest), source.classes)


def chosen(task: Task, name: str = "nearest-mean") -> Outcome:
    trial = Trial(Candidate(name, "pixels"), right=np.ones((1, len(task.y))))
    return Outcome(None, f"{name}@pixels", {f"{name}@pixels": trial})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (0, ()),
        (1, (1,)),
        (3, (1, 2, 3)),
        (6, (1, 2, 3, 4, 6)),
        (12, (1, 2, 4, 8, 12)),
        (48, (1, 2, 4, 8, 16, 32, 48)),
    ],
)
def test_sizes(most: int, sizes: tuple[int, ...]) -> None:
    assert sizes_up_to(most) == sizes


def test_figures_are_cross_validation_on_the_labelled_pictures(tmp_path: Path) -> None:
    task = digits_task(8)
    workshop = Workshop(tmp_path, tmp_path, plan={"draws of the learning curve": 2})
    found = own_curve(task, workshop, chosen(task))
    assert found is not None and found.sizes == (1, 2, 3, 4, 6) and found.have == 8
    y, right = task.y.numpy(), []
    for seed in (0, 1):
        fold_of, total = folds(y, 4, 1, seed)[0], 0
        for fold in range(4):
            others = np.flatnonzero(fold_of != fold)
            some = others[draw(y[others], 4, seed)]
            keep = torch.zeros(len(y), dtype=torch.bool)
            keep[torch.from_numpy(some)] = True
            few = Task(
                task.images, task.labelled[keep], task.y[keep],
                torch.cat([task.unlabelled, task.labelled[~keep]]).sort().values, task.classes,
            )  # fmt: skip
            fitted = find("nearest-mean").run(few, Workshop(tmp_path, tmp_path), on="pixels", stage="alone")
            held = torch.from_numpy(np.flatnonzero(fold_of == fold))
            total += int((fitted.logits(task.labelled[held]).argmax(1) == task.y[held]).sum())
        right.append(total / len(y))
    assert found.accuracy[3] == pytest.approx(sum(right) / 2)


def test_too_few_labels_have_no_curve(tmp_path: Path) -> None:
    task = digits_task(3)
    assert own_curve(task, Workshop(tmp_path, tmp_path), chosen(task)) is None


def test_words_count_labels_over_all_classes(tmp_path: Path) -> None:
    task = digits_task(4)
    found = own_curve(task, Workshop(tmp_path, tmp_path), chosen(task))
    assert isinstance(found, OwnCurve) and found.expected.sizes == (4, 8, 12, 20)
    assert [found.more(row) for row in range(4)] == [0, 12, 24, 48]
    assert found.gain(0)[0] == 0
    value, low, high = found.gain(1)
    assert value == pytest.approx(found.expected.mean[1] - found.expected.mean[0], abs=0.02)
    assert low <= value <= high
    assert (
        found.sentence() == f"12 more labels ≈ {100 * value:+.1f} points ({100 * low:.1f} … {100 * high:.1f})"
    )
    assert "nearest-mean@pixels" in found.advice() and "more labels" in found.advice()
