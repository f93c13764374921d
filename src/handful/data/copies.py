"""Copies among pictures: the same pixels, or the same photograph resized, recompressed or a little cropped.

Four steps, each cheaper than looking closely at all pairs of pictures:

1. *Exact*: equal bytes of the stored pixels.
2. *Partners*: a perceptual descriptor, the 63 lowest frequencies of the picture's cosine transform but the mean, scaled
   to length 1 (the numbers that a perceptual hash rounds to bits). Each picture's nearest ones by cosine.
3. *Candidates*: the best cosine once either picture of a pair is cropped in one of nine ways.
4. *Verification*: one picture is laid over the other (stretched and moved a little: Lucas & Kanade, IJCAI 1981, with
   brightness and contrast taken out), and the correlation of their fine detail decides. Two photographs of one scene
   share the coarse picture and not the detail.

Pictures of less than ``SMALLEST`` px have no detail to tell a copy from a similar picture (two handwritten ones look
like copies of each other): there, only equal pixels count.

Legend: N pictures, P pairs, V pixels a side that are verified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.augment.tensors import gray
from handful.data.images import Images
from handful.randomness import digest

SMALLEST = 48  # px a side
PARTNERS = 12  # nearest pictures of each that are looked at
FAR = 0.6  # cosine below which two pictures are no partners
NEAR = 0.975  # smallest cosine of a candidate pair after cropping
MOST_PAIRS = 4000  # candidates that are looked at closely, the best ones
SAME_DETAIL = 0.90  # smallest correlation of detail of a copy (benchmarks/audit.py)
VIEW = 64  # V
LEVELS = ((32, 2.0, 4), (32, 1.0, 4), (64, 1.0, 2))  # of the laying over: pixels a side, blur, steps
FREQUENCIES = 8
CUT = 0.05  # of each side that is cut off
CROPS = [(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)]  # places of the crops, in what is cut off


class Pair(NamedTuple):
    """Two rows, first < second, and how equal their detail is (1 where the pixels are equal)."""

    first: int
    second: int
    likeness: float
    exact: bool


def find_copies(
    images: Images, near_among: np.ndarray | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """All pairs of copies, exact ones first, each sorted by rows.

    Args:
        near_among: rows among which near copies are sought (the time grows with their square); by default all.

    Groups of m pictures with equal pixels give m - 1 pairs, each with the group's first picture; only that first one
    takes part in the search for near copies.
    """
    first_of = _equal(images)
    exact = [Pair(int(first), row, 1.0, True) for row, first in enumerate(first_of) if first != row]
    if images.side < SMALLEST:
        return exact
    firsts = np.flatnonzero(first_of == np.arange(len(images)))
    rows = torch.from_numpy(firsts if near_among is None else np.intersect1d(firsts, near_among))
    pairs = rows[candidates(images, rows)]
    near = []
    for start in range(0, len(pairs), 256):
        some = pairs[start : start + 256]
        for (a, b), likeness in zip(some.tolist(), detail(images, some).tolist()):
            if likeness >= SAME_DETAIL:
                near.append(Pair(a, b, likeness, False))
        if progress:
            progress(start + len(some), len(pairs))
    return exact + sorted(near)


def _equal(images: Images) -> np.ndarray:
    """For every row the first row with the same pixels, int64 [N]."""
    seen: dict[str, int] = {}
    first = np.empty(len(images), dtype=np.int64)
    for row in range(len(images)):
        first[row] = seen.setdefault(digest(images.data[row], size=16), row)
    return first


def candidates(images: Images, rows: Tensor, block: int = 1024) -> Tensor:
    """Pairs of positions in ``rows`` (first < second) that are worth a closer look, int64 [P, 2]."""
    if len(rows) < 2:
        return torch.empty(0, 2, dtype=torch.int64)
    plain, *cropped = descriptors(images, rows)
    partners = min(PARTNERS, len(rows) - 1)
    found = []
    for start in range(0, len(rows), block):
        cosine = plain[start : start + block] @ plain.T
        here = torch.arange(len(cosine))
        cosine[here, here + start] = -1  # itself
        value, partner = cosine.topk(partners, dim=1)
        i, k = torch.nonzero(value >= FAR, as_tuple=True)
        found.append(torch.stack([i + start, partner[i, k]], 1))
    pairs = torch.cat(found).sort(dim=1).values.unique(dim=0)
    a, b = pairs.T
    cosine = (plain[a] * plain[b]).sum(1)
    for crop in cropped:
        cosine = torch.maximum(cosine, (crop[a] * plain[b]).sum(1))
        cosine = torch.maximum(cosine, (plain[a] * crop[b]).sum(1))
    order = cosine.argsort(descending=True, stable=True)[:MOST_PAIRS].sort().values
    return pairs[order[cosine[order] >= NEAR]]


def descriptors(images: Images, rows: Tensor, batch: int = 512) -> list[Tensor]:
    """Low frequencies of pictures and of their nine crops: ten times float32 [n, 63] of length 1, or zero for
    pictures without contrast."""
    side, size = 4 * FREQUENCIES, 128
    k, x = torch.arange(FREQUENCIES).unsqueeze(1), torch.arange(side) + 0.5
    basis = torch.cos(torch.pi / side * k * x)  # DCT-II
    out: list[list[Tensor]] = [[] for _ in range(1 + len(CROPS))]
    cut = round(size * CUT)
    for some in rows.split(batch):
        gray = _gray(images, some, size)
        corners = [(round(x * cut), round(y * cut)) for x, y in CROPS]
        views = [gray, *(gray[:, y : y + size - cut, x : x + size - cut] for x, y in corners)]
        for place, view in zip(out, views):
            small = F.interpolate(view.unsqueeze(1), (side, side), mode="bilinear", antialias=True)[:, 0]
            waves = (basis @ small @ basis.T).flatten(1)[:, 1:]
            length = waves.norm(dim=1, keepdim=True)
            place.append(torch.where(length > side, waves / length.clamp_min(1e-9), torch.zeros(())))
    return [torch.cat(place) for place in out]


def detail(images: Images, pairs: Tensor) -> Tensor:
    """Correlation of the fine detail of pairs [P, 2] once one picture is laid over the other, float32 [P]."""
    a, b = (_gray(images, rows, VIEW) for rows in pairs.T)
    fit = _laid_over(a, b)
    moved, inside = _warp(b, fit)
    inside = F.avg_pool2d(inside.unsqueeze(1), 9, 1, 4)[:, 0] > 0.999  # detail near the border is not known
    fine_a, fine_b = (_blur(x, 0.8) - _blur(x, 2.5) for x in (a, moved))
    return (_normal(fine_a, inside) * _normal(fine_b, inside)).sum((1, 2))


def _laid_over(a: Tensor, b: Tensor) -> Tensor:
    """Stretch and shift [P, 4] (x and y of each, in halves of a side) that make b look like a, by Gauss-Newton."""
    fit = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(a), 1)
    for side, sigma, steps in LEVELS:
        small_a, small_b = (
            _blur(F.interpolate(x.unsqueeze(1), (side, side), mode="area")[:, 0], sigma) for x in (a, b)
        )
        line = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
        y, x = torch.meshgrid(line, line, indexing="ij")
        for _ in range(steps):
            moved, inside = _warp(small_b, fit)
            mask = inside > 0.999
            guess = _normal(moved, mask, keep=True)
            gy, gx = torch.gradient(guess, spacing=2 / side, dim=(1, 2))
            slopes = torch.stack([gx * x, gy * y, gx, gy], 3) * mask.unsqueeze(3)
            slopes = slopes.flatten(1, 2)  # [P, s², 4]
            miss = ((_normal(small_a, mask, keep=True) - guess) * mask).flatten(1).unsqueeze(2)
            normal = slopes.mT @ slopes
            normal += torch.eye(4) * (1e-3 * normal.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-6)
            fit = fit + torch.linalg.solve(normal, slopes.mT @ miss)[:, :, 0]
            fit = torch.cat([fit[:, :2].clamp(0.85, 1.18), fit[:, 2:].clamp(-0.2, 0.2)], 1)
    return fit


def _warp(x: Tensor, fit: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [P, s, s] seen through ``fit``, and 1 where there was something to see."""
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, 0, 2], theta[:, 1, 2] = fit.T
    grid = F.affine_grid(theta, [len(x), 1, *x.shape[1:]], align_corners=False)
    seen = F.grid_sample(torch.stack([x, torch.ones_like(x)], 1), grid, mode="bilinear", align_corners=False)
    return seen[:, 0], seen[:, 1]


def _normal(x: Tensor, mask: Tensor, keep: bool = False) -> Tensor:
    """Mean 0 and length 1 over the mask (``keep``: standard deviation 1, and no zeros outside)."""
    n = mask.sum((1, 2), keepdim=True).clamp_min(1)
    x = x - (x * mask).sum((1, 2), keepdim=True) / n
    square = (x.square() * mask).sum((1, 2), keepdim=True)
    if keep:
        return x / (square / n).clamp_min(1e-6).sqrt()
    return torch.where(square > n, x * mask / square.clamp_min(1e-9).sqrt(), torch.zeros(()))


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [P, V, V]."""
    reach = int(3 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    x = F.pad(x.unsqueeze(1), (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel), kernel.transpose(2, 3))[:, 0]


def _gray(images: Images, rows: Tensor, side: int) -> Tensor:
    """Gray pictures float32 [n, side, side], 0 … 255."""
    return F.interpolate(gray(images.take(rows)), (side, side), mode="bilinear", antialias=True)[:, 0]
