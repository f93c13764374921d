"""``handful fit``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, Suppress, arg

from handful import api, parallel
from handful.cli.console import ConsoleTeller, Printed, closing, parse, print_json, said
from handful.cli.options import options_of
from handful.recipes.table import RECIPES, find
from handful.recipes.training import SMALL, Training, tuning
from handful.types import UsageError

INIT = {"init": ("--init",)}


@dataclass(kw_only=True)
class FitArguments(Printed):
    """Train a classifier on a folder of pictures, few of them labelled, and write an honest report."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """folder with a sub-folder per class and unlabeled/ (or train/ val/ test/ unlabeled/), table.csv (path,label),
    table.parquet, arrays.npz (x, y), torchvision:NAME, hf:OWNER/NAME"""
    options: Annotated[dict[str, Any], options_of(api.FitOptions(), without=("without_priors",))] = field(
        default_factory=dict
    )
    out: Path | None = None
    """folder of the run (default: runs/NAME-RECIPE-…)"""
    dry_run: bool = False
    """say what would be done, and write nothing"""
    method: Annotated[dict[str, Any], Suppress] = field(default_factory=dict)
    training: Annotated[dict[str, Any], options_of(Training(), name="training", aliases=INIT)] = field(
        default_factory=dict
    )


def fit(words: Sequence[str]) -> int:
    recipe = value_of(words, "--recipe") or "auto"
    if recipe == "list":
        for name, row in RECIPES.items():
            mark = " (uses unlabelled pictures)" if row.uses_unlabelled else ""
            print(f"{name:<22} {row.title}: {row.words}{mark}")
        return 0
    if recipe == "auto" and any(word.startswith("--method.") for word in words):
        raise UsageError(
            "method options belong to a recipe", fix="give --recipe NAME too; --recipe list names them"
        )
    given = parse(arguments_of(recipe), "fit", words)
    options = api.FitOptions(**given.options, method=given.method, training=given.training)
    if given.dry_run:
        planned = api.dry_run(given.data, options, out=given.out)
        print_json(asdict(planned)) if given.json else print(planned.text())
        return 0
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        run = api.fit(given.data, options, out=given.out, teller=teller, command=said("fit", words))
    if parallel.is_first():
        closing(run, teller.elapsed, as_json=given.json)
    return 0


def arguments_of(recipe: str) -> type[FitArguments]:
    """The options that there are with a recipe: those of its method too, and its own defaults of training."""
    if recipe == "auto":
        return FitArguments
    row = find(recipe)
    usual = tuning("lite0") if row.pretrained else SMALL if row.trains else Training()
    groups = {
        "method": options_of(row.make(), name="method"),
        "training": options_of(usual, name="training", aliases=INIT),
    }
    own: list[Any] = [
        (name, Annotated[dict[str, Any], group], field(default_factory=dict))
        for name, group in groups.items()
    ]
    found = make_dataclass("FitArguments", own, bases=(FitArguments,), kw_only=True)
    found.__doc__ = FitArguments.__doc__
    return found


def value_of(words: Sequence[str], option: str) -> str | None:
    """The value of an option before the whole line is parsed, since it decides which options there are."""
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
