"""Networks of timm and torchvision as ``Net``: a body that gives features, and a fresh or a trained head.

Legend: B pictures, C channels, S pixels a side, D features, K classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from handful.models import small
from handful.models.small import Net
from handful.types import HandfulError, InputSpec, Interrupted, UsageError

Change = Callable[[Any], None]
"""What is changed in a library's network before anything runs through it, such as its stem."""


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the known names most like ``name``."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    if len(names) < 60:
        return f"{hint}Known: {', '.join(names)}"
    return hint or "see the library's list of models"


def from_timm(
    name: str,
    n_classes: int,
    channels: int,
    size: int | None,
    pretrained: bool,
    drop_path: float = 0.0,
    *,
    change: Change | None = None,
    **options: Any,
) -> Net:
    """Any image model of timm. Its features are what its classifier receives, pooled.

    ``options`` are timm's own, such as ``patch_size``.
    """
    import timm

    config = timm_config(name)
    options |= {"num_classes": n_classes or 2, "in_chans": channels}
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
    if change:
        change(body)
    net = Net(body, feature_width(name, body, config.input_size, size, channels), InputSpec(0), n_classes)
    net.spec = spec_of(vars(config), size, channels)
    return keep_head(net, classifier, n_classes, pretrained and n_classes == config.num_classes)


def timm_config(name: str) -> Any:
    """timm's notes on a model and its weights.

    Raises:
        UsageError: there is no such model.
    """
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None
    if config is None:
        raise UsageError(f"timm has no model {name!r}", fix=nearest(name, timm.list_models()))
    return config


def from_torchvision(
    name: str,
    n_classes: int,
    channels: int,
    size: int | None,
    pretrained: bool,
    *,
    change: Change | None = None,
    **options: Any,
) -> Net:
    """Any classifier of torchvision. The features are what its last linear layer receives.

    Auxiliary classifiers (GoogLeNet, Inception) are left out unless ``aux_logits=True`` is among ``options``, which are
    torchvision's own.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"torchvision has no classifier {name!r}", fix=nearest(name, known))
    if pretrained and channels != 3:
        raise UsageError(f"the weights of {name!r} want 3 channels, not {channels}", fix="train from scratch")
    weights = models.get_model_weights(name).DEFAULT
    crop = weights.transforms()
    config = {"mean": crop.mean, "std": crop.std, "input_size": (3, crop.crop_size[0], crop.crop_size[0])}
    options.setdefault("num_classes", len(weights.meta["categories"]))
    if name in ("googlenet", "inception_v3"):
        # init_weights takes a minute. transform_input, which comes with the weights, is (x - 0.5) / 0.5 of the pixels:
        # said here, so that a saved network sees the same without them
        for option in ("aux_logits", "init_weights", "transform_input"):
            options.setdefault(option, False)
        config |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    if name.startswith("vit") and size:
        options["image_size"] = size
    try:
        body = models.get_model(name, weights=weights if pretrained else None, **options)
    except OSError as error:
        raise no_weights(f"torchvision:{name}", error) from error
    return headless(name, body, config, n_classes, channels, size, change, pretrained)


def headless(
    name: str,
    body: Any,
    config: dict[str, Any],
    n_classes: int,
    channels: int,
    size: int | None,
    change: Change | None,
    pretrained: bool,
) -> Net:
    """A network of torchvision without its classifier, on this many channels."""
    if name.startswith("squeezenet"):
        body.classifier = nn.Sequential(*small.mean_pool())
        classifier: nn.Module = nn.Identity()
    else:
        linear = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)]
        path, classifier = [(n, m) for n, m in linear if not n.startswith("aux")][-1]
        body.set_submodule(path, nn.Identity())
    if change:
        change(body)
    if channels != 3:
        path, first = next((n, m) for n, m in body.named_modules() if isinstance(m, nn.Conv2d))
        body.set_submodule(path, with_channels(first, channels))
    net = Net(body, feature_width(name, body, config["input_size"], size, channels), InputSpec(0), n_classes)
    net.spec = spec_of(config, size, channels)
    own = pretrained and isinstance(classifier, nn.Linear) and n_classes == classifier.out_features
    return keep_head(net, classifier, n_classes, own) if own else net


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


def feature_width(
    name: str, body: nn.Module, input_size: tuple[int, ...], size: int | None, channels: int
) -> int:
    """The feature width D, seen from one picture: libraries do not all say it.

    Raises:
        UsageError: the picture is too small for the network.
    """
    was = body.training
    side = size or input_size[-1]
    try:
        with torch.inference_mode():
            features = body.eval()(torch.zeros(1, channels, side, side))
    except RuntimeError as error:
        raise UsageError(
            f"{name!r} cannot take pictures of {side} px ({str(error).splitlines()[0]})",
            fix="give it larger ones (--training.size), or take a network for small pictures, such as 'small-resnet'",
        ) from error
    body.train(was)
    return int(features.shape[1])


def no_stochastic_depth(name: str, known: str = "") -> UsageError:
    """The error for a network whose blocks cannot be left out; ``known`` names networks that can."""
    one_of = f", or use one of {known}" if known else ""
    return UsageError(f"{name!r} has no stochastic depth", fix=f"set drop_path to 0{one_of}")


def no_weights(name: str, error: Exception) -> HandfulError:
    """Weights that could not be fetched, as an error for the user."""
    return HandfulError(
        f"the pretrained weights of {name!r} could not be loaded ({type(error).__name__}: {error})",
        fix="check the network connection, or use 'lite0', whose weights are installed with handful",
    )
