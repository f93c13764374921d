"""Targets from a model's own predictions, which of them to trust, and how far two predictions are apart.

Legend: B pictures, K classes; ``logits`` [B, K]; ``p`` [B, K] probabilities.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from handful import parallel
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


def squared_difference(logits: Tensor, p: Tensor) -> Tensor:
    """mean_k (softmax(logits)_k - p_k)^2, [B] (Laine & Aila 2017, algorithm 1; Tarvainen & Valpola 2017, sec. 2)."""
    return (torch.softmax(at_least_float32(logits), dim=1) - p).square().mean(1)


def divergence(p: Tensor, logits: Tensor) -> Tensor:
    """KL(p || softmax(logits)) = sum_k p_k (log p_k - log q_k) in nats, [B]; a p_k of 0 adds nothing."""
    log_q = torch.log_softmax(at_least_float32(logits), dim=1)
    own: Tensor = torch.special.xlogy(p, p).sum(1)
    return own - (p * log_q).sum(1)


def ramp_up(step: int, steps: int) -> float:
    """exp(-5 (1 - t)^2) with t = step / steps, at most 1 (Laine & Aila 2017, sec. 2.1); 1 where ``steps`` is 0."""
    t = min(1.0, step / steps) if steps else 1.0
    return math.exp(-5 * (1 - t) ** 2)


def signal_annealing(step: int, steps: int, n_classes: int, schedule: str) -> float:
    """The largest probability of its own class with which a labelled picture still counts, from 1/K to 1 (Xie et
    al. 2020, "UDA", sec. 3.1): eta = a (1 - 1/K) + 1/K, with t = step / steps and a = t ("linear"), exp(5 (t - 1))
    ("exp") or 1 - exp(-5 t) ("log")."""
    t = min(1.0, step / steps) if steps else 1.0
    a = {"linear": t, "exp": math.exp(5 * (t - 1)), "log": 1 - math.exp(-5 * t)}[schedule]
    return a * (1 - 1 / n_classes) + 1 / n_classes


def fairness(p: Tensor, trust: Tensor, found: Tensor, histogram: Tensor) -> Tensor:
    """-H(N(found / histogram), N(p_bar / h_bar)) (Wang et al. 2023, "FreeMatch", eq. 11), a scalar; N scales to sum 1.

    Args:
        p: [B, K] probabilities on strong views, with gradient; p_bar is their mean over the trusted pictures of the
            *global* batch, h_bar the frequencies of their most probable classes.
        trust: [B], 1 where a picture is trusted; with none at all the loss is 0.
        found, histogram: [K], running means of probabilities and of most probable classes on weak views.
    """
    n_classes = p.shape[1]
    count = parallel.total(trust.sum())
    if float(count) == 0:
        return (p * 0).sum()
    p_bar = parallel.total_with_gradient((trust.unsqueeze(1) * p).sum(0)) / count
    label = torch.nn.functional.one_hot(p.argmax(1), n_classes).to(p.dtype)
    h_bar = parallel.total((trust.unsqueeze(1) * label).sum(0)) / count
    ratio = torch.where(h_bar > 0, p_bar / h_bar.clamp_min(1e-12), torch.zeros_like(p_bar))
    mean = ratio / ratio.sum()
    wanted = (found / histogram.clamp_min(1e-12)).to(p.dtype)
    return ((wanted / wanted.sum()) * (mean + 1e-12).log()).sum()


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """share a + (1 - share) b, with one ``share`` [B] for each picture (MixUp: Zhang et al. 2018, sec. 2)."""
    weight = share.to(a.dtype).view(-1, *[1] * (a.dim() - 1))
    return weight * a + (1 - weight) * b
