"""Losses against torch's own, naive loops and another optimiser."""

import math

import pytest
import torch
from scipy.optimize import brentq, minimize_scalar
from torch.nn import functional as F

from handful.losses.classify import cross_entropy, entropy, fit_temperature


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
def test_cross_entropy_equals_torch_and_a_loop(kind: str, smoothing: float) -> None:
    logits, hard, soft = draw()
    target = hard if kind == "hard" else soft
    ours = cross_entropy(logits, target, smoothing=smoothing)
    assert ours.dtype == torch.float64
    theirs = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
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


@pytest.mark.parametrize("stretch", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("sd", [0.5, math.inf])
def test_temperature_equals_scipy(stretch: float, sd: float) -> None:
    logits, _, _ = draw(200, 4, seed=1)
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(2)).squeeze(1)
    logits = logits * stretch

    def loss(log_t: float) -> float:
        return 200 * float(F.cross_entropy(logits / math.exp(log_t), labels)) + log_t**2 / (2 * sd**2)

    best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    assert fit_temperature(logits, labels, sd=sd) == pytest.approx(math.exp(best.x), rel=2e-3)


@pytest.mark.parametrize(
    ("n", "right", "margin"), [(20, 19, 1.0), (20, 11, 3.0), (400, 220, 3.0), (12, 12, 1.0)]
)
def test_temperature_of_equal_margins_solves_its_equation(n: int, right: int, margin: float) -> None:
    """Two classes, the same logits (margin, 0) for all: with m = margin / T and s the logistic function, the slope of
    loss and prior in log T is -m (n s(m) - right) + log T / sd^2."""

    def slope(log_t: float) -> float:
        m = margin * math.exp(-log_t)
        return -m * (n / (1 + math.exp(-m)) - right) + log_t / 0.25

    logits = torch.tensor([[margin, 0.0]]).expand(n, 2)
    target = (torch.arange(n) >= right).long()
    t = fit_temperature(logits, target, sd=0.5)
    assert t == pytest.approx(math.exp(brentq(slope, math.log(0.05), math.log(20))), rel=2e-3)


def test_few_pictures_move_the_temperature_less_than_many() -> None:
    """Confidence 0.95 and half of the answers right: T is larger, the more pictures say so, up to the likeliest one."""
    margin = math.log(0.95 / 0.05)

    def fitted(n: int, sd: float = 0.5) -> float:
        return fit_temperature(torch.tensor([[margin, 0.0]]).expand(n, 2), torch.arange(n) % 2, sd=sd)

    temperatures = [fitted(n) for n in (2, 8, 32, 128)]
    assert temperatures[0] > 1
    assert temperatures == sorted(temperatures)
    assert temperatures[-1] < fitted(128, math.inf)
    assert fitted(2, math.inf) == pytest.approx(fitted(128, math.inf))


def test_temperature_of_perfect_answers_is_as_low_as_float64_can_tell_without_a_prior() -> None:
    logits = 5 * torch.eye(3)
    t = fit_temperature(logits, torch.arange(3), sd=math.inf)
    assert 0.05 <= t < 0.2
    assert float(F.cross_entropy(logits.double() / t, torch.arange(3))) < 1e-15
    assert fit_temperature(logits, torch.arange(3)) > 0.6
