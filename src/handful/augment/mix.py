"""MixUp and CutMix: pictures and their labels mixed in pairs.

A pair's picture has weight w and its partner's 1 - w, in the pixels and in the label alike; what is drawn is drawn for
each picture. Partners are chosen over the global batch (``partners``), so that processes do not matter.

Legend: B pictures, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from handful.augment.steps import ONE
from handful.augment.views import uniform_to
from handful.randomness import permutation
from handful.types import UsageError

KINDS = ("mixup", "cutmix", "both")


@dataclass(frozen=True)
class Mixing:
    """How pictures are mixed.

    Attributes:
        kind: "mixup" (Zhang et al. 2018), "cutmix" (Yun et al. 2019), or "both" (one of them by a coin).
        alpha: of the Beta(alpha, alpha) that weights are drawn from.
        chance: share of the pictures that are mixed.
    """

    kind: str = "cutmix"
    alpha: float = 1.0
    chance: float = 1.0

    n_draws = 5  # whether, which kind, the weight, the middle of the box

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no mixing '{self.kind}'", fix=f"one of none, {', '.join(KINDS)}")
        if self.alpha <= 0 or not 0 <= self.chance <= 1:
            raise UsageError("mixing takes alpha above 0 and a chance within 0 and 1")

    def __call__(self, x: Tensor, other: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Each picture mixed with its partner.

        Args:
            x, other: uint8 [B, C, H, W].
            u: [B, 5] uniform numbers.

        Returns:
            The pictures, and their own weights float64 [B] (their partners have the rest).
        """
        numbers = u.cpu().double().numpy()
        h, w = x.shape[2:]
        share = np.where(numbers[:, 0] < self.chance, betaincinv(self.alpha, self.alpha, numbers[:, 2]), 1.0)
        cuts = self.kind == "cutmix" or (self.kind == "both") & (numbers[:, 1] < 0.5)
        boxes = cut_boxes(np.where(cuts, share, 1.0), numbers[:, 3:], h, w)
        weight = torch.from_numpy(np.where(cuts, 1.0, np.round(share * ONE) / ONE))
        mixed = x if self.kind == "cutmix" else mixup(x, other, weight)
        if self.kind == "mixup":
            return mixed, weight
        return cutmix(mixed, other, boxes), weight * own_area(boxes, h, w)


def partners(n: int, *key: object) -> Tensor:
    """Whom each picture of a global batch of n is mixed with: a random order, int64 [n]."""
    return torch.from_numpy(permutation(n, *key, "partners"))


def mixup(x: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """w x + (1 - w) other, rounded to whole gray values (Zhang et al. 2018, eq. 1).

    Args:
        x, other: uint8 [B, C, H, W].
        weight: [B] in [0, 1], multiples of 2^-16.
    """
    w = (weight * ONE).round().int().to(x.device).view(-1, 1, 1, 1)
    return ((x.int() * w + other.int() * (ONE - w) + ONE // 2) >> 16).to(torch.uint8)


def cut_boxes(share: np.ndarray, middle: np.ndarray, h: int, w: int) -> np.ndarray:
    """Boxes (top, bottom, left, right) int64 [B, 4] of area (1 - share) H W around random pixels, cut at the edge
    (Yun et al. 2019, eq. 2).

    Args:
        share: what remains of the picture, float64 [B].
        middle: uniform numbers [B, 2], down and across.
    """
    side = np.sqrt(1 - share)
    ends = []
    for n, column in ((h, 0), (w, 1)):
        length = np.floor(side * n + 1e-9).astype(np.int64)
        first = uniform_to(middle[:, column], n) - length // 2
        ends += [first.clip(0, n), (first + length).clip(0, n)]
    return np.stack(ends, 1)


def own_area(boxes: np.ndarray, h: int, w: int) -> Tensor:
    """Share of each picture that lies outside its box: float64 [B]."""
    inside = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    return torch.from_numpy((h * w - inside) / (h * w))


def cutmix(x: Tensor, other: Tensor, boxes: np.ndarray) -> Tensor:
    """The partner's pixels inside the box, the picture's own outside.

    Args:
        x, other: uint8 [B, C, H, W].
        boxes: (top, bottom, left, right) int64 [B, 4].
    """
    out = x.clone()
    # a loop is quicker than a mask for all, since few bytes move; and numpy cuts quicker than torch
    target: Any
    source: Any
    target, source = (out.numpy(), other.numpy()) if x.device.type == "cpu" else (out, other)
    for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
        target[i, :, top:bottom, left:right] = source[i, :, top:bottom, left:right]
    return out


def mixed_labels(y: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """w y + (1 - w) other, for float [B, K]."""
    w = weight.to(y).unsqueeze(1)
    return w * y + (1 - w) * other
