"""The page of ``handful inspect --model``: what a network costs, sees, and how gradients go through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handful.models.count import Counted
from handful.models.paths import PathLength
from handful.models.receptive import Field
from handful.report import figures
from handful.report.model_figures import accuracies, bars, heat, norms
from handful.report.record import Thumb
from handful.report.templates import fill
from handful.report.words import THIN


@dataclass(frozen=True)
class Row:
    """A layer or a building block.

    Attributes:
        field: theoretical receptive field; None where it is not known.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    counted: Counted
    field: Field | None = None


@dataclass(frozen=True)
class Effective:
    """An effective receptive field [H, W] (largest 1) and the theoretical one of the same layer's middle unit: first
    and one past the last pixel of rows and columns."""

    layer: str
    values: NDArray[np.float64]
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class ModelLook:
    """Everything that the page shows.

    Attributes:
        weights: where the weights come from, in words.
        total: of the whole network, for one picture.
        held: parameters that run in training only (auxiliary heads); they are part of ``total``.
        blocks, layers: in the order in which they run.
        at_start, in_training: gradient norm by layer, by variant ("as it is", "without shortcuts" …).
        losses: loss by step, by variant.
        probes: layer -> share right; chance and pictures in ``probed``.
        maps: pairs of a picture and the same with its map.
    """

    name: str
    weights: str
    size: int
    channels: int
    total: Counted
    held: int
    activation_bytes: int
    blocks: Sequence[Row]
    layers: Sequence[Row]
    effective: Sequence[Effective]
    at_start: Mapping[str, Sequence[float]]
    in_training: Mapping[str, Sequence[float]]
    losses: Mapping[str, Sequence[float]]
    trained_on: str
    paths: Sequence[PathLength] = ()
    probes: Mapping[str, float] = field(default_factory=dict)
    probed: str = ""
    chance: float = 0.0
    maps: Sequence[tuple[Thumb, Thumb]] = ()
    map_kind: str = ""
    command: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def render(look: ModelLook) -> str:
    """The page as text; it needs nothing else."""
    return fill(
        "model.html.j2",
        amount,
        sides,
        shape,
        s=look,
        fig=figures,
        verdict=verdict(look),
        seen=[(e, field_thumb(e)) for e in look.effective],
        starts=norms(look.at_start, "Gradient norm by layer before training"),
        trained=norms(look.in_training, "Gradient norm by layer after some steps"),
        curves=figures.lines(
            {name: list(enumerate(values)) for name, values in look.losses.items()}, "Loss in training"
        ),
        path_bars=bars(
            {
                "paths": [p.paths / 2 ** (len(look.paths) - 1) for p in look.paths],
                "gradient": [p.share for p in look.paths],
            },
            "Paths and gradient by length",
            "blocks on the path",
        ),
        probe_bars=accuracies(
            {name: (value, look.chance) for name, value in look.probes.items()}, "Linear probe by layer"
        ),
        best=max(look.probes, key=lambda name: look.probes[name]) if look.probes else "",
    )


def verdict(look: ModelLook) -> str:
    """One paragraph: size, cost, sight."""
    words = [
        f"{amount(look.total.parameters)} parameters; {amount(look.total.multiply_adds)} multiply-adds "
        f"({amount(look.total.flops)} FLOPs) for a picture of {look.size} px; "
        f"{amount(look.activation_bytes)}B of activations for each picture of a training batch."
    ]
    if look.held:
        words.append(f"{amount(look.held)} of the parameters run in training only (auxiliary heads).")
    fields = [
        row.field
        for row in look.blocks
        if row.field and len(row.shape) == 4 and row.shape[2] * row.shape[3] > 1
    ]
    if fields:
        last = fields[-1]
        words.append(
            f"A unit of its last map sees {sides(last)} px"
            + (
                " in theory."
                if last.size <= look.size
                else f" in theory, more than the {look.size} px there are."
            )
        )
    return " ".join(words)


def amount(number: float) -> str:
    """25557032 to "25.6 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{THIN}{unit}"
    return f"{number:g}{THIN}"


def sides(seen: Field | None) -> str:
    """A receptive field as the table shows it: "196", "7 × 1", "whole (851)"."""
    if seen is None:
        return ""
    told = _pair(seen, "size")
    return f"whole ({told})" if seen.whole else told


def _pair(seen: Field, name: str) -> str:
    a, b = (getattr(reach, name) for reach in (seen.rows, seen.columns))
    return f"{a:g}" if a == b else f"{a:g} × {b:g}"


def shape(sizes: Sequence[int]) -> str:
    """(1, 64, 56, 56) to "64 × 56 × 56": one picture's."""
    return " × ".join(map(str, sizes[1:])) if sizes else ""


def field_thumb(e: Effective) -> Thumb:
    """The effective field as a picture, with the theoretical one as a frame."""
    x = heat(e.values).copy()
    orange = np.array([230, 159, 0], dtype=np.uint8)[:, None]
    (top, bottom), (left, right) = e.rows, e.columns
    for row in (top, bottom - 1):
        x[:, row, left:right] = orange
    for column in (left, right - 1):
        x[:, top:bottom, column] = orange
    return Thumb(x, caption=f"effective receptive field of {e.layer}")
