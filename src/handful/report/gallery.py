"""The gallery: what augmentations do to the user's own pictures, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handful.augment.mix import Mixing
from handful.augment.named import make
from handful.augment.operations import OPERATIONS, apply
from handful.files import write_atomic
from handful.randomness import uniform
from handful.report import figures
from handful.report.record import Thumb
from handful.report.templates import fill

STRENGTHS = 7  # pictures of a strip
DRAWS = 6  # of a policy, for each picture
PAIRS = 6  # mixed pictures
VIEWS = {
    "weak": "mirrored and moved",
    "strong": "affine map, light, a hole",
    "weak+randaugment": "RandAugment, N 2, M 9 of 30",
    "fixmatch-strong": "FixMatch's RandAugment and cutout",
    "weak+trivialaugment": "TrivialAugment",
    "weak+augmix": "AugMix",
    "noisy": "Noisy Student's RandAugment, N 2, M 27 of 10",
    "resized-crop": "a window, enlarged",
    "affine": "three corners moved",
    "perspective": "four corners moved",
    "blur:chance=1": "Gaussian blur",
    "jitter": "brightness, contrast and colour",
    "hue": "hues turned",
    "erasing:chance=1": "random erasing",
    "cutout": "cutout",
}


@dataclass
class Strip:
    """A row of pictures under one heading."""

    title: str
    thumbs: list[Thumb]
    note: str = ""


def write(
    path: Path,
    pictures: Tensor,
    labels: Sequence[str],
    *,
    name: str,
    view: str,
    about: Sequence[tuple[str, str]] = (),
    flip: bool = True,
    seed: int = 0,
) -> None:
    """The page for some pictures.

    Args:
        pictures: uint8 [B, C, H, W], B of 1 or more; the first ones are shown.
        labels: their class names.
        view: the chosen policy, as ``augment.named`` reads it.
        about: facts on where the policy comes from, for the head of the page.
        flip: whether views may mirror.
    """
    gray = pictures.shape[1] == 1
    others = [v for v in VIEWS if v != view and not (gray and v == "hue")]
    page = fill(
        "gallery.html.j2",
        name=name,
        view=view,
        about=about,
        fig=figures,
        policy=[_draws(pictures[i], labels[i], view, flip, seed) for i in range(min(3, len(pictures)))],
        operations=[
            _strip(operation, pictures[i % len(pictures)])
            for i, operation in enumerate(OPERATIONS)
            if operation != "identity" and not (gray and OPERATIONS[operation].color_only)
        ],
        views=[
            (words, _draws(pictures[i % len(pictures)], VIEWS[words], words, flip, seed))
            for i, words in enumerate(others)
        ],
        mixed=[_mixed(kind, pictures, labels, seed) for kind in ("cutmix", "mixup")],
    )
    write_atomic(path, page)


def _draws(picture: Tensor, title: str, view: str, flip: bool, seed: int) -> Strip:
    made = make(view, flip=flip)
    seen = made(
        picture.expand(DRAWS, *picture.shape).contiguous(),
        uniform((DRAWS, made.n_draws), seed, "gallery", title, view),
    )
    thumbs = [Thumb(picture.numpy(), caption="as it is")]
    return Strip(title, thumbs + [Thumb(x.numpy(), caption=f"draw {i + 1}") for i, x in enumerate(seen)])


def _strip(name: str, picture: Tensor) -> Strip:
    """One operation from its low end to its high one."""
    operation = OPERATIONS[name]
    if not operation.unit:
        done = apply(name, picture.unsqueeze(0))[0]
        return Strip(name, [Thumb(picture.numpy(), "as it is"), Thumb(done.numpy(), name)])
    values = np.linspace(operation.low, operation.high, STRENGTHS)
    if name == "posterize":
        values = np.arange(STRENGTHS, dtype=float) + 1
    seen = apply(name, picture.expand(len(values), *picture.shape).contiguous(), torch.from_numpy(values))
    thumbs = [Thumb(x.numpy(), caption=f"{v:.3g}") for x, v in zip(seen, values)]
    return Strip(name, thumbs, operation.unit)


def _mixed(kind: str, pictures: Tensor, labels: Sequence[str], seed: int) -> Strip:
    """Pairs of pictures of different classes, where there are, with the weights of their labels."""
    b = len(pictures)
    first = [i % b for i in range(PAIRS)]
    second = [
        next((j % b for j in range(i + 1, i + b) if labels[j % b] != labels[i]), (i + 1) % b) for i in first
    ]
    mixing = Mixing(kind)
    x, weight = mixing(
        pictures[first], pictures[second], uniform((PAIRS, mixing.n_draws), seed, "gallery", kind)
    )
    thumbs = [
        Thumb(
            x[i].numpy(),
            caption=f"{100 * w:.1f} % {labels[first[i]]}, {100 - 100 * w:.1f} % {labels[second[i]]}",
        )
        for i, w in enumerate(weight.tolist())
    ]
    return Strip({"cutmix": "CutMix", "mixup": "MixUp"}[kind], thumbs)
