"""``handful inspect --model``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, parse, said
from handful.report.model_page import verdict


@dataclass(kw_only=True)
class InspectModelArguments:
    """Look at a network: cost of each layer, receptive fields, gradients with and without its parts; on pictures, which
    layers transfer and where it looks."""

    model: str
    """a backbone's name, such as resnet-18, efficientnet-1.2x1.4, timm:NAME; or a finished run's folder"""
    data: Annotated[Positional[str], arg(metavar="[DATA]")] = ""
    """labelled pictures, for linear probes and activation maps"""
    size: int = 0
    """pixels a side (default: what the network was made for)"""
    channels: int = 0
    """of the pictures (default: 3)"""
    pretrained: bool = False
    """with trained weights (lite0 has them without a network connection)"""
    seed: int = 0
    """of fresh weights"""
    out: Path | None = None
    """folder of the page (default: runs/NAME-inspect)"""


def inspect_model(words: Sequence[str]) -> int:
    given = parse(InspectModelArguments, "inspect", words)
    with ConsoleTeller() as teller:
        done = api.inspect_model(
            given.model,
            given.data or None,
            size=given.size,
            channels=given.channels,
            pretrained=given.pretrained,
            seed=given.seed,
            out=given.out,
            teller=teller,
            command=said("inspect", words),
        )
    print(f"{done.look.name}: {verdict(done.look)}\nreport: {done.folder / 'report.html'}")
    print(f"({teller.elapsed:.0f} s)")
    return 0
