"""Losses and corrections for classification.

Legend: B pictures, K classes; ``logits`` [B, K]; ``p`` [B, K] probabilities.
"""

from __future__ import annotations

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
    logits = at_least_float32(logits)
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float64 stays: for sums and logarithms."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats, [B]."""
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    return -(log_p.exp() * log_p).sum(1)
