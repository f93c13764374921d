"""``handful compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, Printed, parse, print_json, said
from handful.cli.options import by, options_of
from handful.types import UsageError


def recipes(text: str) -> tuple[str, ...]:
    """ "a,b" or, where settings have commas of their own, "a:x.y=1,x.z=2;b"."""
    mark = ";" if ";" in text or "=" in text else ","
    return tuple(filter(None, (word.strip() for word in text.split(mark))))


def numbers(text: str) -> tuple[int, ...]:
    """ "1,4,16" in ascending order.

    Raises:
        UsageError: something else.
    """
    try:
        return tuple(sorted({int(word) for word in text.split(",") if word.strip()}))
    except ValueError:
        raise UsageError(f"'{text}' is not a list of numbers", fix="write it as 1,4,16,64") from None


LISTS = {
    "recipes": Annotated[tuple[str, ...], by(recipes, "NAME,NAME@SPACE:training.steps=40;…")],
    "labels": Annotated[tuple[int, ...], by(numbers, "1,4,16")],
}


@dataclass(kw_only=True)
class CompareArguments(Printed):
    """What is each technique worth in labels saved? A grid of recipes, numbers of labels and label draws, measured
    with the same pictures for all; a killed sweep goes on where it was."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """what handful fit takes, with labels to draw from, best with a test part (without: cross-validation)"""
    options: Annotated[
        dict[str, Any], options_of(api.CompareOptions(), without=("without_priors",), kinds=LISTS)
    ] = field(default_factory=dict)
    out: Path | None = None
    """folder of the sweep (default: runs/NAME-compare); all figures stand in its compare.json"""


def compare(words: Sequence[str]) -> int:
    """``handful compare DATA …``; 1 where a cell failed (its reason is in the table)."""
    given = parse(CompareArguments, "compare", words)
    options = api.CompareOptions(**given.options)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.compare(given.data, options, out=given.out, teller=teller, command=said("compare", words))
    if given.json:
        print_json({"folder": str(done.folder), "sentences": list(done.sentences), "failed": done.failed})
    else:
        print("\n".join(["", *done.sentences, "", f"report: {done.folder / 'report.html'}"]))
        print(f"({teller.elapsed:.0f} s)")
    return 1 if done.failed else 0
