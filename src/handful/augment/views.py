"""Views: whole uint8 batches to augmented uint8 batches, each picture with random numbers of its own.

A view is a pure function of the pictures and of uniform numbers ``u`` [B, n_draws] in [0, 1), one row per
picture. Whoever calls it draws ``u`` for the global batch and passes this rank's rows, so that the result
does not depend on the number of processes.

Legend: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from handful.augment import steps, tensors
from handful.types import InputSpec


class View(Protocol):
    """``n_draws`` uniform numbers per picture make one augmented picture."""

    @property
    def n_draws(self) -> int: ...

    def __call__(self, x: Tensor, u: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Plain:
    """The picture as it is."""

    n_draws: int = 0

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        return x


class Stepwise:
    """A view that is made of ``steps``: what it does is a table of whole numbers, so neighbours join into one."""

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, N, 8] for uniform numbers float64 [B, n_draws]."""
        raise NotImplementedError

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, n_draws]."""
        return tensors.run(x, self.rows(u.cpu().double().numpy(), x.shape[2], x.shape[3]))


@dataclass(frozen=True)
class Chain:
    """Views one after the other.

    Attributes:
        views: in order; each has columns of u of its own.
    """

    views: tuple[View, ...]

    @property
    def n_draws(self) -> int:
        return sum(view.n_draws for view in self.views)

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, n_draws]."""
        parts: Iterable[tuple[Any, Tensor]] = zip(self.views, u.split([v.n_draws for v in self.views], dim=1))
        for of_steps, some in groupby(parts, lambda part: isinstance(part[0], Stepwise)):
            if of_steps:  # neighbours are carried out together
                h, w = x.shape[2:]
                rows = [view.rows(own.cpu().double().numpy(), h, w) for view, own in some]
                x = tensors.run(x, np.concatenate(rows, 1))
            else:
                for view, own in some:
                    x = view(x, own)
        return x


@dataclass(frozen=True)
class Weak(Stepwise):
    """Left-right flip with probability one half; a shift by up to ``shift`` of the side (reflected edges).

    Attributes:
        flip: mirror half of the pictures (wrong for digits and letters).
        shift: largest shift as a fraction of the side.
    """

    flip: bool = True
    shift: float = 0.125
    n_draws: int = 3

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        mirror = (u[:, 0] < 0.5) & self.flip
        down, right = (_moved(n, u[:, i], self.shift) for n, i in ((h, 1), (w, 2)))
        return steps.row(steps.WINDOW, len(u), down, right, mirror)[:, None]


@dataclass(frozen=True)
class Strong:
    """Random affine map, brightness and contrast, and one square cut out.

    Attributes:
        flip: mirror half of the pictures.
        rotate: largest rotation in degrees, either way.
        scale: largest zoom, in or out, as a fraction.
        shear: largest shear (tangent).
        shift: largest shift as a fraction of the side.
        light: largest change of brightness and contrast as a fraction.
        hole: largest side of the square that is set to mid gray, as a fraction of the picture's side.
    """

    flip: bool = True
    rotate: float = 20.0
    scale: float = 0.2
    shear: float = 0.15
    shift: float = 0.125
    light: float = 0.4
    hole: float = 0.4
    n_draws: int = 12

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, 12]."""
        b, _, h, w = x.shape
        u = u.to(x.device)
        signed = 2 * u - 1
        angle = signed[:, 0] * math.radians(self.rotate)
        zoom = (1 + self.scale) ** signed[:, 1]
        mirror = torch.where(u[:, 2] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(zoom)
        shear = signed[:, 3] * self.shear
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        theta = torch.stack(
            [
                torch.stack([mirror * cos, cos * shear - sin, 2 * self.shift * signed[:, 4]], 1),
                torch.stack([mirror * sin, sin * shear + cos, 2 * self.shift * signed[:, 5]], 1),
            ],
            1,
        )  # [B, 2, 3]
        grid = F.affine_grid(theta, [b, 1, h, w], align_corners=False)
        out = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        mean = out.mean((1, 2, 3), keepdim=True)
        contrast = (1 + self.light * signed[:, 6]).view(b, 1, 1, 1)
        brightness = (1 + self.light * signed[:, 7]).view(b, 1, 1, 1)
        out = ((out - mean) * contrast + mean) * brightness
        side = u[:, 8] * self.hole
        lines, columns = _between(h, u[:, 9], side), _between(w, u[:, 10], side)
        out = out.masked_fill((lines.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), 127.0)
        return out.add_(0.5).clamp_(0, 255).to(torch.uint8)


def to_input(x: Tensor, spec: InputSpec) -> Tensor:
    """uint8 [B, C, H, W] to what a network wants: normalised float32 [B, spec.channels, S, S], S = spec.size.

    Gray pictures are repeated over the channels; colour pictures become gray by ITU-R 601 luma; other sizes
    are resized (bicubic, antialiased).
    """
    if x.shape[-1] != spec.size or x.shape[-2] != spec.size:
        # whole gray values, as the tables of frozen features are made (inference.features)
        size = (spec.size, spec.size)
        x = x if x.device.type == "cpu" else x.float()
        x = F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
        x = x if x.dtype == torch.uint8 else x.round().clamp(0, 255)
    out = x.float()
    if spec.channels != out.shape[1]:
        if out.shape[1] == 1:
            out = out.expand(-1, spec.channels, -1, -1)
        else:
            out = (out * out.new_tensor(steps.LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    scale = 1 / (255 * out.new_tensor(spec.std)).view(1, -1, 1, 1)
    offset = -(out.new_tensor(spec.mean) / out.new_tensor(spec.std)).view(1, -1, 1, 1)
    return out * scale + offset


def uniform_to(u: np.ndarray, n: Any) -> np.ndarray:
    """One of 0 … n-1 with equal chances: int64."""
    return np.minimum((u * n).astype(np.int64), n - 1)


def _moved(n: int, u: np.ndarray, fraction: float) -> np.ndarray:
    """A move by a whole number of pixels, either way, by at most ``fraction`` of n: int64 [B]."""
    most = min(int(fraction * n + 0.5), n - 1)
    return uniform_to(u.astype(np.float32), 2 * most + 1) - most


def _between(n: int, centre: Tensor, width: Tensor) -> Tensor:
    """Which of n pixels lie within ``width`` (a fraction of n) around ``centre``: bool [B, n]."""
    position = (torch.arange(n, device=centre.device) + 0.5) / n
    return (position - centre.unsqueeze(1)).abs() < width.unsqueeze(1) / 2
