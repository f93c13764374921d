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


def fit_temperature(logits: Tensor, target: Tensor, low: float = 0.05, high: float = 20.0) -> float:
    """The temperature T that minimises the cross-entropy of softmax(logits / T) (Guo et al. 2017, sec. 4.2).

    The loss is convex in 1 / T; a golden-section search over log T finds it to 0.1 %. Fit it on pictures that
    the model was not trained on.
    """
    logits, target = logits.double(), target.long()

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits / torch.tensor(log_t).exp(), target))

    a, b, ratio = math.log(low), math.log(high), (math.sqrt(5) - 1) / 2
    while b - a > 1e-3:
        c, d = b - ratio * (b - a), a + ratio * (b - a)
        a, b = (a, d) if loss(c) < loss(d) else (c, b)
    return math.exp((a + b) / 2)
