"""How long a user waits: ``handful fit`` on a folder of tf_flowers, 16 labels per class, everything else unlabelled.

Each command is a process of its own with an empty cache: imports, decoding, features and the report are counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import arguments, record
from handful.data.split import draw

PER_CLASS, DRAW = 16, 5
COMMANDS = {"feature path alone": ("--recipe", "propagation"), "auto, default time": ()}


def lay_out(archive: Path, folder: Path) -> None:
    """<class>/ with the labelled pictures, unlabeled/ with the other ones of the train part, test/<class>/."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))
        parts = [name.split("/")[-3:] for name in names]  # part, class, file
        classes = sorted({kind for _, kind, _ in parts})
        pool = [i for i, (part, _, _) in enumerate(parts) if part == "train"]
        y = np.array([classes.index(parts[i][1]) for i in pool])
        labelled = {pool[row] for row in draw(y, PER_CLASS, DRAW)}
        for i, (part, kind, name) in enumerate(parts):
            place = Path("test") / kind if part != "train" else Path(kind if i in labelled else "unlabeled")
            path = folder / place / f"{i:05d}-{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read(names[i]))


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch) / "flowers"
        lay_out(given.data_root / "tf_flowers" / "tf_flowers.zip", pictures)
        for what, options in COMMANDS.items():
            place = Path(scratch) / what.split(",")[0].replace(" ", "-")
            words = ["-m", "handful", "fit", str(pictures), *options, "--out", str(place / "run")]
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words],
                env={**os.environ, "HANDFUL_CACHE": str(place / "cache")},
                check=True,
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - begin
            print(done.stdout)
            told = next(line for line in done.stdout.splitlines() if "% right" in line)
            rows.append(
                {"command": what, "options": " ".join(options), "seconds": seconds, "told": told.strip()}
            )
    record("fit_time", rows, seeds=f"label draw {DRAW}", labels_per_class=PER_CLASS)


if __name__ == "__main__":
    main()
