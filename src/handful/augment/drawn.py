"""Views that draw the parameters of one operation, for each picture anew.

Legend: B pictures, H height, W width; ``u`` float64 [B, n_draws] in [0, 1); points are (x, y) in [0, 1], as shares of
the picture's sides, x to the right and y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from handful.augment import filters, steps
from handful.augment.operations import Canvas, find
from handful.augment.views import Stepwise, uniform_to
from handful.types import UsageError

GRAY = 127
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


@dataclass(frozen=True)
class Draw(Stepwise):
    """One operation with a number drawn between two ends.

    Attributes:
        operation: a name of ``operations.OPERATIONS``.
        low, high: ends of the range, in the operation's unit; NaN takes its own.
        chance: share of the pictures that get it.
        bilinear, fill: as in ``RandAugment``.
    """

    operation: str
    low: float = math.nan
    high: float = math.nan
    chance: float = 1.0
    bilinear: bool = False
    fill: int = 0
    n_draws: int = 2

    def __post_init__(self) -> None:
        find(self.operation)
        _check_share("chance", self.chance)

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, 1, 8]."""
        operation = find(self.operation)
        low = operation.low if math.isnan(self.low) else self.low
        high = operation.high if math.isnan(self.high) else self.high
        rows = operation.encode(low + (high - low) * u[:, 1], Canvas(h, w, self.bilinear, self.fill))
        rows[u[:, 0] >= self.chance] = 0
        return rows[:, None]


@dataclass(frozen=True)
class Jitter(Stepwise):
    """Brightness, contrast and colour, each by a factor of its own, in this order.

    Attributes:
        brightness, contrast, color: largest change either way, as a fraction.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    color: float = 0.4
    n_draws: int = 3

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, 3, 8]."""
        names = ("brightness", "contrast", "color")
        most = np.array([self.brightness, self.contrast, self.color])
        factors = 1 + most * (2 * u - 1)
        return np.stack([find(n).encode(factors[:, i], Canvas(h, w)) for i, n in enumerate(names)], 1)


@dataclass(frozen=True)
class ResizedCrop(Stepwise):
    """A window of random area and shape, enlarged to the whole (bilinear).

    Attributes:
        smallest: least share of the area that is seen.
        shape: the window's width over its height lies within 1 / shape and shape, log-uniformly.
    """

    smallest: float = 0.25
    shape: float = 4 / 3
    n_draws: int = 4

    def __post_init__(self) -> None:
        _check_share("smallest", self.smallest)

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, 1, 8]."""
        area = self.smallest + (1 - self.smallest) * u[:, 0]
        root = np.sqrt(area)
        # the root of the shape, such that no side is longer than the picture's
        tilt = (self.shape ** (u[:, 1] - 0.5)).clip(root, 1 / root)
        across, down = root * tilt, root / tilt
        none = np.zeros(len(u))
        numbers = [across, none, (1 - across) * u[:, 3] * w, none, down, (1 - down) * u[:, 2] * h]
        return steps.affine(np.stack(numbers, 1).reshape(-1, 2, 3), bilinear=True)[:, None]


@dataclass(frozen=True)
class Cutout(Stepwise):
    """A gray square around a random pixel, cut at the picture's edge (DeVries & Taylor 2017).

    Attributes:
        side: of the square, as a share of the picture's shorter side.
        fill: its gray value.
    """

    side: float = 0.5
    fill: int = GRAY
    n_draws: int = 2

    def __post_init__(self) -> None:
        _check_share("side", self.side)

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, 1, 8]."""
        side = round(self.side * min(h, w))
        ends = []
        for n, column in ((h, 0), (w, 1)):
            first = uniform_to(u[:, column], n) - side // 2
            ends.append((first.clip(0, n), (first + side).clip(0, n)))
        (top, bottom), (left, right) = ends
        return steps.row(steps.ERASE, len(u), top, left, bottom - top, right - left, fill=self.fill)[:, None]


