"""Pictures to classes and probabilities, by a saved model.

Legend: n pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.augment.views import to_input
from handful.data.images import decode
from handful.data.manifest import pictures_below
from handful.inference.logits import evaluating
from handful.inference.model_file import Saved, load_model
from handful.types import UsageError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answers:
    """What a model says of pictures.

    Attributes:
        names: of those that could be read, in the order given.
        rows: where they stand among the pictures that were asked about.
        p: calibrated probabilities [n, K].
        bad: (name, reason) of the others.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    p: Tensor
    bad: tuple[tuple[str, str], ...]


def classify(
    saved: Saved,
    pictures: Sequence[Any],
    names: Sequence[str] | None = None,
    *,
    batch: int = 64,
    progress: Progress | None = None,
) -> Answers:
    """Probabilities of pictures (whatever ``data.images.decode`` takes), decoded as the training pictures were.

    Args:
        names: for messages; by default the pictures' own, which are files then.
    """
    names = list(map(str, pictures)) if names is None else names
    rows: list[int] = []
    bad: list[tuple[str, str]] = []
    parts = [torch.empty(0, len(saved.classes))]
    for first in range(0, len(pictures), batch):
        arrays = []
        for row in range(first, min(first + batch, len(pictures))):
            try:
                arrays.append(decode(pictures[row], saved.store["channels"], saved.store["side"]))
                rows.append(row)
            except ValueError as error:
                bad.append((names[row], str(error)))
        if arrays:
            parts.append(probabilities(saved, torch.from_numpy(np.stack(arrays))))
        if progress:
            progress(min(first + batch, len(pictures)), len(pictures))
    return Answers(tuple(names[row] for row in rows), tuple(rows), torch.cat(parts), tuple(bad))


def probabilities(saved: Saved, x: Tensor, *, batch: int = 64) -> Tensor:
    """Calibrated probabilities [n, K] of stored pictures: uint8 [n, C, side, side], see ``saved.store``."""
    with evaluating(saved.classifier) as model:
        parts = [model(to_input(some, saved.classifier.spec)).logits.softmax(1) for some in x.split(batch)]
    return torch.cat([torch.empty(0, len(saved.classes)), *parts])


def picture_files(pictures: Sequence[str | Path]) -> list[Path]:
    """Files, and those in folders.

    Raises:
        UsageError: one is not there, a folder holds none, or none are given.
    """
    files: list[Path] = []
    for item in map(Path, pictures):
        if item.is_dir():
            below = pictures_below(item)
            if not below:
                raise UsageError(
                    "holds no pictures", file=item, fix="give pictures, or a folder that holds some"
                )
            files += [item / name for name in below]
        elif item.exists():
            files.append(item)
        else:
            raise UsageError("there is no such file", file=item, fix="check the path")
    if not files:
        raise UsageError("no pictures were given", fix="handful predict RUN picture.jpg folder/ …")
    return files


def predict(
    run: str | Path, pictures: Sequence[str | Path], *, batch: int = 64, progress: Progress | None = None
) -> tuple[list[tuple[str, str, float]], list[tuple[str, str]]]:
    """Class and probability of pictures (files, or folders that are searched).

    The class is "none of these" where the probability of the best one is below the run's threshold.

    Args:
        run: a run's folder, or a file of ``handful export --format safetensors``.

    Returns:
        (file, class, probability) in the order given, and (file, reason) of those that cannot be read.

    Raises:
        UsageError: no such run or no pictures.
    """
    saved = load_model(run)
    found = classify(saved, picture_files(pictures), batch=batch, progress=progress)
    best, label = (x.tolist() for x in found.p.max(1)) if len(found.p) else ([], [])
    good = [(name, saved.answer(k, p), p) for name, k, p in zip(found.names, label, best)]
    return good, list(found.bad)
