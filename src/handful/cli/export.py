"""``handful export``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import parse, print_json


@dataclass
class ExportArguments:
    """Write a finished run's model as one file that holds classes and preprocessing too."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a finished run"""
    format: Literal["onnx", "safetensors"] = "onnx"
    """onnx: pictures in, probabilities out, for any runtime; safetensors: for handful itself"""
    out: Path | None = None
    """the file (default: RUN/deploy.onnx or RUN/deploy.safetensors)"""
    json: bool = False
    """print the result as JSON"""


def export(words: Sequence[str]) -> int:
    given = parse(ExportArguments, "export", words)
    done = api.export(given.run, given.format, out=given.out)
    if given.json:
        print_json({"file": str(done.file), "bytes": done.bytes, "difference": done.difference})
        return 0
    print(f"{done.file} ({done.bytes / 1e6:.1f} MB)")
    if done.difference is not None:
        print(f"largest difference of a probability from PyTorch: {done.difference:.1e}")
    return 0
