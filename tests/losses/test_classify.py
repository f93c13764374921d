"""Losses against naive loops and closed forms."""

import math

import pytest
import torch

from handful.losses.classify import cross_entropy, entropy


def draw(b: int = 7, k: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(b, k, generator=g, dtype=torch.float64)
    hard = torch.randint(k, (b,), generator=g)
    soft = torch.rand(b, k, generator=g, dtype=torch.float64)
    return logits, hard, soft / soft.sum(1, keepdim=True)


def naive(logits: torch.Tensor, target: torch.Tensor, smoothing: float) -> list[float]:
    """-sum_k q_k log(e^z_k / sum e^z), number by number."""
    out = []
    k = logits.shape[1]
    for i, row in enumerate(logits.tolist()):
        norm = math.log(sum(math.exp(z) for z in row))
        q = target[i].tolist() if target.dim() == 2 else [float(j == int(target[i])) for j in range(k)]
        q = [(1 - smoothing) * v + smoothing / k for v in q]
        out.append(-sum(qj * (z - norm) for qj, z in zip(q, row)))
    return out


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_cross_entropy_equals_a_loop(kind: str, smoothing: float) -> None:
    logits, hard, soft = draw()
    target = hard if kind == "hard" else soft
    ours = cross_entropy(logits, target, smoothing=smoothing)
    assert ours.dtype == torch.float64
    assert ours.tolist() == pytest.approx(naive(logits, target, smoothing), rel=1e-12)


def test_cross_entropy_does_not_see_a_shift_of_the_logits_and_not_their_order() -> None:
    logits, hard, soft = draw()
    torch.testing.assert_close(cross_entropy(logits + 100, hard), cross_entropy(logits, hard))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(cross_entropy(logits[:, order], soft[:, order]), cross_entropy(logits, soft))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    logits, hard, _ = draw()
    low = logits.to(dtype)
    assert cross_entropy(low, hard).dtype == torch.float32
    torch.testing.assert_close(cross_entropy(low, hard), cross_entropy(low.float(), hard), rtol=0, atol=0)
    assert entropy(low).dtype == torch.float32


def test_gradient_is_softmax_minus_target() -> None:
    logits, _, soft = draw()
    logits.requires_grad_()
    cross_entropy(logits, soft).sum().backward()
    torch.testing.assert_close(logits.grad, torch.softmax(logits.detach(), 1) - soft)


def test_entropy_equals_the_distribution_of_torch() -> None:
    logits, _, _ = draw()
    theirs = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy(logits), theirs)
    assert float(entropy(torch.zeros(1, 4))) == pytest.approx(math.log(4))
