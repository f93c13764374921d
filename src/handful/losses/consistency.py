"""Targets from a model's own predictions, and which of them to trust."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.losses.classify import at_least_float32


def pseudo_target(logits: Tensor, *, hard: bool, threshold: float) -> tuple[Tensor, Tensor]:
    """A training target from a teacher's logits, without gradient.

    Args:
        logits: [B, K] of the teacher.
        hard: class numbers of the largest probability (Lee 2013, eq. 14) instead of the distribution.
        threshold: smallest confidence max_k p_k that is used; above 1 nothing is.

    Returns:
        Target (int64 [B] if hard, else float [B, K]) and weight (float [B], 1 where it is used).
    """
    p = torch.softmax(at_least_float32(logits.detach()), dim=1)
    confidence, label = p.max(dim=1)
    weight = (confidence >= threshold).to(p.dtype)
    return (label if hard else p), weight
