"""What a run says of the data: ``issues.csv``, and a line for the person who waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handful import parallel
from handful.data.audit import in_short, save_issues, suspect_labels
from handful.data.manifest import Issue, Manifest
from handful.data.suspects import suspects
from handful.recipes.feature_space import space
from handful.recipes.table import find, spaces_for
from handful.recipes.task import Task, Workshop
from handful.run.teller import Teller


def tell_issues(folder: Path, issues: Sequence[Issue], new: Sequence[Issue], teller: Teller) -> None:
    """Write ``issues.csv`` with all of them, and say in a line what is new."""
    if parallel.is_first():
        save_issues(issues, folder / "issues.csv")
    if new:
        teller.tell(f"look at your data: {in_short(new)} ({folder / 'issues.csv'})")


def doubted_labels(task: Task, manifest: Manifest, workshop: Workshop, recipe: str) -> list[Issue]:
    """Labels that look wrong on the features that the run uses anyway.

    A network that starts from random weights uses none; those of photographs would cost more than the run.
    """
    from_scratch = recipe != "auto" and find(recipe).trains and not find(recipe).pretrained
    if from_scratch and task.photographs:
        return []
    return doubted(task, task.labelled.numpy(), manifest, workshop)


def doubted(task: Task, rows: NDArray[np.int64], manifest: Manifest, workshop: Workshop) -> list[Issue]:
    """Labels of a task that look wrong; ``rows``: where its labelled pictures stand in the manifest."""
    y = task.y.numpy()
    table = space(task, workshop, spaces_for(task)[0]).table[task.labelled].numpy()
    return suspect_labels(manifest, rows, y, suspects(table, y, task.n_classes))
