"""Top-1 of the packaged EfficientNet-Lite0 on one ImageNet picture of every second class (goal: 70 %).

It checks that weights, names and preprocessing fit together; it is not an evaluation on ImageNet.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from benchmarks.common import InMemory, arguments, members, pictures, record
from handful.inference.backends import BACKENDS, missing
from handful.inference.features import extract
from handful.models.backbones import create


def top1(data_root: Path, backend: str, size: int = 224) -> float:
    """Share of the pictures whose best ImageNet class is their own: sorted position k is class 2 k."""
    archive = data_root / "imagenet_500_samples" / "imagenet_500_samples.zip"
    net = create("lite0", n_classes=1000, pretrained=True, size=size)
    features = extract(net, InMemory(pictures(archive, size, members(archive))), backend=backend).values
    assert isinstance(net.head, nn.Module)
    with torch.inference_mode():
        answer = net.head(features).argmax(1)
    return float((answer == 2 * torch.arange(len(answer))).float().mean())


def main() -> None:
    options = arguments(str(__doc__)).parse_args()
    rows = [
        {"backend": backend, "size": size, "top1": top1(options.data_root, backend, size)}
        for size, backend in [*((224, name) for name in BACKENDS), (128, "torch")]
        if not missing(backend)
    ]
    record("imagenet_check", rows, data="imagenet_500_samples, 500 pictures", goal="top1 >= 0.70 at 224 px")


if __name__ == "__main__":
    main()
