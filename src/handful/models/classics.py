"""The classic backbones, from torchvision and timm, at any size and number of channels that they can take.

Made for photographs of 224 px, most divide the side by 32. Up to ``SMALL`` px their stems are those for small pictures:
by ``stem_stride`` the whole network divides the side by 8 up to 32 px, by 16 up to 64 px, so that a map of 4 px or so
remains to look at. The stem depends on the size alone, so that a saved network is built again as it was; trained
weights belong to the stem for photographs.

Legend: B pictures, C channels, S pixels a side, D features, K classes.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from handful.models.libraries import Change, from_timm, from_torchvision, headless
from handful.models.modes import evaluation
from handful.models.small import Net
from handful.types import InputSpec, Output, UsageError

SMALL = 64  # pixels a side up to which a stem for small pictures is used


def stem_stride(size: int | None) -> int:
    """By how much the stem divides the side: 1 up to 32 px, 2 up to ``SMALL``, else 4 (as for photographs)."""
    return 4 if size is None or size > SMALL else 2 if size > 32 else 1


def stem_for(name: str, size: int | None, pretrained: bool, change: Change) -> Change | None:
    """``change`` where pictures are small.

    Raises:
        UsageError: trained weights are wanted for small pictures.
    """
    if stem_stride(size) == 4:
        return None
    if pretrained:
        raise UsageError(
            f"the weights of {name!r} are for pictures of more than {SMALL} px, not {size}",
            fix=f"give it larger ones (--training.size {SMALL + 1} or more), or train from scratch",
        )
    return change


def small_conv(size: int | None, width: int, channels: int = 3) -> nn.Conv2d:
    """The 3x3 convolution that is the stem for small pictures (He et al. 2016, section 4.2); a norm follows."""
    return nn.Conv2d(channels, width, 3, stem_stride(size), padding=1, bias=False)


def resnet(
    inner: str,
    n_classes: int,
    channels: int,
    size: int | None,
    pretrained: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """ResNet (He et al. 2016) and SENet (Hu et al. 2018: ResNet with squeeze-and-excitation), of timm. Where a
    bottleneck halves the side its 3x3 convolution does. The last norm of a block starts at 1, as in the paper (timm's
    own start is 0: then no branch gives anything at first)."""

    def small_stem(body: Any) -> None:
        body.conv1 = small_conv(size, body.conv1.out_channels, channels)
        body.maxpool = nn.Identity()

    change = stem_for(inner, size, pretrained, small_stem)
    return from_timm(
        inner, n_classes, channels, size, pretrained, drop_path, change=change, zero_init_last=False
    )


def densenet(inner: str, n_classes: int, channels: int, size: int | None, pretrained: bool) -> Net:
    """DenseNet-BC (Huang et al. 2017), of torchvision."""

    def small_stem(body: Any) -> None:
        body.features.conv0 = small_conv(size, body.features.conv0.out_channels)
        body.features.pool0 = nn.Identity()

    change = stem_for(inner, size, pretrained, small_stem)
    return from_torchvision(inner, n_classes, channels, size, pretrained, change=change)


def vgg(inner: str, n_classes: int, channels: int, size: int | None, pretrained: bool) -> Net:
    """VGG without batch norm (Simonyan & Zisserman 2015), of torchvision; D = 4096.

    For small pictures its last one or two poolings are left out, and the first fully connected layer fits the map.
    """

    def small_stem(body: Any) -> None:
        poolings = [name for name, m in body.features.named_children() if isinstance(m, nn.MaxPool2d)]
        for name in poolings[4 if stem_stride(size) == 2 else 3 :]:
            body.features.set_submodule(name, nn.Identity())
        body.avgpool = nn.Identity()
        body.classifier[0] = nn.Linear(flattened_size(body.features, 3, size), 4096)

    change = stem_for(inner, size, pretrained, small_stem)
    return from_torchvision(inner, n_classes, channels, size, pretrained, change=change)


def alexnet(n_classes: int, channels: int, size: int | None, pretrained: bool) -> Net:
    """AlexNet in one tower (Krizhevsky 2014, "One weird trick", figure 2), of torchvision; D = 4096.

    For small pictures the first convolution is 5x5 with stride 1 or 2.
    """

    def small_stem(body: Any) -> None:
        body.features[0] = nn.Conv2d(3, 64, 5, stem_stride(size), padding=2)
        body.avgpool = nn.Identity()
        body.classifier[1] = nn.Linear(flattened_size(body.features, 3, size), 4096)

    change = stem_for("alexnet", size, pretrained, small_stem)
    return from_torchvision("alexnet", n_classes, channels, size, pretrained, change=change)


def two_towers(n_classes: int, channels: int, size: int) -> Net:
    """AlexNet as first published (Krizhevsky et al. 2012, section 3.5): two towers, one for each of two GPUs, that meet
    in the third convolution and in the fully connected layers. A tower is a group of a grouped convolution. D = 4096.

    Local response normalization is that of section 3.3 (torch divides alpha by the number of channels summed over).
    """
    kernel, stride = (11, 4) if stem_stride(size) == 4 else (5, stem_stride(size))
    norm = partial(nn.LocalResponseNorm, 5, alpha=5e-4, beta=0.75, k=2.0)
    convolutions = nn.Sequential(
        nn.Conv2d(channels, 96, kernel, stride, padding=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    connected = (
        nn.Flatten(), nn.Dropout(), nn.Linear(flattened_size(convolutions, channels, size), 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
    )  # fmt: skip
    return Net(nn.Sequential(convolutions, *connected), 4096, imagenet_spec(channels, size), n_classes)


class GoogLeNet(Net):
    """GoogLeNet (Szegedy et al. 2015), of torchvision: with batch norm, and 3x3 where the paper has 5x5. D = 1024.

    In training, two auxiliary heads classify maps from the middle (section 5): ``Output.auxiliary`` holds their logits,
    nearest the input first. In evaluation mode they do not run, and no exported file has them.
    """

    @property
    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        """The heads in the middle, where there are any."""
        body: Any = self.body
        return tuple(part for part in (body.aux1, body.aux2) if part is not None)

    def forward(self, x: Tensor) -> Output:
        out = self.body(x)
        if not isinstance(out, tuple):
            return Output(out, self.head(self.drop(out)))
        features, late, early = out
        return Output(features, self.head(self.drop(features)), (early, late))


def googlenet(n_classes: int, channels: int, size: int | None, pretrained: bool) -> Net:
    """The network of ``GoogLeNet``. Auxiliary heads always start from fresh weights; without classes there are none."""

    def change(body: Any) -> None:
        if n_classes:
            body.aux1.fc2 = nn.Linear(body.aux1.fc2.in_features, n_classes)
            body.aux2.fc2 = nn.Linear(body.aux2.fc2.in_features, n_classes)
        else:
            body.aux1 = body.aux2 = None
            body.aux_logits = False
        if stem_stride(size) < 4:
            body.conv1.conv = small_conv(size, 64)
            body.maxpool1 = nn.Identity()

    stem_for("googlenet", size, pretrained, change)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "auxiliary heads")  # that their weights are fresh
        net = from_torchvision(
            "googlenet", n_classes, channels, size, pretrained, change=change, aux_logits=True, dropout=0.0
        )
    googlenet = GoogLeNet(net.body, net.dim, net.spec)
    googlenet.head = net.head
    return googlenet


EFFICIENTNETS = ((1, 1), (1, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2, 3.1))
"""Width and depth multipliers of B0 to B7."""


def efficientnet(
    scale: tuple[float, float],
    n_classes: int,
    channels: int,
    size: int | None,
    pretrained: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """EfficientNet (Tan & Le 2019), of torchvision, with any (width, depth) multiplier: B0 is (1, 1), L2 (4.3, 5.3)
    (Xie et al. 2020, "Noisy Student", table 7), B6-Wide (5, 2.6) (Pham et al. 2021, "Meta Pseudo Labels", section 4,
    and its authors' code).

    For small pictures the first one or two of its strides are left out. Weights are there for B0 to B7.
    """

    def small_stem(body: Any) -> None:
        halving = [m for m in body.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for one in halving[: 1 if stem_stride(size) == 2 else 2]:
            one.stride = (1, 1)

    name = "efficientnet-{:g}x{:g}".format(*scale)
    change = stem_for(name, size, pretrained, small_stem)
    noise: dict[str, Any] = {"dropout": 0.0, "stochastic_depth_prob": drop_path}
    if scale in EFFICIENTNETS:
        inner = f"efficientnet_b{EFFICIENTNETS.index(scale)}"
        return from_torchvision(inner, n_classes, channels, size, pretrained, change=change, **noise)
    if pretrained:
        raise UsageError(f"there are no pretrained weights for {name!r}", fix="use efficientnet-b0 to -b7")
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    width, depth = scale
    stages = [MBConvConfig(*stage, width_mult=width, depth_mult=depth) for stage in EFFICIENTNET_STAGES]
    body = EfficientNet(stages, norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01), **noise)
    config = {"input_size": (3, 224, 224), "mean": IMAGENET[0], "std": IMAGENET[1]}
    return headless(name, body, config, n_classes, channels, size, change, False)


EFFICIENTNET_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
"""Expansion, kernel, stride, channels in and out, blocks (Tan & Le 2019, table 1)."""


def scale_of(name: str) -> tuple[float, float] | None:
    """``"efficientnet-1.3x0.8"`` to (1.3, 0.8), width and depth; None for other names."""
    found = re.fullmatch(r"efficientnet-(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", name)
    scale = (float(found[1]), float(found[2])) if found else None
    return scale if scale and min(scale) > 0 else None


def vit(
    inner: str, n_classes: int, channels: int, size: int | None, pretrained: bool, drop_path: float = 0.0
) -> Net:
    """Vision transformer (Dosovitskiy et al. 2021), of timm: patches of 16 px; for small pictures of 8 or 4. What
    remains at the right and lower edge where patches do not divide the side is not seen."""
    stem_for(inner, size, pretrained, lambda body: None)
    patch = 4 * stem_stride(size)
    return from_timm(inner, n_classes, channels, size, pretrained, drop_path, patch_size=patch)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def imagenet_spec(channels: int, size: int) -> InputSpec:
    """Pixels less ImageNet's mean, over its deviation; the mean of both where there are not three channels."""
    mean, std = IMAGENET if channels == 3 else [(sum(values) / 3,) * channels for values in IMAGENET]
    return InputSpec(size, channels, mean, std)


def flattened_size(convolutions: nn.Module, channels: int, size: int | None) -> int:
    """How many numbers a map has."""
    with evaluation(convolutions), torch.no_grad():
        weight = next(convolutions.parameters())
        out: Tensor = convolutions(torch.zeros(1, channels, size or 224, size or 224, device=weight.device))
    return out.numel()
