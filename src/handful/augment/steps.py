"""The steps of which augmentations are made, as whole numbers: what happens to each picture of a batch is a table of
*rows* int32 [B, N, 8], N steps a picture, which ``tensors.run`` carries out.

A row is (kind, six numbers, fill). Fractions have 16 bits behind the point (``ONE`` is 1.0). All arithmetic is of
whole numbers, so that the result is the same to the bit on every processor and device. Products are cut off, not
rounded, as Pillow does; ``BIAS`` keeps 0.9 * 100 from being 89.

Coordinates: pixel (i, j) covers the square from (i, j) to (i + 1, j + 1), y down and x right, so that the middle of a
picture is (W / 2, H / 2). Geometric steps map *output* positions to input positions.

Legend: B pictures, N steps, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ONE = 1 << 16
BIAS = 1 << 7
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in gray (ITU-R BT.601) …
WHOLE_LUMA = (19595, 38470, 7471)  # … and the same with 16 bits behind the point, as Pillow has them

IDENTITY = 0
LINEAR = 1  # scale, offset: x * scale + offset
CONTRAST = 2  # factor: away from the mean gray of the picture
COLOR = 3  # factor: away from the gray of each pixel; gray pictures stay
SHARPNESS = 4  # factor: away from the smoothed one (3 x 3, middle 5 / 13, others 1 / 13); the border stays
MASK = 5  # the bits of a value that are kept
SOLARIZE = 6  # threshold from which values are inverted
AUTOCONTRAST = 7  # darkest value of a channel to 0, brightest to 255
EQUALIZE = 8  # each channel's histogram made flat (Pillow's rule)
NEAREST = 9  # a, b, c, d, e, f: x' = a x + b y + c, y' = d x + e y + f; outside: fill
BILINEAR = 10  # the same, between four pixels
ERASE = 11  # top, left, height, width: filled
WINDOW = 12  # down, right, mirror: what a window moved so far sees (edges reflected), then mirrored


def row(kind: int, n: int, *values: Any, fill: Any = 0) -> np.ndarray:
    """One step for n pictures: int32 [n, 8]."""
    out = np.zeros((n, 8), np.int32)
    out[:, 0], out[:, 7] = kind, fill
    for i, value in enumerate(values):
        out[:, i + 1] = value
    return out


def fixed(value: Any) -> np.ndarray:
    """Real numbers with 16 bits behind the point, rounded: int32. They must lie within ±16,000."""
    return np.floor(np.clip(np.asarray(value, np.float64), -16_000, 16_000) * ONE + 0.5).astype(np.int32)


def affine(matrix: np.ndarray, *, bilinear: bool = False, fill: int = 0) -> np.ndarray:
    """Rows int32 [n, 8] of affine maps ``matrix`` [n, 2, 3] from output to input positions."""
    m = np.asarray(matrix, np.float64)
    middles = m[:, :, 2] + (m[:, :, 0] + m[:, :, 1]) / 2  # of the first pixel
    a, b, d, e = (fixed(m[:, i, j]) for i in (0, 1) for j in (0, 1))
    c, f = fixed(middles[:, 0]), fixed(middles[:, 1])
    return row(BILINEAR if bilinear else NEAREST, len(m), a, b, c, d, e, f, fill=fill)
