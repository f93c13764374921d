"""Losses and corrections for classification.

Legend: B pictures, K classes; ``logits`` [B, K]; ``p`` [B, K] probabilities.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """-sum_k q_k log p_k per picture, where q is the target smoothed towards the uniform distribution.

    Args:
        logits: [B, K].
        target: int64 [B] (class numbers) or float [B, K] (probabilities).
        smoothing: epsilon of label smoothing (Szegedy et al. 2016, eq. 7): q = (1 - eps) target + eps / K.

    Returns:
        [B], one loss per picture, float32 for logits of half precision.
    """
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    if target.dim() == 1:
        picked = -log_p.gather(1, target.unsqueeze(1)).squeeze(1)
    else:
        picked = -(target * log_p).sum(1)
    return picked if smoothing == 0 else (1 - smoothing) * picked - smoothing * log_p.mean(1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float64 stays: for sums and logarithms."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats, [B]."""
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    return -(log_p.exp() * log_p).sum(1)


TEMPERATURE_SD = (
    0.5  # of log T beforehand, chosen on other data sets than those reported (benchmarks/calibration.py)
)


def fit_temperature(
    logits: Tensor, target: Tensor, *, sd: float = TEMPERATURE_SD, low: float = 0.05, high: float = 20.0
) -> float:
    """The temperature T that minimises sum_i CE(y_i, softmax(z_i / T)) + (log T)^2 / (2 sd^2).

    The sum is that of Guo et al. 2017, section 4.2. The other term is a normal prior on log T around 0: a dozen
    pictures cannot move T far from 1, hundreds can. An infinite ``sd`` takes it away. The best point of a grid over
    log T, then a golden-section search between its neighbours, finds T to 0.1 %. Fit it on pictures that the model was
    not trained on.

    Args:
        logits: [n, K]. target: int64 [n].
    """
    logits, target = logits.double(), target.long()

    def loss(log_t: float) -> float:
        return (
            float(F.cross_entropy(logits / math.exp(log_t), target, reduction="sum")) + (log_t / sd) ** 2 / 2
        )

    points = torch.linspace(
        math.log(low), math.log(high), 61
    ).tolist()  # with the prior there may be two valleys
    best = min(range(61), key=lambda i: loss(points[i]))
    a, b, ratio = points[max(best - 1, 0)], points[min(best + 1, 60)], (math.sqrt(5) - 1) / 2
    while b - a > 1e-3:
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        a, b = (a, d) if loss(c) < loss(d) else (c, b)
    return math.exp((a + b) / 2)
