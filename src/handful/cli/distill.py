"""``handful distill``."""

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
from handful.inference.teachers import Onnx
from handful.methods.distillation import PATIENT, Distillation
from handful.recipes.training import SMALL
from handful.verbs.distill_table import COLUMNS, Figures, cells

PATIENT_SECONDS = 1200.0
METHOD = (
    "temperature", "hard_weight", "soft_weight", "feature_weight", "feature_loss", "patient", "view",
)  # fmt: skip


@dataclass(kw_only=True)
class DistillArguments(Printed):
    """Train a small network on what a large one says of pictures, labelled or not; a run folder with a table of sizes,
    speeds and accuracies comes out. With --patient the student sees no labels and learns for 20m, if nothing else is
    said."""

    teacher: Annotated[Positional[str], arg(metavar="TEACHER")]
    """folder of a run, lite0, timm:NAME, torchvision:NAME, a .onnx file, or predictions (.csv with path,CLASS,CLASS,…;
    .npz with paths, p, classes)"""
    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """pictures, as for handful fit (default: those of the teacher's run)"""
    also: tuple[str, ...] = ()
    """further teachers: all answer together, by the mean of their probabilities"""
    out: Path | None = None
    """folder of the run (default: runs/NAME-distill-STUDENT-…)"""
    options: Annotated[dict[str, Any], options_of(api.DistillOptions(), without=("labels_per_class",))] = (
        field(default_factory=dict)
    )
    method: Annotated[
        dict[str, Any], options_of(Distillation(), only=METHOD, words={"feature_weight": "features"})
    ] = field(default_factory=dict)
    onnx: Annotated[dict[str, Any], options_of(Onnx(), name="onnx")] = field(default_factory=dict)
    training: Annotated[
        dict[str, Any], options_of(SMALL, name="training", aliases={"steps": ("--steps",)})
    ] = field(default_factory=dict)


def distill(words: Sequence[str]) -> int:
    given = parse(DistillArguments, "distill", words)
    usual: dict[str, Any] = PATIENT if given.method.get("patient") else {}
    method = {**usual, **given.method}
    if "view" in method:
        method["taught_view"] = method["view"]
    if usual:
        given.options.setdefault("seconds", PATIENT_SECONDS)
    options = api.DistillOptions(
        **given.options, method=Distillation(**method), onnx=Onnx(**given.onnx), training=given.training
    )
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.distill(
            [given.teacher, *given.also],
            given.data or None,
            options,
            out=given.out,
            teller=teller,
            command=said("distill", words),
        )
    if given.json:
        print_json(done.as_dict())
        return 0
    show(done.figures, Console(highlight=False))
    closing(done.run, teller.elapsed)
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
