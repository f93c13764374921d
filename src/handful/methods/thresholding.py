"""Which pseudo-labels to trust: one object for the whole family, which remembers what it has to.

Legend: B pictures of this process's batch, K classes, t updates so far; ``p`` [B, K] probabilities without
gradient, c = max_k p_k their confidence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handful import parallel
from handful.losses.consistency import align


class Thresholding(nn.Module):
    """Weights in [0, 1] for pseudo-labels; a module under the role ``memory``, so that a checkpoint holds it.

    Every running mean is a <- d a + (1 - d) mean over the *global* batch, with d = min(momentum, (1 + t) /
    (10 + t)): a run of a few hundred steps must not be ruled by what the mean started from.

    Args:
        n_classes: K.
        threshold: confidence from which a pseudo-label counts; above 1 none does.
        momentum: of the running means.

    Attributes:
        found: running mean of p over unlabelled pictures, [K].
        wanted: running frequency of the classes among labelled pictures, [K].
        t: updates so far.
    """

    found: Tensor
    wanted: Tensor
    t: Tensor

    def __init__(self, n_classes: int, threshold: float = 0.95, momentum: float = 0.999) -> None:
        super().__init__()
        self.threshold, self.momentum = threshold, momentum
        uniform = torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
        self.register_buffer("found", uniform)
        self.register_buffer("wanted", uniform.clone())
        self.register_buffer("t", torch.zeros((), dtype=torch.int64))

    def observe(self, p: Tensor, y: Tensor) -> None:
        """Take up predictions p [B, K] on unlabelled pictures and the labels y int64 [n] beside them."""
        share = 1 - min(self.momentum, float(1 + self.t) / float(10 + self.t))
        frequency = torch.bincount(y, minlength=p.shape[1]).double() / len(y)
        self.found.lerp_(parallel.mean(p.double().mean(0)), share)
        self.wanted.lerp_(parallel.mean(frequency), share)
        self.t += 1

    def align(self, p: Tensor) -> Tensor:
        """p [B, K] with the classes as frequent as among the labelled pictures."""
        return align(p, self.wanted.to(p.dtype), self.found.to(p.dtype))

    def forward(self, p: Tensor) -> Tensor:
        """1 where max_k p_k reaches the threshold, else 0: [B]."""
        return (p.amax(1) >= self.threshold).to(p.dtype)
