"""Pictures to probabilities, by a saved model.

Legend: n pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.augment.views import to_input
from handful.data.images import decode
from handful.inference.logits import evaluating
from handful.inference.model_file import Saved

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
