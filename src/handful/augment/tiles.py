"""Pictures cut into a grid of tiles or into patches, and the orders in which a jigsaw shows tiles.

Legend: B pictures, C channels, S pixels a side, G cells a side of the grid, T = G G tiles of t pixels a side, V
windows of a picture, P permutations.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MOST_TILES = 9  # all permutations are looked at, and there are T! of them


def cut(x: Tensor, grid: int, gap: float, u: Tensor) -> Tensor:
    """One tile of each cell of a grid, at a random place in its cell, so that edges do not simply go on from tile to
    tile (Noroozi & Favaro 2016, sec. 4.2): [B, T, C, t, t], cells from left to right and from top to bottom.

    Args:
        x: [B, C, S, S].
        gap: share of a cell's side that a tile leaves free, at least one pixel where it is not 0.
        u: uniform numbers [B, T, 2] for the places.
    """
    cell = x.shape[-1] // grid
    free = min(max(round(gap * cell), 1), cell - 1) if gap else 0
    corner = torch.arange(grid, device=x.device) * cell
    corners = torch.cartesian_prod(corner, corner)  # [T, 2]
    return windows(x, corners + _moved(u, free), cell - free)


def patches(x: Tensor, side: float, u: Tensor) -> Tensor:
    """Windows of each picture at random places, [B, V, C, t, t]; t is ``side`` times S, at least a pixel.

    Args:
        x: [B, C, S, S].
        u: uniform numbers [B, V, 2] for the places.
    """
    t = max(1, round(side * x.shape[-1]))
    return windows(x, _moved(u, x.shape[-1] - t), t)


def windows(x: Tensor, first: Tensor, side: int) -> Tensor:
    """The squares of ``side`` pixels whose top left pixels are ``first`` [B, V, 2] (row, column): [B, V, C, t, t]."""
    along = torch.arange(side, device=x.device)
    rows = (first[:, :, 0, None] + along)[:, :, None, :, None]  # [B, V, 1, t, 1]
    columns = (first[:, :, 1, None] + along)[:, :, None, None, :]  # [B, V, 1, 1, t]
    picture = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, 1, -1, 1, 1)
    return x[picture, channel, rows, columns]


def _moved(u: Tensor, most: int) -> Tensor:
    """Uniform numbers to whole ones, 0 to ``most``."""
    return (u * (most + 1)).long().clamp_max(most)


def normalized(tiles: Tensor) -> Tensor:
    """Each tile [..., C, t, t] with mean 0 and deviation 1, so that brightness does not give its place away (Noroozi &
    Favaro 2016, sec. 4.2); deviations under a gray level count as one, so that a tile of one colour becomes 0."""
    centred = tiles - tiles.mean((-3, -2, -1), keepdim=True)
    deviation = centred.square().mean((-3, -2, -1), keepdim=True).sqrt()
    return centred / deviation.clamp_min(2 / 255)


def enlarged(tiles: Tensor, side: int) -> Tensor:
    """Tiles [M, C, t, t] at the size that the network takes, [M, C, S, S] (bilinear)."""
    if tiles.shape[-1] == side:
        return tiles
    return F.interpolate(tiles, size=(side, side), mode="bilinear", align_corners=False)


@lru_cache
def permutations(tiles: int, count: int) -> Tensor:
    """``count`` orders of 0 ... T-1 that differ in as many places as they can, int64 [P, T], chosen greedily: first the
    order itself, then always one whose least Hamming distance to those chosen is largest; of several, the one with the
    largest distance to all together, and then the first by the alphabet (after Noroozi & Favaro 2016, algorithm 1).

    Raises:
        ValueError: there are not so many permutations, or too many tiles to look at all of them.
    """
    if not 2 <= tiles <= MOST_TILES:
        raise ValueError(f"a jigsaw has 2 to {MOST_TILES} tiles, not {tiles}")
    everything = np.array(list(itertools.permutations(range(tiles))), dtype=np.uint8)
    if not 2 <= count <= len(everything):
        raise ValueError(f"{tiles} tiles have 2 to {len(everything)} orders to tell apart, not {count}")
    chosen = [0]
    least = np.full(len(everything), tiles, dtype=np.int64)
    total = np.zeros(len(everything), dtype=np.int64)
    while len(chosen) < count:
        distance = (everything != everything[chosen[-1]]).sum(1)
        least, total = np.minimum(least, distance), total + distance
        chosen.append(int((least * (count * tiles + 1) + total).argmax()))
    return torch.from_numpy(everything[chosen].astype(np.int64))
