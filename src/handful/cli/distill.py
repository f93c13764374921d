"""``handful distill``."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, closing, seconds
from handful.cli.fit import _given
from handful.inference.teachers import Onnx
from handful.methods.distillation import PATIENT, Distillation
from handful.recipes.training import SMALL, Training
from handful.verbs.distill_table import COLUMNS, Figures, cells


@dataclass
class DistillArguments:
    """Train a small network on what a large one says of pictures, labelled or not; a run folder with a table of sizes,
    speeds and accuracies comes out."""

    teacher: Annotated[Positional[str], arg(metavar="TEACHER")]
    """folder of a run, lite0, timm:NAME, torchvision:NAME, a .onnx file, or predictions (.csv with path,CLASS,CLASS,…;
    .npz with paths, p, classes)"""
    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """pictures, as for handful fit (default: those of the teacher's run)"""
    student: str = "small-resnet"
    """network: small-resnet, conv-4, lenet, wrn-28-2, lite0, timm:NAME …"""
    also: tuple[str, ...] = ()
    """further teachers: all answer together, by the mean of their probabilities"""
    temperature: float = 4.0
    """that softens the answers"""
    hard_weight: float | None = None
    """of the labels (default 0.1; with --patient 0)"""
    soft_weight: float | None = None
    """of the teacher's answers (default 0.9; with --patient 1)"""
    features: float = 0.0
    """weight of the teacher's features"""
    feature_loss: Literal["hint", "direction"] = "hint"
    """distance of features: mean square after a learned projection, or cosine after it"""
    patient: bool = False
    """the teacher sees the student's own crops, mixed in pairs, for long (default time: 20m)"""
    view: str = "strong"
    """how the student sees pictures: plain, weak, strong, weak+randaugment:n=2:m=9, or a policy file"""
    label_free: bool = False
    """use no labels to train; the classes of DATA may be others than the teacher's"""
    time: str = ""
    """for the student and its twin on the labels alone: 90s, 5m, 1h (default: 5m)"""
    steps: int = 0
    """of training, in place of a time"""
    out: Path | None = None
    """folder of the run (default: runs/NAME-distill-STUDENT-…)"""
    seed: int = 0
    """of every random draw"""
    side: int = 0
    """pixels that pictures are stored at (default: as the teacher's)"""
    save_every: int = 50
    """steps between checkpoints"""
    json: bool = False
    """print the result as JSON"""
    quiet: bool = False
    """say nothing until the result"""
    onnx: Onnx = field(default_factory=Onnx)
    training: Training = field(default_factory=lambda: SMALL)


def distill(words: Sequence[str]) -> int:
    """``handful distill TEACHER [DATA] --student NAME``"""
    given = tyro.cli(DistillArguments, args=list(words), prog="handful distill")
    method: dict[str, Any] = {**PATIENT} if given.patient else {}
    weights = {"hard_weight": given.hard_weight, "soft_weight": given.soft_weight}
    method |= {name: value for name, value in weights.items() if value is not None}
    training = _given(words, "training", given.training)
    options = api.DistillOptions(
        student=given.student,
        method=Distillation(
            temperature=given.temperature,
            feature_weight=given.features,
            feature_loss=given.feature_loss,
            view=given.view,
            taught_view=given.view,
            **method,
        ),
        training=training | ({"steps": given.steps} if given.steps else {}),
        seconds=seconds(given.time or ("20m" if given.patient else "5m")),
        label_free=given.label_free,
        onnx=given.onnx,
        seed=given.seed,
        side=given.side,
        save_every=given.save_every,
    )
    begin = time.perf_counter()
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.distill(
            [given.teacher, *given.also],
            given.data or None,
            options,
            out=given.out,
            teller=teller,
            command=shlex.join(["handful", "distill", *words]),
        )
    if given.json:
        print(json.dumps(done.as_dict(), ensure_ascii=False))
        return 0
    show(done.figures, Console(highlight=False))
    closing(done.run, time.perf_counter() - begin)
    return 0


def show(figures: Figures, console: Console) -> None:
    """The table for a person."""
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number > 0)
    for row in figures.rows:
        table.add_row(*cells(row, interval=False))
    console.print(table, markup=False)
    if figures.gain:
        value, low, high = (100 * x for x in figures.gain)
        console.print(
            f"distilled minus labels alone: {value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}), "
            f"on {figures.measured_on}",
            markup=False,
            soft_wrap=True,
        )
