"""Calibration figures by hand and by loops; temperatures by grids and by their equation."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch.nn import functional as F

from handful.stats.calibration import expected_calibration_error, fit_temperature, reliability_bins


def test_reliability_bins_by_hand() -> None:
    bins = reliability_bins([0.05, 0.1, 0.11, 0.95, 1.0, 0.0], [0, 1, 1, 1, 0, 0], bins=10)
    assert bins == [
        pytest.approx((0.05, 1 / 3, 3)),  # 0.1 belongs to the first bin, 0 does too
        pytest.approx((0.11, 1.0, 1)),
        pytest.approx((0.975, 0.5, 2)),
    ]


def test_calibration_error_by_hand_and_at_perfection() -> None:
    # two bins of two: |0.9 - 0.5| and |0.6 - 1|, each half of the weight
    assert expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1]) == pytest.approx(0.4)
    assert expected_calibration_error([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)
    assert math.isnan(expected_calibration_error([], []))


def test_calibration_error_equals_a_naive_loop() -> None:
    rng = np.random.default_rng(2)
    p, right = rng.random(500), rng.integers(0, 2, 500)
    total = 0.0
    for m in range(15):
        inside = (p > m / 15) & (p <= (m + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - p[inside].mean())
    assert expected_calibration_error(p, right, bins=15) == pytest.approx(total)


@pytest.mark.parametrize(("p", "right", "bins"), [([0.5], [1, 0], 10), ([1.5], [1], 10), ([0.5], [1], 0)])
def test_reliability_bins_refuse(p: list[float], right: list[int], bins: int) -> None:
    with pytest.raises(ValueError, match=r"confidence|bins"):
        reliability_bins(p, right, bins)


def by_grid(logits: torch.Tensor, labels: torch.Tensor, sd: float) -> float:
    """The best of 12,000 temperatures, 0.05 % apart."""
    log_t = torch.linspace(math.log(0.05), math.log(20), 12_000, dtype=torch.float64)
    losses = [
        float(F.cross_entropy(logits / math.exp(t), labels, reduction="sum")) + t**2 / (2 * sd**2)
        for t in log_t.tolist()
    ]
    return math.exp(float(log_t[int(np.argmin(losses))]))


@pytest.mark.parametrize("stretch", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("sd", [0.5, math.inf])
def test_temperature_is_the_best_of_a_fine_grid(stretch: float, sd: float) -> None:
    draw = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(200, 4, generator=draw, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draw).squeeze(1)
    assert fit_temperature(stretch * logits, labels, sd=sd) == pytest.approx(
        by_grid(stretch * logits, labels, sd), rel=1e-3
    )


def test_of_two_valleys_the_deeper_one_is_taken() -> None:
    """Weak margins, nearly all right: the likelihood wants T near 0, the prior T near 1, and both have a valley. A
    search over the whole range ends in the wrong one."""
    margins = torch.tensor([0.06] * 57 + [0.13] * 2, dtype=torch.float64)
    logits = torch.stack([margins, torch.zeros(59, dtype=torch.float64)], 1)
    labels = (torch.arange(59) >= 57).long()
    best = by_grid(logits, labels, 0.5)
    assert best < 0.1
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=1e-3)


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
    assert t == pytest.approx(math.exp(brentq(slope, math.log(0.05), math.log(20))), rel=1e-5)


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
