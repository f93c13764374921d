"""``compare``: what is each technique worth in labels saved?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from handful import machine
from handful.data.images import open_store
from handful.data.manifest import SPLITS, TEST, VALIDATION
from handful.data.sources import read_data
from handful.engine.interrupt import listening
from handful.files import as_csv, write_atomic
from handful.recipes.table import RECIPES
from handful.report.compare import Comparison, analyse
from handful.report.compare import write as write_comparison
from handful.run.file import versions
from handful.run.places import cache_folder, downloads, folder_for
from handful.run.teller import Teller
from handful.study.contenders import line_up, parse
from handful.study.draws import Source, draws_table
from handful.study.grid import Grid
from handful.study.grid import run as measure

CAUTION = (
    "There is no test part, so every figure is a cross-validation on the labelled pictures. The draws share most of "
    "those few pictures: the intervals speak of which of them were labelled, not of other pictures of the same kind, "
    "and are too narrow for that. Differences of less than a few points mean nothing here."
)


@dataclass(frozen=True)
class CompareOptions:
    """What a comparison measures.

    Attributes:
        recipes: as propagation,fine-tune@lite0:training.steps=40;auto (several settings of one recipe: part them by ;)
            (default: all that take seconds). The labelled-only baselines are always there.
        labels: labels per class, as 1,4,16,64 (default: these as far as the data reach).
        seeds: label draws; they are paired over recipes and nested over sizes.
        first_seed: number of the first draw.
        seconds: of training a network (of the whole choice for auto), turned into steps once for all draws.
        jobs: processes; they share the cores.
        pool: at most so many pictures to learn from, sampled once (0: all).
        labels_per_class: draw from so many labels of each class, the others are forgotten (0: all).
        side: pixels that pictures are stored at (default: by the pictures).
        feature_backend: auto, torch, onnxruntime or openvino.
        without_priors: data sets that "auto" must not know.
    """

    recipes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    seeds: int = 5
    first_seed: int = 0
    seconds: float = 60.0
    jobs: int = 1
    pool: int = 0
    labels_per_class: int = 0
    side: int = 0
    feature_backend: str = "auto"
    without_priors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        folder: compare.json, compare.csv, draws.csv, report.html, and a folder for every cell.
        comparison: the tables.
        sentences: what each technique is worth in labels, in words.
        failed: how many cells have no figures.
    """

    folder: Path
    comparison: Comparison
    sentences: tuple[str, ...]
    failed: int


def compare(
    data: Any,
    options: CompareOptions | None = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Compared:
    """What is each technique worth in labels saved? A grid of recipes x labels per class x label draws.

    The same call again runs what is missing, or nothing.

    Args:
        data: what ``fit`` takes, most of it labelled, best with a test part; or a module's function that gives a
            ``Source``.
        out: the sweep's folder; by default ``runs/NAME-compare``.

    Raises:
        UsageError: the data or the options cannot be used as given.
        Interrupted: told to stop; finished cells are kept.
    """
    options, teller = options or CompareOptions(), teller or Teller()
    begin, cache = time.perf_counter(), cache_folder()
    rest = {"seconds": options.seconds, "without_priors": options.without_priors}
    wanted = [parse(text, **rest) for text in options.recipes]
    open_source = (
        data
        if callable(data)
        else partial(source_of, data, cache, options.side, options.pool, options.labels_per_class)
    )
    with listening():
        source = open_source()
        folder = folder_for(out, data, source.name, "compare")
        most = source.most_labels()
        sizes = options.labels or tuple(4**i for i in range(8) if 4**i <= most) or (1,)
        cheap = [name for name, recipe in RECIPES.items() if recipe.cheap]
        contenders = line_up(wanted or [parse(name, **rest) for name in cheap], source)
        seeds = tuple(range(options.first_seed, options.first_seed + options.seeds))
        grid = Grid(tuple(contenders), sizes, seeds, options.feature_backend)
        teller.tell(
            f"{source.name}: {len(contenders)} recipes, {sizes} labels per class, {options.seeds} draws"
        )
        cells = measure(
            grid, open_source, folder, cache, jobs=options.jobs, tell=teller.tell, progress=teller.progress
        )
    comparison = analyse(
        cells,
        contenders,
        {name: recipe.title for name, recipe in RECIPES.items()} | {"auto": "automatic choice"},
        data=source.name,
        scored_on=_scored_on(source),
        classes=len(source.classes),
        caution="" if len(source.test) else CAUTION,
        about={
            "command": command,
            "seconds in all": round(time.perf_counter() - begin),
            "threads": f"{machine.cores()} cores, {options.jobs} process{'es' if options.jobs > 1 else ''}",
            **versions(),
        },
    )
    write_comparison(comparison, folder)
    table = [("draw", "class", "rank", "path"), *draws_table(source, sizes, grid.seeds)]
    write_atomic(folder / "draws.csv", as_csv(table))
    return Compared(folder, comparison, tuple(comparison.sentences), len(comparison.failed))


def _scored_on(source: Source) -> str:
    if len(source.test):
        return f"{len(source.test):,} {source.scored} pictures that no recipe was trained on"
    return f"cross-validation, {source.n_folds()} folds of {len(source.known):,} labelled pictures"


def source_of(data: Any, cache: Path, side: int = 0, pool: int = 0, labels_per_class: int = 0) -> Source:
    """Pictures as a comparison takes them: scored on the test part, or on the validation part where that is the
    only one, or else by cross-validation."""
    manifest = read_data(data, labels_per_class=labels_per_class, downloads=downloads())
    images, manifest, _ = open_store(manifest, cache, side=side or None)
    rows = [manifest.ids(split) for split in SPLITS]
    scored = rows[3] if len(rows[3]) else rows[2]
    pool_rows = np.sort(np.concatenate(rows[:2]))
    part = TEST if len(rows[3]) else VALIDATION
    source = Source(images, manifest.labels, pool_rows, scored, manifest.classes, manifest.name, part)
    return source.limited(pool)
