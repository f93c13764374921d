"""The forward passes that the consistency methods share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handful.types import Batch


def three_views(student: nn.Module, batch: Batch, passes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the labelled pictures ``x``, and of the unlabelled ones' ``weak`` and ``strong`` views.

    Args:
        passes: 1: all three together (batch norm sees all); 2: the weak views apart and without a graph, which
            saves a third of the time; 3: the labelled pictures apart, too.
    """
    x, weak, strong = batch["x"], batch["weak"], batch["strong"]
    if passes == 1:
        z_x, z_w, z_s = student(torch.cat([x, weak, strong])).logits.split([len(x), len(weak), len(strong)])
        return z_x, z_w, z_s
    with torch.no_grad():
        z_w = student(weak).logits
    if passes == 2:
        z_x, z_s = student(torch.cat([x, strong])).logits.split([len(x), len(strong)])
        return z_x, z_w, z_s
    return student(x).logits, z_w, student(strong).logits
