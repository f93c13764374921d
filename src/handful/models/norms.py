"""Batch norm's running statistics: left alone for a while, or found anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from handful.models.modes import evaluation


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Forward passes in training mode that leave batch norm's running means and variances as they are: for pictures
    that are not of the data, such as adversarial ones."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def freeze_norms(model: nn.Module) -> None:
    """Keep batch norm's running statistics as they are (for few labels): evaluation mode for norms."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def find_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace batch norm's running means and variances by plain averages over ``batches``, each [B, C, H, W]: for a
    network that was trained on pictures unlike those that it will see (PreciseBN: Wu & Johnson 2021, *Rethinking
    "Batch" in BatchNorm*, section 3). All else is as in use: nothing is dropped."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    with statistics_kept(model), evaluation(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.train()
        for batch in batches:
            model(batch)


def activation_in(norm: nn.Module) -> nn.Module:
    """What is left of a norm when its arithmetic is gone: its activation, if a library put one into it (timm's
    ``BatchNormAct2d``)."""
    return dict(norm.named_children()).get("act", nn.Identity())
