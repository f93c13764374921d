"""``handful evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, parse, print_json
from handful.report.figures import worst_pairs
from handful.verbs.evaluate import Evaluation

MOST_CLASSES = 20  # a confusion matrix of more, or one that does not fit, is told as its worst mistakes
WIDE = 500  # columns of a file or a pipe


@dataclass
class EvaluateArguments:
    """How right is a finished run on labelled pictures? Measured on DATA's test part; without one on its validation
    part, or else on all that is labelled."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a finished run, or an exported .safetensors file"""
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """labelled pictures, laid out as for handful fit"""
    json: bool = False
    """print all figures as JSON"""
    quiet: bool = False
    """print the accuracy alone"""


def evaluate(words: Sequence[str]) -> int:
    """``handful evaluate RUN DATA``; 1 where a file could not be read (the others are counted)."""
    given = parse(EvaluateArguments, "evaluate", words)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        found = api.evaluate(given.run, given.data, teller=teller)
    if given.json:
        print_json(asdict(found))
    elif given.quiet:
        print(f"{100 * found.accuracy:.1f}")
    else:
        show(found, Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDE))
    for file, reason in found.unreadable:
        print(f"error: {file}: {reason}", file=sys.stderr)
    return 1 if found.unreadable else 0


def show(e: Evaluation, console: Console) -> None:
    """The figures for a person."""
    low, high = e.interval
    n, right = e.rejected
    lines = [
        f"measured on {e.measured_on}",
        f"accuracy            {100 * e.accuracy:5.1f} %  (95 % interval {100 * low:.1f} to {100 * high:.1f})",
        f"balanced accuracy   {100 * e.balanced_accuracy:5.1f} %",
        f"macro F1            {100 * e.macro_f1:5.1f} %",
        f"calibration error   {100 * e.calibration_error:5.1f} points",
        f"mean confidence     {100 * e.mean_confidence:5.1f} %",
    ]
    if n:
        lines.append(
            f"'none of these'     {n:,} {'answer' if n == 1 else 'answers'}, of which {right:,} would have been right"
        )
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    table = Table("class", box=None, pad_edge=False)
    for name in ("pictures", "called", "recall %", "precision %", "F1 %"):
        table.add_column(name, justify="right")
    for row in e.per_class:
        shares = ("–" if x is None else f"{100 * x:.1f}" for x in (row.recall, row.precision, row.f1))
        table.add_row(row.name, str(row.n), str(row.called), *shares)
    console.print()
    console.print(table, markup=False)
    console.print()
    if len(e.classes) <= MOST_CLASSES and _width(e.classes) <= console.width:
        matrix = Table("is \\ called", box=None, pad_edge=False)
        for name in e.classes:
            matrix.add_column(name, justify="right")
        for name, counts in zip(e.classes, e.confusion):
            matrix.add_row(name, *(str(c) if c else "·" for c in counts))
        console.print(matrix)
    else:
        worst = worst_pairs(e.confusion, e.classes)[:10]
        told = [f"{truth} called {called}: {n}" for truth, called, n, _ in worst]
        console.print("\n".join(["most frequent mistakes:", *told]), markup=False, soft_wrap=True)
    if e.caution:
        console.print(f"\n{e.caution}", markup=False, soft_wrap=True)


def _width(classes: Sequence[str]) -> int:
    """Columns of the terminal that the confusion matrix takes."""
    first = max(len("is \\ called"), *map(cell_len, classes))
    return first + sum(max(cell_len(name), 4) + 2 for name in classes)
