"""Pictures to classes and probabilities, by a saved model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from handful.augment.views import to_input
from handful.data.images import decode
from handful.data.manifest import pictures_below
from handful.engine.evaluate import evaluating
from handful.export import load_model
from handful.types import UsageError


def predict(
    run: str | Path, pictures: Sequence[str | Path], *, batch: int = 64
) -> tuple[list[tuple[str, str, float]], list[tuple[str, str]]]:
    """Class and probability of pictures (files, or folders that are searched).

    Returns:
        (file, class, probability) in the order given, and (file, reason) of those that cannot be read.

    Raises:
        UsageError: no such run or no pictures.
    """
    saved = load_model(run)
    files: list[Path] = []
    for item in map(Path, pictures):
        if item.is_dir():
            files += [item / name for name in pictures_below(item)]
        elif item.exists():
            files.append(item)
        else:
            raise UsageError("there is no such file", file=item, fix="check the path")
    if not files:
        raise UsageError("no pictures were given", fix="handful predict RUN picture.jpg folder/ …")
    good: list[tuple[str, str, float]] = []
    bad: list[tuple[str, str]] = []
    with evaluating(saved.classifier) as model:
        for first in range(0, len(files), batch):
            names, arrays = [], []
            for file in files[first : first + batch]:
                try:
                    arrays.append(decode(file, saved.store["channels"], saved.store["side"]))
                    names.append(str(file))
                except ValueError as error:
                    bad.append((str(file), str(error)))
            if arrays:
                p = model(to_input(torch.from_numpy(np.stack(arrays)), saved.classifier.spec)).logits.softmax(
                    1
                )
                confidence, label = p.max(1)
                good += [
                    (n, saved.classes[k], float(c)) for n, k, c in zip(names, label.tolist(), confidence)
                ]
    return good, bad
