"""Parameters and arithmetic of a network. A FLOP is one multiplication or one addition: a multiply-add counts 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from handful.models.modes import evaluation


class Counted(NamedTuple):
    """Of one network, for one input."""

    parameters: int
    flops: int


def count(model: nn.Module, shape: Sequence[int]) -> Counted:
    """Parameters, and FLOPs of one forward pass in evaluation mode on an input of ``shape`` [C, H, W].

    Convolutions and matrix products count (``torch.utils.flop_counter``).
    """
    with FlopCounterMode(display=False) as counter, evaluation(model), torch.no_grad():
        model(torch.zeros(1, *shape))
    return Counted(sum(p.numel() for p in model.parameters()), int(counter.get_total_flops()))
