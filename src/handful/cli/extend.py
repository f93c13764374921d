"""``handful extend``."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, closing, seconds
from handful.verbs.extend_table import Figures, cells, kept


@dataclass
class ExtendArguments:
    """Add classes to a finished run by Learning without Forgetting, without its old pictures; a run folder comes out,
    with a table of what became of old and new classes. The old run is only read."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a finished run, or an exported .safetensors file"""
    data: Annotated[Positional[str], arg(metavar="NEWDATA")]
    """pictures of the new classes alone, laid out as for handful fit"""
    old_test: str | None = None
    """labelled pictures of old classes, to measure what was forgotten (never learnt from)"""
    lambda_old: float = 1.0
    """weight of the old network's responses; 0 is plain fine-tuning"""
    temperature: float = 2.0
    """of the responses"""
    freeze_old_head: bool = False
    """the old classes' own weights stay as they are"""
    responses: Literal["recorded", "live"] = "recorded"
    """the old network's: recorded beforehand on the pictures as they are, or live, to each view that is learnt"""
    view: str = "plain"
    """how pictures are shown in training: plain, weak, strong, weak+randaugment:n=2:m=9, or a policy file"""
    time: str = "5m"
    """for the run: 90s, 5m, 1h"""
    steps: int = 0
    """of each training, in place of a time"""
    lr: float = 0.0
    """learning rate (default: by the network)"""
    out: Path | None = None
    """folder of the new run (default: runs/NAME-extended-…)"""
    seed: int = 0
    """of every random draw"""
    labels_per_class: int = 0
    """use so many labels of each new class, drawn by the seed (0: all)"""
    feature_backend: str = "auto"
    """auto, torch, onnxruntime or openvino, for a head on frozen features"""
    save_every: int = 50
    """steps between checkpoints"""
    json: bool = False
    """print the result as JSON"""
    quiet: bool = False
    """say nothing until the result"""


def extend(words: Sequence[str]) -> int:
    """``handful extend RUN NEWDATA``"""
    given = tyro.cli(ExtendArguments, args=list(words), prog="handful extend")
    options = api.ExtendOptions(
        lambda_old=given.lambda_old,
        temperature=given.temperature,
        freeze_old_head=given.freeze_old_head,
        responses=given.responses,
        view=given.view,
        seconds=seconds(given.time),
        seed=given.seed,
        labels_per_class=given.labels_per_class,
        feature_backend=given.feature_backend,
        training={name: getattr(given, name) for name in ("steps", "lr") if getattr(given, name)},
        save_every=given.save_every,
    )
    begin = time.perf_counter()
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.extend(
            given.run,
            given.data,
            options,
            old_test=given.old_test,
            out=given.out,
            teller=teller,
            command=shlex.join(["handful", "extend", *words]),
        )
    if given.json:
        print(json.dumps(done.as_dict(), ensure_ascii=False))
        return 0
    show(done.figures, Console(highlight=False))
    closing(done.run, time.perf_counter() - begin)
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
