"""Targets from a model's own predictions, which of them to trust, and how far two predictions are apart.

Legend: B pictures, K classes; ``logits`` [B, K]; ``p`` [B, K] probabilities.
"""

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
    p = predictions(logits)
    confidence, label = p.max(dim=1)
    weight = (confidence >= threshold).to(p.dtype)
    return (label if hard else p), weight


def predictions(logits: Tensor) -> Tensor:
    """softmax(logits) [B, K] as a target: no gradient flows back through it."""
    return torch.softmax(at_least_float32(logits.detach()), dim=1)


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p_k^(1/T) / sum_j p_j^(1/T) (Berthelot et al. 2019, "MixMatch", eq. 7): T = 1 leaves p as it is, T -> 0
    gives the most probable class."""
    return p if temperature == 1 else torch.softmax(p.clamp_min(1e-30).log() / temperature, dim=1)


def align(p: Tensor, wanted: Tensor, found: Tensor) -> Tensor:
    """Distribution alignment: p scaled by ``wanted / found`` [K] and to sum 1 again (Berthelot et al. 2020,
    "ReMixMatch", sec. 3.1), so that the classes are predicted as often as they are wanted, not as found."""
    scaled = p * (wanted / found.clamp_min(1e-6))
    return scaled / scaled.sum(1, keepdim=True).clamp_min(1e-30)
