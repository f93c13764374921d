"""Tiles, patches and the orders of a jigsaw."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from handful.augment.tiles import cut, enlarged, normalized, patches, permutations


def picture(b: int = 2, side: int = 12) -> Tensor:
    """Every pixel tells its picture, channel, row and column."""
    return torch.arange(b * 3 * side * side, dtype=torch.float64).view(b, 3, side, side)


@pytest.mark.parametrize(("grid", "gap"), [(2, 0.0), (3, 0.0), (2, 0.34), (3, 0.5)])
def test_tiles_equal_a_loop_over_cells(grid: int, gap: float) -> None:
    x, u = picture(), torch.rand(2, grid**2, 2, generator=torch.Generator().manual_seed(1))
    tiles = cut(x, grid, gap, u)
    cell = 12 // grid
    free = round(gap * cell)
    assert tiles.shape == (2, grid**2, 3, cell - free, cell - free)
    for b, (row, column) in itertools.product(range(2), itertools.product(range(grid), range(grid))):
        t = row * grid + column
        top = row * cell + int(float(u[b, t, 0]) * (free + 1))
        left = column * cell + int(float(u[b, t, 1]) * (free + 1))
        expected = x[b, :, top : top + cell - free, left : left + cell - free]
        assert torch.equal(tiles[b, t], expected)


def test_without_a_gap_the_tiles_are_the_picture() -> None:
    x = picture()
    tiles = cut(x, 3, 0.0, torch.rand(2, 9, 2))
    rows = [torch.cat(list(tiles[0, 3 * r : 3 * r + 3]), dim=2) for r in range(3)]
    assert torch.equal(torch.cat(rows, dim=1), x[0])


def test_a_gap_is_at_least_a_pixel_and_a_tile_too() -> None:
    x = picture(side=8)
    last = torch.full((2, 4, 2), 0.999999)
    assert cut(x, 2, 0.01, last).shape[-1] == 3
    assert cut(x, 2, 0.99, last).shape[-1] == 1
    # the last place of the last cell is the picture's last pixel
    assert torch.equal(cut(x, 2, 0.99, last)[0, 3, :, 0, 0], x[0, :, 7, 7])


def test_patches_come_from_everywhere_and_from_nowhere_else() -> None:
    x = picture(1, side=6)
    u = torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(2))
    found = patches(x, 0.5, u)
    assert found.shape == (1, 400, 3, 3, 3)
    first = {(int(p) // 6, int(p) % 6) for p in found[0, :, 0, 0, 0]}
    assert first == set(itertools.product(range(4), range(4)))
    top, left = divmod(int(found[0, 7, 0, 0, 0]), 6)
    assert torch.equal(found[0, 7], x[0, :, top : top + 3, left : left + 3])


def test_each_tile_is_normalised_by_itself() -> None:
    tiles = (
        torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 7 + 3
    )
    out = normalized(tiles)
    torch.testing.assert_close(out.mean((2, 3, 4)), torch.zeros(2, 4, dtype=torch.float64))
    torch.testing.assert_close(out.std((2, 3, 4), correction=0), torch.ones(2, 4, dtype=torch.float64))
    draw = torch.Generator().manual_seed(4)
    contrast, light = (torch.rand(2, 4, 1, 1, 1, generator=draw) + 0.1 for _ in range(2))
    brighter = normalized(tiles * contrast + light)
    torch.testing.assert_close(brighter, out)
    flat = normalized(torch.full((1, 3, 4, 4), 0.7, dtype=torch.float64))
    torch.testing.assert_close(flat, torch.zeros_like(flat), atol=1e-12, rtol=0)


def test_enlarging_is_bilinear_and_leaves_what_has_the_size() -> None:
    x = picture()[:, :1]
    assert enlarged(x, 12) is x
    ramp = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)
    assert enlarged(ramp, 4)[0, 0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def hamming(orders: Tensor) -> Tensor:
    """Distances between all pairs, as loops would count them."""
    pairs = itertools.combinations(orders.tolist(), 2)
    return torch.tensor([sum(a != b for a, b in zip(p, q, strict=True)) for p, q in pairs])


def test_orders_are_permutations_that_differ_as_much_as_they_can() -> None:
    four = permutations(4, 4)
    assert hamming(four).tolist() == [4] * 6, "no tile is twice in one place: a Latin square"
    assert hamming(permutations(4, 24)).min() == 2, "all of them, and two differ by a swap at least"
    nine = permutations(9, 64)
    assert nine[0].tolist() == list(range(9))
    assert all(sorted(order) == list(range(9)) for order in nine.tolist())
    # of random ones, two in 64 agree on most places; at most 72 can be 8 apart (9! / 7!)
    rng = np.random.RandomState(0)
    drawn = torch.from_numpy(np.stack([rng.permutation(9) for _ in range(64)]))
    assert int(hamming(nine).min()) >= 7 > int(hamming(drawn).min())


def test_orders_equal_a_slow_greedy_search() -> None:
    everything = list(itertools.permutations(range(4)))
    chosen = [everything[0]]

    def apart(p: tuple[int, ...], q: tuple[int, ...]) -> int:
        return sum(a != b for a, b in zip(p, q, strict=True))

    while len(chosen) < 12:
        best = max(
            (p for p in everything if p not in chosen),
            key=lambda p: (min(apart(p, q) for q in chosen), sum(apart(p, q) for q in chosen)),
        )
        chosen.append(best)
    assert permutations(4, 12).tolist() == [list(p) for p in chosen]


@pytest.mark.parametrize(("tiles", "count"), [(4, 25), (4, 1), (10, 5), (1, 2)])
def test_orders_that_cannot_be(tiles: int, count: int) -> None:
    with pytest.raises(ValueError, match="tiles"):
        permutations(tiles, count)
