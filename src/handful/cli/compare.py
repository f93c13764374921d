"""``handful compare``."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, seconds
from handful.types import UsageError


@dataclass
class CompareArguments:
    """What is each technique worth in labels saved? A grid of recipes, numbers of labels and label draws, measured
    with the same pictures for all; a killed sweep goes on where it was."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """what handful fit takes, with labels to draw from, best with a test part (without: cross-validation)"""
    labels: str = ""
    """labels per class, as 1,4,16,64 (default: these as far as the data reach)"""
    recipes: str = ""
    """as propagation,fine-tune@lite0:training.steps=40;auto (several settings of one recipe: part them by ;)
    (default: all that take seconds). The labelled-only baselines are always there."""
    seeds: int = 5
    """label draws; they are paired over recipes and nested over sizes"""
    first_seed: int = 0
    """number of the first draw"""
    time: str = "60s"
    """of training a network (of the whole choice for auto), turned into steps once for all draws"""
    jobs: int = 1
    """processes; they share the cores"""
    pool: int = 0
    """at most so many pictures to learn from, sampled once (0: all)"""
    labels_per_class: int = 0
    """draw from so many labels of each class, the others are forgotten (0: all)"""
    side: int = 0
    """pixels that pictures are stored at (default: by the pictures)"""
    feature_backend: str = "auto"
    """auto, torch, onnxruntime or openvino"""
    out: Path | None = None
    """folder of the sweep (default: runs/NAME-compare)"""
    json: bool = False
    """print the result as JSON (all figures stand in compare.json)"""
    quiet: bool = False
    """say nothing until the result"""


def compare(words: Sequence[str]) -> int:
    """``handful compare DATA …``; 1 where a cell failed (its reason is in the table)."""
    given = tyro.cli(CompareArguments, args=list(words), prog="handful compare")
    options = api.CompareOptions(
        recipes=recipes(given.recipes),
        labels=numbers(given.labels),
        seeds=given.seeds,
        first_seed=given.first_seed,
        seconds=seconds(given.time),
        jobs=given.jobs,
        pool=given.pool,
        labels_per_class=given.labels_per_class,
        side=given.side,
        feature_backend=given.feature_backend,
    )
    begin = time.perf_counter()
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.compare(
            given.data,
            options,
            out=given.out,
            teller=teller,
            command=shlex.join(["handful", "compare", *words]),
        )
    if given.json:
        about = {"folder": str(done.folder), "sentences": list(done.sentences), "failed": done.failed}
        print(json.dumps(about, ensure_ascii=False))
        return 1 if done.failed else 0
    print("\n".join(["", *done.sentences, "", f"report: {done.folder / 'report.html'}"]))
    print(f"({time.perf_counter() - begin:.0f} s)")
    return 1 if done.failed else 0


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