@dataclass(frozen=True)
class Erasing(Stepwise):
    """A gray rectangle of random area and shape inside the picture (Zhong et al. 2020).

    Attributes:
        chance: share of the pictures that get one.
        smallest, largest: share of the area.
        shape: its height over its width lies within 1 / shape and shape, log-uniformly; cut to fit.
        fill: its gray value.
    """

    chance: float = 0.5
    smallest: float = 0.02
    largest: float = 0.33
    shape: float = 10 / 3
    fill: int = GRAY
    n_draws: int = 5

    def __post_init__(self) -> None:
        for name in ("chance", "smallest", "largest"):
            _check_share(name, getattr(self, name))

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, 1, 8]."""
        area = (self.smallest + (self.largest - self.smallest) * u[:, 1]) * h * w
        tilt = self.shape ** (u[:, 2] - 0.5)
        height = np.round(np.sqrt(area) * tilt).clip(1, h).astype(np.int64)
        width = np.round(np.sqrt(area) / tilt).clip(1, w).astype(np.int64)
        top, left = uniform_to(u[:, 3], h - height + 1), uniform_to(u[:, 4], w - width + 1)
        rows = steps.row(steps.ERASE, len(u), top, left, height, width, fill=self.fill)
        rows[u[:, 0] >= self.chance] = 0
        return rows[:, None]


@dataclass(frozen=True)
class Affine(Stepwise):
    """The affine map that moves three corners each by a random amount.

    Attributes:
        most: largest move along each axis, as a share of the side.
        bilinear, fill: as in ``RandAugment``.
    """

    most: float = 0.15
    bilinear: bool = True
    fill: int = 0
    n_draws: int = 6

    def rows(self, u: np.ndarray, h: int, w: int) -> np.ndarray:
        """Steps int32 [B, 1, 8]."""
        seen = CORNERS[:3] + self.most * (2 * u.reshape(-1, 3, 2) - 1)
        corners = np.broadcast_to(CORNERS[:3], seen.shape)
        size = np.array([w, h])
        return steps.affine(
            affine_from_points(corners * size, seen * size), bilinear=self.bilinear, fill=self.fill
        )[:, None]


@dataclass(frozen=True)
class Perspective:
    """The perspective map that moves four corners each by a random amount.

    Attributes:
        most: largest move along each axis, as a share of the side; below 1/2.
        fill: gray value of what comes from outside.
    """

    most: float = 0.2
    fill: int = 0
    n_draws: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.most < 0.5:
            raise UsageError(f"perspective: most is {self.most}, and corners must not meet", fix="below 0.5")

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, 8]."""
        size = np.array([x.shape[3], x.shape[2]])
        seen = CORNERS + self.most * (2 * u.cpu().double().numpy().reshape(-1, 4, 2) - 1)
        corners = np.broadcast_to(CORNERS, seen.shape)
        return filters.perspective(x, perspective_from_points(corners * size, seen * size), fill=self.fill)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur of random width.

    Attributes:
        chance: share of the pictures that get it.
        low, high: ends of the range of sigma, in pixels.
    """

    chance: float = 0.5
    low: float = 0.1
    high: float = 2.0
    n_draws: int = 2

    def __post_init__(self) -> None:
        _check_share("chance", self.chance)

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, 2]."""
        sigma = torch.where(u[:, 0] < self.chance, self.low + (self.high - self.low) * u[:, 1], 0.0)
        return filters.blur(x, sigma.to(x.device))


@dataclass(frozen=True)
class Hue:
    """All hues of a picture turned by a random angle.

    Attributes:
        most: largest turn either way, as a share of the circle.
    """

    most: float = 0.1
    n_draws: int = 1

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, 1]."""
        return filters.hue(x, (self.most * (2 * u[:, 0] - 1)).to(x.device))


def affine_from_points(points: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The affine maps [B, 2, 3] that take three points each (x, y) [B, 3, 2] to their images [B, 3, 2].

    Raises:
        numpy.linalg.LinAlgError: three points on one line.
    """
    ones = np.concatenate([points, np.ones((*points.shape[:2], 1))], 2)  # [B, 3, 3]
    return np.linalg.solve(ones, images).transpose(0, 2, 1)


def perspective_from_points(points: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The perspective maps [B, 3, 3], last entry 1, that take four points (x, y) [B, 4, 2] to their images.

    Raises:
        numpy.linalg.LinAlgError: three of the points on one line.
    """
    x, y = points[:, :, 0], points[:, :, 1]
    zero, one = np.zeros_like(x), np.ones_like(x)
    equations = []
    for k, line in ((0, [x, y, one, zero, zero, zero]), (1, [zero, zero, zero, x, y, one])):
        image = images[:, :, k]
        equations.append(np.stack([*line, -x * image, -y * image], 2))  # [B, 4, 8]
    right = np.concatenate([images[:, :, 0], images[:, :, 1]], 1)[:, :, None]
    found = np.linalg.solve(np.concatenate(equations, 1), right)[:, :, 0]
    return np.concatenate([found, np.ones((len(found), 1))], 1).reshape(-1, 3, 3)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value}", fix="a share lies within 0 and 1")
