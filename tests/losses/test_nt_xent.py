"""NT-Xent against loops, closed forms and pytorch-metric-learning."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from handful.losses.nt_xent import nt_xent


def example(views: int = 2, n: int = 5, d: int = 4) -> Tensor:
    return torch.randn(views, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(views))


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(u * v for u, v in zip(a, b, strict=True))
    return dot / math.sqrt(sum(u * u for u in a) * sum(v * v for v in b))


@pytest.mark.parametrize(("views", "temperature"), [(2, 0.5), (2, 0.1), (3, 0.5), (4, 1.0)])
def test_the_loss_equals_a_loop(views: int, temperature: float) -> None:
    z = example(views)
    rows = {(v, i): z[v, i].tolist() for v, i in product(range(views), range(5))}
    losses = []
    for own, other in product(rows, rows):
        if own != other and own[1] == other[1]:
            others = [k for k in rows if k != own]
            among = sum(math.exp(cosine(rows[own], rows[k]) / temperature) for k in others)
            losses.append(-math.log(math.exp(cosine(rows[own], rows[other]) / temperature) / among))
    assert float(nt_xent(z, temperature)) == pytest.approx(sum(losses) / len(losses), rel=1e-12)


def test_the_loss_equals_pytorch_metric_learning() -> None:
    losses = pytest.importorskip(
        "pytorch_metric_learning.losses", reason="the independent library is not installed"
    )
    labels = torch.arange(5)
    two = example(2)
    theirs = losses.NTXentLoss(temperature=0.3)(two.flatten(0, 1), labels.repeat(2))
    torch.testing.assert_close(nt_xent(two, 0.3), theirs, rtol=1e-10, atol=0)
    four = example(4)
    theirs = losses.SupConLoss(temperature=0.3)(four.flatten(0, 1), labels.repeat(4))
    torch.testing.assert_close(nt_xent(four, 0.3), theirs, rtol=1e-10, atol=0)


def test_closed_forms() -> None:
    e = torch.eye(2, dtype=torch.float64)
    # two pairs of identical views, at right angles to each other: -log(e^(1/T) / (e^(1/T) + 2))
    apart = nt_xent(torch.stack([e, e]), 0.5)
    assert float(apart) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)))
    # all rows the same: one right answer among 2 N - 1
    same = nt_xent(torch.ones(2, 6, 3), 0.5)
    assert float(same) == pytest.approx(math.log(11))
    # a single picture has nothing to be far from
    assert float(nt_xent(example(2, n=1), 0.5)) == pytest.approx(0, abs=1e-12)


def test_neither_the_length_of_a_row_nor_the_order_of_pictures_and_views_counts() -> None:
    z = example(3)
    stretched = z * torch.linspace(0.1, 9, 15, dtype=z.dtype).view(3, 5, 1)
    turned = z.flip(0)[:, [4, 0, 2, 1, 3]]
    torch.testing.assert_close(nt_xent(stretched, 0.5), nt_xent(z, 0.5))
    torch.testing.assert_close(nt_xent(turned, 0.5), nt_xent(z, 0.5))


def test_descent_brings_the_views_of_a_picture_together() -> None:
    z = example(2).requires_grad_(True)
    (gradient,) = torch.autograd.grad(nt_xent(z, 0.5), z)
    assert bool((gradient.abs().sum(2) > 0).all()), "every row is heard"
    with torch.no_grad():
        moved = z - 0.5 * gradient

    def together(z: Tensor) -> Tensor:
        return torch.cosine_similarity(z[0], z[1], dim=1).mean()

    assert together(moved) > together(z)


def test_half_precision_is_compared_in_float32() -> None:
    z = example(2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(z, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, nt_xent(z.float(), 0.1), rtol=0, atol=0)
