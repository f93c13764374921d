"""``demo``: the main job on handwritten digits, which need no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.data.split import draw
from handful.randomness import permutation
from handful.run.file import Run
from handful.run.teller import Teller
from handful.verbs.fit import FitOptions, fit


def demo(
    folder: str | Path = "runs/demo-digits", *, seed: int = 0, teller: Teller | None = None, **options: Any
) -> Run:
    """The main job on handwritten digits that ship with scikit-learn: 4 labels per class, the rest unlabelled,
    450 pictures held out. The pictures are written to ``folder/digits`` as PNG files first."""
    pictures = Path(folder) / "digits"
    write_digits(pictures, per_class=4, seed=seed)
    choices = FitOptions(seconds=90, seed=seed, without_priors=("digits",))
    return fit(
        pictures, replace(choices, **options), out=Path(folder) / "run", teller=teller, command="handful demo"
    )


def write_digits(folder: Path, *, per_class: int, seed: int) -> None:
    """The digits as a folder: <class>/ with ``per_class`` pictures each, unlabeled/, test/<class>/ (450)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    pictures = np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    order = permutation(len(y), "digits")
    test, pool = np.sort(order[:450]), np.sort(order[450:])
    labelled = set(pool[draw(y[pool].astype(np.int64), per_class, seed)].tolist())
    in_test = set(test.tolist())
    for row in range(len(y)):
        if row in in_test:
            place = folder / "test" / str(y[row])
        else:
            place = folder / (str(y[row]) if row in labelled else "unlabeled")
        path = place / f"{row:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[row]).save(path)
