"""An exponential moving average of a network: its weights and its buffers."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from handful import parallel


class EMA(nn.Module):
    """``average <- d average + (1 - d) model`` after every step (Tarvainen & Valpola 2017, "Mean teachers are
    better role models", section 2), with ``d = min(decay, (1 + t) / (10 + t))`` so that the first steps do
    not linger.

    Batch norm's running statistics, and every other floating buffer, are averaged like weights; integer
    buffers are copied. The average is ``module`` and ``t`` is a buffer, so both are in the checkpoint.
    ``module`` starts in evaluation mode and takes no gradient.
    """

    t: Tensor

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], not {decay}")
        self.decay = decay
        self.module = copy.deepcopy(parallel.unwrap(model)).eval().requires_grad_(False)
        self.register_buffer("t", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model`` (wrapped or not), which has the same layout."""
        t = int(self.t)
        decay = min(self.decay, (1 + t) / (10 + t))
        ours, theirs = tensors(self.module), tensors(parallel.unwrap(model))
        floating = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_floating_point()]
        if floating:
            average, current = map(list, zip(*floating, strict=True))
            torch._foreach_lerp_(average, current, 1 - decay)
        for a, b in zip(ours, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)
        self.t += 1

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.module(*args, **options)


def tensors(module: nn.Module) -> list[Tensor]:
    """Parameters, then buffers, each once."""
    return [p.detach() for p in module.parameters()] + list(module.buffers())
