"""The old-task term of Learning without Forgetting, against its closed form, a naive loop and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from handful.losses.classify import cross_entropy
from handful.losses.forgetting import old_task_loss


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64) * 3
    return z[0], z[1]


def powers(p: list[float], temperature: float) -> list[float]:
    """p^(1/T), scaled to sum 1, as the paper writes it."""
    raised = [x ** (1 / temperature) for x in p]
    return [x / sum(raised) for x in raised]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_a_naive_loop_over_probabilities(logits: tuple[Tensor, Tensor], temperature: float) -> None:
    recorded, present = logits
    expected = []
    for old, now in zip(recorded.softmax(1).tolist(), present.softmax(1).tolist()):
        y, y_hat = powers(old, temperature), powers(now, temperature)
        expected.append(-sum(a * math.log(b) for a, b in zip(y, y_hat)))
    assert old_task_loss(recorded, present, temperature).tolist() == pytest.approx(expected, rel=1e-12)


def test_a_value_by_hand() -> None:
    """p = (16/17, 1/17) and q = (1/2, 1/2) at T = 2: y' = (4/5, 1/5), and every log yhat' is -log 2."""
    recorded = torch.tensor([[math.log(16.0), 0.0]])
    assert float(old_task_loss(recorded, torch.zeros(1, 2), 2.0)) == pytest.approx(math.log(2))
    swapped = old_task_loss(recorded, recorded, 2.0)  # the entropy of y'
    assert float(swapped) == pytest.approx(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))


def test_at_temperature_one_it_is_the_cross_entropy_with_the_recorded_probabilities(
    logits: tuple[Tensor, Tensor],
) -> None:
    recorded, present = logits
    expected = cross_entropy(present, recorded.softmax(1))
    torch.testing.assert_close(old_task_loss(recorded, present, 1.0), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_the_gradient_has_one_over_t_and_no_t_squared(
    logits: tuple[Tensor, Tensor], temperature: float
) -> None:
    """d L / d z = (yhat' - y') / T for the network that trains, and none for the recorded responses."""
    recorded, present = (z.clone().requires_grad_(True) for z in logits)
    old_task_loss(recorded, present, temperature).sum().backward()
    expected = ((present / temperature).softmax(1) - (recorded / temperature).softmax(1)) / temperature
    torch.testing.assert_close(present.grad, expected.detach(), rtol=1e-10, atol=1e-14)
    assert recorded.grad is None


def test_the_least_value_is_at_the_recorded_responses(logits: tuple[Tensor, Tensor]) -> None:
    recorded, present = logits
    least = old_task_loss(recorded, recorded, 2.0)
    assert (old_task_loss(recorded, present, 2.0) > least).all()
    shifted = old_task_loss(recorded, recorded + 5.0, 2.0)  # a constant changes no probability
    torch.testing.assert_close(shifted, least, rtol=1e-12, atol=0)


def test_half_precision_is_widened() -> None:
    recorded, present = torch.randn(3, 4), torch.randn(3, 4)
    out = old_task_loss(recorded.bfloat16(), present.bfloat16())
    assert out.dtype == torch.float32
    torch.testing.assert_close(
        out, old_task_loss(recorded.bfloat16().float(), present.bfloat16().float()), rtol=1e-6, atol=1e-6
    )
