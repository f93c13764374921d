"""The thing that ships: frozen features with a head on top, or a trained network; and the way back from disk.

Legend: B pictures, D features, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from handful.models.backbones import create
from handful.models.heads import build_head
from handful.types import InputSpec, Output


class PixelComponents(nn.Module):
    """Pixels projected on their first D principal components: features for tiny or gray pictures.

    Args:
        channels, size: of the pictures.
        dim: D components (at most the number of pixels).
    """

    mean: Tensor
    components: Tensor

    def __init__(self, channels: int, size: int, dim: int) -> None:
        super().__init__()
        self.spec = InputSpec(size, channels, (0.5,) * channels, (0.5,) * channels)
        self.dim = dim
        pixels = channels * size * size
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(dim, pixels))

    def config(self) -> dict[str, Any]:
        return {"name": "pixels", "channels": self.spec.channels, "size": self.spec.size, "dim": self.dim}

    def fit(self, x: Tensor) -> PixelComponents:
        """Principal components of prepared pictures [n, C, H, W], each with its largest entry positive."""
        flat = x.flatten(1).double()
        mean = flat.mean(0)
        _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))  # ascending
        components = vectors.flip(1)[:, : self.dim].T
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.mean.copy_(mean)
        self.components.copy_(components * largest.sign())
        return self

    def forward(self, x: Tensor) -> Output:
        features = (x.flatten(1) - self.mean) @ self.components.T
        return Output(features, features[:, :0])


class Classifier(nn.Module):
    """A backbone, and a head over its features where the backbone's own logits are not used.

    Args:
        backbone: features [B, D]; its own logits count where ``head`` is None.
        head: features [B, D] to logits [B, K].
        config: what ``build_classifier`` needs to make the backbone again.
        mirror: average the features of the picture and its left-right mirror image.

    ``temperature`` divides the logits (Guo et al. 2017); 1 leaves them alone.
    """

    temperature: Tensor

    def __init__(
        self, backbone: nn.Module, head: nn.Module | None, config: dict[str, Any], *, mirror: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.backbone_config, self.mirror = backbone, head, config, mirror
        self.register_buffer("temperature", torch.ones(()))

    @property
    def spec(self) -> InputSpec:
        spec = self.backbone.spec
        assert isinstance(spec, InputSpec)
        return spec

    def forward(self, x: Tensor) -> Output:
        features, logits, _ = self.backbone(x)
        if self.mirror:
            features = (features + self.backbone(x.flip(3)).features) / 2
        if self.head is not None:
            logits = self.head(features)
        return Output(features, logits / self.temperature)

    @property
    def learned_bytes(self) -> int:
        """Memory of what was learned from the labels: of the head on frozen features, or of the whole network."""
        learned = self.backbone if self.head is None else self.head
        return sum(x.numel() * x.element_size() for x in learned.state_dict().values())

    def config(self) -> dict[str, Any]:
        """What ``build_classifier`` needs besides the weights; JSON can hold it."""
        head: Any = self.head
        return {
            "backbone": self.backbone_config,
            "head": head.config() if head is not None else None,
            "mirror": self.mirror,
        }


def build_classifier(config: dict[str, Any]) -> Classifier:
    """The classifier that ``config`` describes, with fresh weights: load its state afterwards."""
    backbone = dict(config["backbone"])
    own_head = backbone.pop("head", None)
    if backbone["name"] == "pixels":
        module: nn.Module = PixelComponents(backbone["channels"], backbone["size"], backbone["dim"])
    else:
        module = create(backbone.pop("name"), pretrained=False, **backbone)
    if own_head:
        module.head = build_head(own_head)
    head = build_head(config["head"]) if config["head"] else None
    return Classifier(module, head, config["backbone"], mirror=config["mirror"])
