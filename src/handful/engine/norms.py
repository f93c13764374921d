"""Batch norm's statistics, found anew from pictures as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from handful.augment.views import to_input
from handful.data.images import Images
from handful.models.norms import find_statistics
from handful.randomness import permutation

PICTURES, BATCH = 1024, 256


def find_norms(network: Any, images: Images, rows: Tensor, device: str) -> None:
    """The statistics of ``network``'s norms from the pictures ``rows``, or from ``PICTURES`` of them. A single picture
    has no spread: they stay as they were."""
    some = rows[torch.from_numpy(permutation(len(rows), "statistics"))][:PICTURES]
    if len(some) > 1:
        parts = some.tensor_split(-(-len(some) // BATCH))
        find_statistics(network, (to_input(images.take(part).to(device), network.spec) for part in parts))
