"""``handful demo``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handful import api
from handful.cli.console import ConsoleTeller, Printed, closing, parse


@dataclass(kw_only=True)
class DemoArguments(Printed):
    """The whole job on handwritten digits: 40 labelled, 1,307 unlabelled, 450 held out for the test."""

    out: Path = Path("runs/demo-digits")
    """folder of the pictures and the run"""


def demo(words: Sequence[str]) -> int:
    given = parse(DemoArguments, "demo", words)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        run = api.demo(given.out, teller=teller)
    closing(run, teller.elapsed, as_json=given.json)
    return 0
