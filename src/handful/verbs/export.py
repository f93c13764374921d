"""``handful export``: which format, which file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from handful.inference.model_file import SIDE_CAR, WEIGHTS, load_model, write_single
from handful.inference.onnx import export_onnx
from handful.types import UsageError

FORMATS = ("onnx", "safetensors")


@dataclass(frozen=True)
class Exported:
    """A model as one file.

    Attributes:
        difference: largest difference of a probability from PyTorch's, as checked; None where nothing was converted.
    """

    file: Path
    format: str
    bytes: int
    difference: float | None


def export(run: str | Path, format: str = "onnx", *, out: str | Path | None = None) -> Exported:
    """A finished run's model as one file that holds classes and preprocessing too.

    Args:
        out: the file; by default ``RUN/deploy.onnx`` or ``RUN/deploy.safetensors``.

    Raises:
        UsageError: no such run or format, or packages are missing.
        HandfulError: the network cannot be exported, or the file's answers are not PyTorch's.
    """
    if format not in FORMATS:
        raise UsageError(f"there is no format '{format}'", fix=" or ".join(FORMATS))
    saved = load_model(run)
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    file = Path(out) if out else folder / f"deploy.{format}"
    if file.is_dir():
        raise UsageError("is a folder", file=file, fix=f"give a file: --out {file / f'deploy.{format}'}")
    own = (WEIGHTS, SIDE_CAR, "run.toml", "splits.csv", "metrics.jsonl", "summary.json", "predictions.csv")
    if file.name in own and file.resolve().parent == folder.resolve():
        raise UsageError("is a file of the run itself", file=file, fix="choose another name with --out")
    difference = None
    if format == "onnx":
        difference = export_onnx(saved, file)
    else:
        write_single(saved, file)
    return Exported(file, format, file.stat().st_size, difference)
