"""Real pictures that ship with scikit-learn, in the shapes that the tests of augmentations need."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

SHAPES = [(1, 1), (1, 7), (33, 65), (48, 48)]


def photographs(h: int, w: int, *, gray: bool = False) -> torch.Tensor:
    """Four cuttings of two photographs, shrunk: uint8 [4, C, h, w]."""
    found = []
    for name in ("china.jpg", "flower.jpg"):
        whole = Image.fromarray(load_sample_image(name))
        for left in (40, 300):
            part = whole.crop((left, 60, left + 320, 380)).resize((w, h), Image.Resampling.BOX)
            found.append(
                np.asarray(part.convert("L" if gray else "RGB")).reshape(h, w, -1).transpose(2, 0, 1)
            )
    return torch.from_numpy(np.stack(found).copy())


def to_pillow(x: torch.Tensor) -> Image.Image:
    """uint8 [C, H, W]."""
    return Image.fromarray(x[0].numpy() if len(x) == 1 else x.permute(1, 2, 0).contiguous().numpy())


def from_pillow(picture: Image.Image) -> torch.Tensor:
    """uint8 [C, H, W]."""
    array = np.asarray(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy())
