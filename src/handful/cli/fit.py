"""``handful fit`` and ``handful demo``."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from handful import api, parallel
from handful.cli.console import ConsoleTeller, closing, seconds
from handful.recipes.table import RECIPES, find
from handful.recipes.training import SMALL, Training, tuning
from handful.types import UsageError


@dataclass
class FitArguments:
    """Train a classifier on a folder of pictures, few of them labelled, and write an honest report."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """folder with a sub-folder per class and unlabeled/ (or train/ val/ test/ unlabeled/), table.csv (path,label),
    table.parquet, arrays.npz (x, y), torchvision:NAME, hf:OWNER/NAME"""
    recipe: str = "auto"
    """auto, or one of the recipes (handful fit --recipe list)"""
    time: str = "5m"
    """time for the run: 90s, 5m, 1h"""
    out: Path | None = None
    """folder of the run (default: runs/NAME-RECIPE-…)"""
    features: str = ""
    """features of the recipe: lite0, pixels, timm:NAME (default: the best guess for the pictures)"""
    seed: int = 0
    """of every random draw"""
    labels_per_class: int = 0
    """use so many labels of each class, drawn by the seed, and forget the others (0: all)"""
    side: int = 0
    """pixels that pictures are stored at (default: by the pictures)"""
    feature_backend: str = "auto"
    """auto, torch, onnxruntime or openvino"""
    init: str = "random"
    """what a network learns from all pictures without a label before its training: jigsaw, simclr or patch"""
    compile: bool = False
    """use torch.compile for networks that train"""
    save_every: int = 50
    """steps between checkpoints"""
    dry_run: bool = False
    """say what would be done, and write nothing"""
    json: bool = False
    """print the result as JSON"""
    quiet: bool = False
    """say nothing until the result"""
    training: Training = field(default_factory=Training)


def fit(words: Sequence[str]) -> int:
    """``handful fit DATA …``"""
    recipe = _peek(words, "--recipe") or "auto"
    if recipe == "list":
        for name, row in RECIPES.items():
            print(f"{name:<22} {row.title}{' (uses unlabelled pictures)' if row.uses_unlabelled else ''}")
        return 0
    extra: list[Any] = []
    if recipe == "auto" and any(word.startswith("--method.") for word in words):
        raise UsageError(
            "method options belong to a recipe", fix="give --recipe NAME too; --recipe list names them"
        )
    if recipe != "auto":
        row = find(recipe)
        usual = tuning("lite0") if row.pretrained else SMALL if row.trains else Training()
        extra = [
            ("method", row.method, field(default_factory=row.make)),
            ("training", Training, field(default_factory=lambda: usual)),
        ]
    arguments_type = make_dataclass("FitArguments", extra, bases=(FitArguments,))
    arguments_type.__doc__ = FitArguments.__doc__
    given: Any = tyro.cli(arguments_type, args=list(words), prog="handful fit")
    options = api.FitOptions(
        recipe=given.recipe,
        features=given.features,
        seconds=seconds(given.time),
        seed=given.seed,
        labels_per_class=given.labels_per_class,
        side=given.side,
        feature_backend=given.feature_backend,
        compile=given.compile,
        save_every=given.save_every,
        method=_given(words, "method", given.method) if recipe != "auto" else {},
        training=({"init": given.init} if given.init != "random" else {})
        | _given(words, "training", given.training),
    )
    if given.dry_run:
        planned = api.dry_run(given.data, options, out=given.out)
        print(json.dumps(planned.as_dict(), ensure_ascii=False) if given.json else planned.text())
        return 0
    command = shlex.join(["handful", "fit", *words])
    begin = time.perf_counter()
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        run = api.fit(given.data, options, out=given.out, teller=teller, command=command)
    if parallel.is_first():
        closing(run, time.perf_counter() - begin, as_json=given.json)
    return 0


@dataclass
class DemoArguments:
    """The whole job on handwritten digits: 40 labelled, 1,307 unlabelled, 450 held out for the test."""

    out: Path = Path("runs/demo-digits")
    """folder of the pictures and the run"""
    json: bool = False
    """print the result as JSON"""
    quiet: bool = False
    """say nothing until the result"""


def demo(words: Sequence[str]) -> int:
    """``handful demo``"""
    given = tyro.cli(DemoArguments, args=list(words), prog="handful demo")
    begin = time.perf_counter()
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        run = api.demo(given.out, teller=teller)
    closing(run, time.perf_counter() - begin, as_json=given.json)
    return 0


def _peek(words: Sequence[str], option: str) -> str | None:
    """The value of an option before the whole line is parsed, since it decides which options there are."""
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _given(words: Sequence[str], prefix: str, value: Any) -> dict[str, Any]:
    """Fields that the command line names, even where it names their defaults: a recipe's own may differ."""
    start = f"--{prefix}."
    given = [word.removeprefix(start).partition("=")[0] for word in words if word.startswith(start)]
    named = {name.replace("-", "_") for name in given}
    return {
        f.name: getattr(value, f.name) for f in fields(value) if f.name in named or f"no_{f.name}" in named
    }
