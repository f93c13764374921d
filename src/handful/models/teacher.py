"""Networks that teach: they answer for decoded pictures, and nothing that happens to the student happens to them.

Legend: B pictures, C channels, S pixels a side, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.augment.tensors import whole_gray
from handful.augment.views import to_input
from handful.types import InputSpec, Output

Answer = Callable[[Tensor], Output]
"""Decoded pictures, uint8 [B, C, S, S], to features [B, D] (D = 0 where there are none) and log p [B, K]."""


class FrozenTeacher:
    """A network as an ``Answer``: in evaluation mode, without gradient, in float32.

    Args:
        network: pictures as ``spec`` wants them, to ``Output``; it is put into evaluation mode.
        channels: of the pictures that it was trained on; colour pictures are made gray first where that is 1.
    """

    def __init__(self, network: nn.Module, spec: InputSpec, channels: int, device: str = "cpu") -> None:
        self.network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spec, self.channels = spec, channels

    def __call__(self, pixels: Tensor) -> Output:
        x = to_input(gray(pixels) if self.channels == 1 else pixels, self.spec)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            out = self.network(x.contiguous(memory_format=torch.channels_last))
        return Output(out.features.float(), F.log_softmax(out.logits.float(), dim=1))


def gray(pixels: Tensor) -> Tensor:
    """uint8 [B, C, S, S] to uint8 [B, 1, S, S]: ITU-R 601 luma, as Pillow rounds it."""
    return whole_gray(pixels).to(torch.uint8)


class Teachers(nn.Module):
    """Teachers as one: features of the first, and the log of the mean of all their probabilities.

    Their networks are no submodules of this one: nobody can train them, put them into training mode (batch norm's
    averages would drift), or write them into checkpoints.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__()
        self.answers = tuple(answers)

    def forward(self, pixels: Tensor) -> Output:
        """Args: pixels uint8 [B, C, S, S]."""
        first, *others = (answer(pixels) for answer in self.answers)
        return Output(first.features, mean_of_logs([first.logits, *(other.logits for other in others)]))


def mean_of_logs(log_p: Sequence[Tensor]) -> Tensor:
    """log of the mean of probabilities, from their logarithms [B, K] each."""
    if len(log_p) == 1:
        return log_p[0]
    return torch.logsumexp(torch.stack(list(log_p)), 0) - math.log(len(log_p))
