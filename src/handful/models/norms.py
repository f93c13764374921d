"""Batch norm's running statistics, left alone for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
