"""What all benchmarks share: where the data are, pictures from archives, and the file of results."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import io
import json
import os
import platform
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from handful import machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "handful", "torch", "torchvision", "timm", "numpy", "scikit-learn", "onnxruntime", "openvino", "numba", "kornia",
)  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with ``--data-root``: by default ``$HANDFUL_DATA_ROOT``, else ``../shared/data``."""
    parser = argparse.ArgumentParser(description=description)
    root = os.environ.get("HANDFUL_DATA_ROOT", "../shared/data")
    parser.add_argument("--data-root", type=Path, default=Path(root), help="folder of the data sets")
    return parser


def record(name: str, rows: list[dict[str, Any]], **info: Any) -> None:
    """Write ``results/NAME.json``: rows of named figures, and all that is needed to measure them again."""
    content = {
        "command": command(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        **info,
        "versions": versions(),
        "machine": this_machine(),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


def command() -> str:
    """The command line that runs, without folders of this machine."""
    words = ["python", "-m", sys.modules["__main__"].__spec__.name]
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        if "--data-root" not in (before, word) and not word.startswith("--data-root="):
            words.append(f"DIR/{Path(word).name}" if Path(word).is_absolute() else word)
    return " ".join(words)


def versions() -> dict[str, str]:
    """Versions of what is installed of ``PACKAGES``."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def this_machine() -> dict[str, Any]:
    """Processor, the instruction sets that matter here, and cores."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": machine.cores(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def pictures(archive: Path, size: int, names: list[str]) -> Tensor:
    """Pictures of a zip archive, short side to ``size`` (bicubic), centre cropped: uint8 [N, 3, S, S]."""
    out = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    with zipfile.ZipFile(archive) as file:
        for i, name in enumerate(names):
            image = Image.open(io.BytesIO(file.read(name))).convert("RGB")
            ratio = size / min(image.size)
            width, height = (max(size, round(side * ratio)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - size) // 2, (height - size) // 2
            image = image.crop((left, top, left + size, top + size))
            out[i] = (
                torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
                .view(size, size, 3)
                .permute(2, 0, 1)
            )
    return out


def members(archive: Path) -> list[str]:
    """The JPEG files of a zip archive, sorted."""
    with zipfile.ZipFile(archive) as file:
        return sorted(name for name in file.namelist() if name.endswith(".jpg"))


class InMemory:
    """Pictures [N, C, H, W] as ``handful.inference.features.Images``."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def take(self, ids: Tensor) -> Tensor:
        return self.x.index_select(0, ids)
