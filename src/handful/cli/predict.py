"""``handful predict``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, parse, print_json
from handful.data.manifest import printable


@dataclass
class PredictArguments:
    """Classify pictures with a finished run: a line each of file, class and probability, tab-separated."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a finished run"""
    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="PICTURES")]
    """files, or folders that are searched"""
    json: bool = False
    """a JSON object a line: file, label, probability"""
    quiet: bool = False
    """no progress bar"""


def predict(words: Sequence[str]) -> int:
    """``handful predict RUN PICTURES…``; 1 where a file could not be read (the others are classified)."""
    given = parse(PredictArguments, "predict", words)
    with ConsoleTeller(quiet=given.quiet) as teller:
        good, bad = api.predict(
            given.run,
            given.pictures,
            progress=lambda done, total: teller.progress("classifying", done, total),
        )
    for name, label, probability in good:
        file = printable(name)
        if given.json:
            print_json({"file": file, "label": label, "probability": round(probability, 6)})
        else:
            print(f"{file}\t{label}\t{probability:.4f}")
    for file, reason in bad:
        print(f"error: {printable(file)}: {reason}", file=sys.stderr)
    return 1 if bad else 0
