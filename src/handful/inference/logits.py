"""What a model says of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from handful.augment.views import to_input
from handful.data.images import Images
from handful.models.modes import evaluation
from handful.types import InputSpec


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode without gradients; every module's mode is put back afterwards."""
    with evaluation(model), torch.inference_mode():
        yield model


def predict(
    model: nn.Module, images: Images, ids: Tensor, spec: InputSpec, *, batch: int = 256, device: str = "cpu"
) -> Tensor:
    """Logits of pictures by row number: float32 [len(ids), K] on the CPU."""
    parts = []
    with evaluating(model):
        for some in ids.split(batch):
            x = to_input(images.take(some).to(device), spec)
            parts.append(model(x.contiguous(memory_format=torch.channels_last)).logits.float().cpu())
    return torch.cat(parts)
