"""What a run says of the data before it trains: ``issues.csv``, and a line for the person who waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handful import parallel
from handful.data.audit import in_short, save_issues, suspect_labels
from handful.data.manifest import Issue, Manifest
from handful.data.sources import TABLES
from handful.data.suspects import suspects
from handful.data.tables import read_table
from handful.recipes.feature_space import space
from handful.recipes.table import find, spaces_for
from handful.recipes.task import Task, Workshop
from handful.types import UsageError


def doubted_labels(task: Task, workshop: Workshop, manifest: Manifest, recipe: str) -> list[Issue]:
    """Labels that look wrong on the features that the run uses anyway.

    A network that starts from random weights uses none; those of photographs would cost more than the run.
    """
    from_scratch = recipe != "auto" and find(recipe).trains and not find(recipe).pretrained
    if from_scratch and task.photographs:
        return []
    rows, y = task.labelled.numpy(), task.y.numpy()
    table = space(task, workshop, spaces_for(task)[0]).table[task.labelled].numpy()
    return suspect_labels(manifest, rows, y, suspects(table, y, task.n_classes))


def tell_issues(folder: Path, issues: list[Issue], new: list[Issue], tell: Callable[[str], None]) -> None:
    """Write ``issues.csv`` with all of them, and say in a line what is new."""
    if parallel.is_first():
        save_issues(issues, folder / "issues.csv")
    if new:
        tell(f"look at your data: {in_short(new)} ({folder / 'issues.csv'})")


def check_no_run(folder: Path) -> None:
    """Raises UsageError where a page would replace the report of a run."""
    if (folder / "run.toml").exists():
        fix = "choose another folder with --out"
        raise UsageError("is the folder of a run, whose report this would replace", file=folder, fix=fix)


def check_outside(folder: Path, data: Any) -> None:
    """Raises UsageError where a run's folder lies in the folder of pictures, or in one with pictures of a table,
    other than the table's own."""
    if not isinstance(data, (str, Path)):
        return
    own = Path(data).resolve()
    closed = {own} if own.is_dir() else set[Path]()
    if own.is_file() and own.suffix.lower() in TABLES:
        listed = {os.path.dirname(path) for path in read_table(own).paths}
        closed = {(own.parent / place).resolve() for place in listed} - {own.parent}
    if any(folder.resolve().is_relative_to(place) for place in closed):
        fix = f"choose another folder with --out, such as --out ../{'/'.join(folder.parts[-2:])}"
        raise UsageError("lies in the folder of pictures, which is only read", file=folder, fix=fix)
