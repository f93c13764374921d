"""``handful extend``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, Printed, closing, parse, print_json, said
from handful.cli.options import options_of
from handful.recipes.training import Training
from handful.verbs.extend_table import Figures, cells, kept


@dataclass(kw_only=True)
class ExtendArguments(Printed):
    """Add classes to a finished run by Learning without Forgetting, without its old pictures; a run folder comes out,
    with a table of what became of old and new classes. The old run is only read."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a finished run, or an exported .safetensors file"""
    data: Annotated[Positional[str], arg(metavar="NEWDATA")]
    """pictures of the new classes alone, laid out as for handful fit"""
    old_test: str | None = None
    """labelled pictures of old classes, to measure what was forgotten (never learnt from)"""
    out: Path | None = None
    """folder of the new run (default: runs/NAME-extended-…)"""
    options: Annotated[dict[str, Any], options_of(api.ExtendOptions())] = field(default_factory=dict)
    training: Annotated[dict[str, Any], options_of(Training(lr=0.0), only=("steps", "lr"))] = field(
        default_factory=dict
    )


def extend(words: Sequence[str]) -> int:
    given = parse(ExtendArguments, "extend", words)
    training = {name: value for name, value in given.training.items() if value}  # 0: by the network
    options = api.ExtendOptions(**given.options, training=training)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.extend(
            given.run,
            given.data,
            options,
            old_test=given.old_test,
            out=given.out,
            teller=teller,
            command=said("extend", words),
        )
    if given.json:
        print_json(done.as_dict())
        return 0
    show(done.figures, Console(highlight=False))
    closing(done.run, teller.elapsed)
    return 0


def show(figures: Figures, console: Console) -> None:
    """The table for a person."""
    for first, reading in ((1, "task-aware"), (4, "joint")):
        table = Table(reading, "old", "new", "average", box=None, pad_edge=False)
        for row in figures.rows:
            text = cells(row, interval=False)
            table.add_row(text[0], *text[first : first + 3])
        console.print(table, markup=False)
    on = [f"{side}: {words}" for side, words in (("old", figures.old_on), ("new", figures.new_on)) if words]
    lines = filter(None, ["; ".join(on), kept(figures)])
    console.print("\n".join(lines), markup=False, soft_wrap=True)
