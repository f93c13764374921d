"""What a run says of the data before it trains: ``issues.csv``, a line for who waits, rows for the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from handful import parallel
from handful.data.audit import in_short, save_issues, suspect_labels
from handful.data.manifest import Issue, Manifest
from handful.data.suspects import suspects
from handful.recipes.table import spaces_for
from handful.recipes.task import Task, Workshop
from handful.recipes.transfer import space
from handful.types import UsageError

FROM_SCRATCH = ("supervised", "pseudo-label-self")  # use no features, which would cost more than the run


def doubted_labels(task: Task, workshop: Workshop, manifest: Manifest, recipe: str) -> list[Issue]:
    """Labels that look wrong on the features that the run's first candidates use anyway."""
    if recipe in FROM_SCRATCH:
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


def listed(issues: list[Issue], most: int = 40) -> list[tuple[str, str]]:
    """Issues for the report, as (file, reason and suggestion)."""
    rows = [(issue.file, f"{issue.reason}; {issue.suggestion}") for issue in issues[:most]]
    more = len(issues) - len(rows)
    return [*rows, ("issues.csv", f"lists {more} more")] if more else rows


def check_outside(folder: Path, data: Any) -> None:
    """Raises UsageError where a run's folder lies in the folder of pictures."""
    if (
        isinstance(data, (str, Path))
        and Path(data).is_dir()
        and folder.resolve().is_relative_to(Path(data).resolve())
    ):
        fix = "choose another folder with --out"
        raise UsageError("lies in the folder of pictures, which is only read", file=folder, fix=fix)
