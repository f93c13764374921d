"""The operations that take one number, by name: each turns numbers, one a picture, into steps.

Factors are as in Pillow: 1 leaves the picture as it is, 0 gives the degenerate picture (black, gray, blurred), and
beyond 1 the difference grows. ``encode`` gives a row a picture for ``tensors.run``.

Legend: B pictures, H height, W width; ``v`` float64 [B].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.augment import steps, tensors
from handful.augment.steps import BIAS, ONE, fixed, row
from handful.types import UsageError, did_you_mean


@dataclass(frozen=True)
class Canvas:
    """What geometric operations must know.

    Attributes:
        height, width: of the pictures.
        bilinear: mix four pixels instead of taking the nearest one.
        fill: gray value of what comes from outside the picture.
    """

    height: int
    width: int
    bilinear: bool = False
    fill: int = 0


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    Attributes:
        encode: (v, canvas) to rows int32 [B, 8].
        low, high: a sensible range of the number: of the gallery, and where a view gives none.
        unit: of the number, for people; "" where the operation takes none.
        identity: the number that leaves a picture as it is, if there is one.
        color_only: does nothing to gray pictures.
    """

    encode: Callable[[np.ndarray, Canvas], np.ndarray]
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    identity: float | None = None
    color_only: bool = False


def _factor(kind: int) -> Callable[[np.ndarray, Canvas], np.ndarray]:
    return lambda v, canvas: row(kind, len(v), fixed(v.clip(-64, 64)))


def _brightness(v: np.ndarray, canvas: Canvas) -> np.ndarray:
    return row(steps.LINEAR, len(v), fixed(v.clip(-64, 64)), BIAS)


def _add(v: np.ndarray, canvas: Canvas) -> np.ndarray:
    return row(steps.LINEAR, len(v), ONE, fixed(v.clip(-255, 255)) + BIAS)


def _invert(v: np.ndarray, canvas: Canvas) -> np.ndarray:
    return row(steps.LINEAR, len(v), -ONE, 255 * ONE)


def _posterize(v: np.ndarray, canvas: Canvas) -> np.ndarray:
    kept = v.clip(0, 8).astype(np.int64)
    return row(steps.MASK, len(v), 256 - (1 << (8 - kept)))


def _solarize(v: np.ndarray, canvas: Canvas) -> np.ndarray:
    return row(steps.SOLARIZE, len(v), np.ceil(v.clip(0, 256)))


def _plain(kind: int) -> Callable[[np.ndarray, Canvas], np.ndarray]:
    return lambda v, canvas: row(kind, len(v))


def _affine(
    matrix: Callable[[np.ndarray, float, float], tuple[Any, ...]],
) -> Callable[[np.ndarray, Canvas], np.ndarray]:
    """From (v, W, H) to the six numbers of the map from output to input positions."""

    def encode(v: np.ndarray, canvas: Canvas) -> np.ndarray:
        numbers = np.broadcast_arrays(*matrix(v, canvas.width, canvas.height), v)[:6]
        maps = np.stack(numbers, 1).reshape(-1, 2, 3)
        return steps.affine(maps, bilinear=canvas.bilinear, fill=canvas.fill)

    return encode


def _rotation(degrees: np.ndarray, w: float, h: float) -> tuple[Any, ...]:
    """Anticlockwise around the middle."""
    turn = np.radians(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    return cos, -sin, (w - cos * w + sin * h) / 2, sin, cos, (h - sin * w - cos * h) / 2


def _zoom(v: np.ndarray, w: float, h: float) -> tuple[Any, ...]:
    return 1 / v, 0, (w - w / v) / 2, 0, 1 / v, (h - h / v) / 2


OPERATIONS: dict[str, Operation] = {
    "identity": Operation(_plain(steps.IDENTITY)),
    "brightness": Operation(_brightness, 0.1, 1.9, "factor", 1.0),
    "brightness-add": Operation(_add, -128, 128, "gray values", 0.0),
    "contrast": Operation(_factor(steps.CONTRAST), 0.1, 1.9, "factor", 1.0),
    "color": Operation(_factor(steps.COLOR), 0.0, 1.9, "factor", 1.0, color_only=True),
    "grayscale": Operation(lambda v, canvas: row(steps.COLOR, len(v), 0), color_only=True),
    "sharpness": Operation(_factor(steps.SHARPNESS), 0.0, 3.0, "factor", 1.0),
    "posterize": Operation(_posterize, 1, 8, "bits kept", 8.0),
    "solarize": Operation(_solarize, 0, 256, "threshold", 256.0),
    "invert": Operation(_invert),
    "autocontrast": Operation(_plain(steps.AUTOCONTRAST)),
    "equalize": Operation(_plain(steps.EQUALIZE)),
    "rotate": Operation(_affine(_rotation), -30, 30, "degrees anticlockwise", 0.0),
    "shear-x": Operation(_affine(lambda v, w, h: (1, v, 0, 0, 1, 0)), -0.3, 0.3, "tangent", 0.0),
    "shear-y": Operation(_affine(lambda v, w, h: (1, 0, 0, v, 1, 0)), -0.3, 0.3, "tangent", 0.0),
    "translate-x": Operation(
        _affine(lambda v, w, h: (1, 0, -v * w, 0, 1, 0)), -0.3, 0.3, "of the width, to the right", 0.0
    ),
    "translate-y": Operation(
        _affine(lambda v, w, h: (1, 0, 0, 0, 1, -v * h)), -0.3, 0.3, "of the height, downwards", 0.0
    ),
    "zoom": Operation(_affine(_zoom), 0.7, 1.5, "factor", 1.0),
    "flip": Operation(_affine(lambda v, w, h: (-1, 0, w, 0, 1, 0))),
    "flip-vertical": Operation(_affine(lambda v, w, h: (1, 0, 0, 0, -1, h))),
}


def find(name: str) -> Operation:
    """The operation of this name.

    Raises:
        UsageError: there is none; the nearest one is named.
    """
    if name not in OPERATIONS:
        fix = f"{did_you_mean(name, OPERATIONS)} Known: {', '.join(OPERATIONS)}".strip()
        raise UsageError(f"there is no operation '{name}'", fix=fix)
    return OPERATIONS[name]


def apply(name: str, x: Tensor, value: Any = 0.0, *, bilinear: bool = False, fill: int = 0) -> Tensor:
    """One operation on a batch.

    Args:
        x: uint8 [B, C, H, W].
        value: a number for all, or [B], one a picture; in the operation's unit.
        bilinear, fill: of geometric operations.
    """
    v = np.broadcast_to(np.asarray(torch.as_tensor(value).cpu(), np.float64), (len(x),))
    canvas = Canvas(x.shape[2], x.shape[3], bilinear, fill)
    return tensors.run(x, find(name).encode(v, canvas)[:, None])
