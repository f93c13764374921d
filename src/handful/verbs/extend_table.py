"""The table of an extension: how right each way is on old and new classes; on disk, in the report, on a terminal.

Legend: accuracies are fractions; *task-aware*: the picture's side (old or new classes) is told; *joint*: one answer out
of all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from handful.report.record import Extra
from handful.report.words import percent, shortlist
from handful.stats.intervals import wilson


@dataclass(frozen=True)
class Side:
    """Right answers on the pictures of one side: ``n`` pictures, fractions right in both readings."""

    n: int
    task_aware: float
    joint: float | None


@dataclass(frozen=True)
class Row:
    """One way of adding the classes; the first is the classifier before, which has old classes alone."""

    name: str
    old: Side | None = None
    new: Side | None = None


@dataclass(frozen=True)
class Figures:
    """All that was measured.

    Attributes:
        rows: the old classifier, then what ships, then what it is compared with.
        old_on, new_on: the pictures, in words; "" where nothing was measured.
        heads: how the two heads were set side by side, in words.
    """

    old_classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    rows: tuple[Row, ...]
    old_on: str
    new_on: str
    heads: str
    steps: int


COLUMNS = (
    "way", "old, task-aware", "new, task-aware", "average, task-aware", "old, joint", "new, joint", "average, joint",
)  # fmt: skip


def cells(row: Row, interval: bool = True) -> list[str]:
    """A row as text, "–" where nothing is known; with 95 % intervals, or without."""
    text = [row.name]
    for joint in (False, True):
        shares = []
        for side in (row.old, row.new):
            share = None if side is None else side.joint if joint else side.task_aware
            text.append(_share(share, side.n if side and interval else 0))
            shares += [] if share is None else [share]
        text.append(percent(sum(shares) / 2) if len(shares) == 2 else "–")
    return text


def _share(share: float | None, n: int) -> str:
    if share is None:
        return "–"
    if not n:
        return percent(share)
    low, high = wilson(share * n, n)
    return f"{percent(share)} ({100 * low:.1f} to {100 * high:.1f})"


def kept(figures: Figures) -> str:
    """How much of what plain fine-tuning forgets is kept, task-aware, in a sentence; "" where that is not known or
    nothing was forgotten."""
    by_name = {row.name: row.old for row in figures.rows}
    first, ships = (row.old for row in figures.rows[:2])
    plain = by_name.get("plain fine-tuning")
    if not (first and ships and plain):
        return ""
    forgotten = first.task_aware - plain.task_aware
    if forgotten * first.n < 1:
        return "Plain fine-tuning forgot nothing that these old pictures show."
    share = (ships.task_aware - plain.task_aware) / forgotten
    return (
        f"Of the {100 * forgotten:.1f} points that plain fine-tuning forgot of the old classes, "
        f"{figures.rows[1].name} kept {100 * share:.0f} %."
    )


def sentence(figures: Figures) -> str:
    """What was added to what, and what became of the old classes."""
    said = (
        f"{len(figures.new_classes)} classes ({shortlist(figures.new_classes, 6)}) were added to "
        f"{len(figures.old_classes)} ({shortlist(figures.old_classes, 6)}) by {figures.rows[1].name}, "
        "without their pictures."
    )
    first, ships = (row.old for row in figures.rows[:2])
    if not (first and ships and ships.joint is not None):
        return f"{said} What became of the old classes is not known: give pictures of them with --old-test to see it."
    return " ".join(
        [
            said,
            f"Of the old pictures {percent(first.task_aware)} were right before.",
            f"Now {percent(ships.task_aware)} are where it is told that they are old, and {percent(ships.joint)} among "
            "all classes.",
            kept(figures),
        ]
    ).rstrip()


def as_section(figures: Figures) -> Extra:
    """The report's section."""
    about = [
        f"Old: {figures.old_on}."
        if figures.old_on
        else "Old: not measured; no old pictures were given (--old-test).",
        f"New: {figures.new_on}." if figures.new_on else "New: not measured; a class has a single picture.",
    ]
    note = (
        "Task-aware: it is told whether the picture is of old or of new classes. Joint: one answer out of all classes, "
        "which is what handful predict gives. Average: the mean of old and new. "
    )
    if figures.steps:
        note += f"What trains, trains {figures.steps:,} steps. "
    return Extra(
        "Old and new classes", " ".join(about), list(COLUMNS), [cells(row) for row in figures.rows],
        note + figures.heads,
    )  # fmt: skip
