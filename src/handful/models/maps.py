"""Where a network looks: class activation maps, and the list of its building blocks.

Legend: B pictures, C channels, H, W sides of a map, S pixels a side, D features, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.models.count import on_meta, run
from handful.models.modes import evaluation, watching
from handful.models.small import Net
from handful.types import Output

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def building_blocks(model: Net, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The building blocks by name, in the order in which they run, with the shape of what they give: the largest parts
    that are more than a plain list of parts (a residual block, an inception, a block of a transformer, or one layer).

    Args:
        shape: of the input, [C, H, W].
    """
    model = on_meta(model)
    found: dict[str, tuple[int, ...]] = {}
    names: dict[nn.Module, str] = {}

    def visit(module: nn.Module, name: str) -> None:
        if module in (model, model.body) or type(module) in CONTAINERS:
            for child, part in module.named_children():
                visit(part, f"{name}.{child}".lstrip("."))
        elif not isinstance(module, nn.Identity):
            names.setdefault(module, name)

    def note(module: nn.Module, inputs: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            found.setdefault(names[module], tuple(out.shape))

    visit(model, "")
    with watching(names, note):
        run(model, shape)
    return found


def stages(model: Net, shape: Sequence[int], most: int = 10) -> list[str]:
    """At most ``most`` of the ``building_blocks``, from the input to the features, for probing: blocks, activations and
    poolings (not bare convolutions and norms); where the shape changes after one it is taken first."""
    shapes = building_blocks(model, shape)
    named = dict(model.named_modules())
    bare = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.Dropout, nn.Flatten)
    shapes = {n: s for n, s in shapes.items() if not n.startswith("head") and len(s) > 1}
    names = [n for n in shapes if not isinstance(named[n], bare)]
    ends = [a for a, b in pairwise(names) if shapes[a] != shapes[b]] + names[-1:]
    if len(ends) >= most:
        chosen = [ends[round(i * (len(ends) - 1) / (most - 1))] for i in range(most)]
    else:
        rest = [n for n in names if n not in ends]
        more = min(most - len(ends), len(rest))
        chosen = ends + [rest[round((i + 0.5) * len(rest) / more - 0.5)] for i in range(more)]
    return [n for n in names if n in chosen]


def outputs(model: nn.Module, names: Sequence[str], x: Tensor) -> tuple[dict[str, Tensor], Output]:
    """What these modules give for ``x``, by name, and what the model gives."""
    kept: dict[nn.Module, Tensor] = {}
    modules = [model.get_submodule(name) for name in names]
    with watching(modules, lambda module, inputs, out: kept.update({module: out})):
        out: Output = model(x)
    return {name: kept[module] for name, module in zip(names, modules) if module in kept}, out


def pooled(out: Tensor, most: int = 1024) -> Tensor:
    """A map [B, C, H, W], tokens [B, N, D] or features [B, D] as vectors: a map by its means over a grid of at most 4 x
    4 fields, as many as keep the vector below ``most``; tokens by their mean."""
    if out.dim() == 4:
        grid = max(1, min(4, *out.shape[2:], math.isqrt(most // max(1, out.shape[1]))))
        return F.adaptive_avg_pool2d(out, grid).flatten(1)
    return out.mean(1) if out.dim() == 3 else out.flatten(1)


def last_map(model: Net, shape: Sequence[int]) -> str:
    """The name of the last module that gives a map [B, C, H, W] of more than one place, or tokens that all reach the
    features (the norm at the begin of a vision transformer's last block).

    Raises:
        LookupError: there is none.
    """
    names = dict(model.named_modules())
    attention = [name for name in names if re.fullmatch(r"body\.blocks\.\d+\.attn", name)]
    if attention and (norm := attention[-1].removesuffix("attn") + "norm1") in names:
        return norm
    maps = [name for name, s in building_blocks(model, shape).items() if len(s) == 4 and s[2] * s[3] > 1]
    if not maps:
        raise LookupError("no layer of this network gives a map of more than one place")
    return maps[-1]


def activation_maps(
    model: Net, x: Tensor, classes: Tensor, *, layer: str = "", head: nn.Module | None = None
) -> tuple[Tensor, str]:
    """What in the picture spoke for a class.

    Where the features are the mean of the layer's map, the map of class k is ``sum_c w_kc A_c`` (CAM; Zhou et al. 2016,
    "Learning Deep Features for Discriminative Localization", equation 2): its mean over the places, plus the bias, is
    the logit. Otherwise ``relu(sum_c a_c A_c)`` with a_c the mean over the places of d logit_k / d A_c (Grad-CAM;
    Selvaraju et al. 2017, equations 1 and 2).

    Args:
        x: [B, C, S, S]. classes: a class number for each, [B].
        layer: whose map; by default ``last_map``.
        head: features to logits [B, K]; by default the model's own.

    Returns:
        [B, H, W], and "CAM" or "Grad-CAM".
    """
    layer = layer or last_map(model, x.shape[1:])
    with evaluation(model), torch.enable_grad():
        x = x.detach().clone().requires_grad_()  # so that a frozen network has a graph
        kept, out = outputs(model, [layer], x)
        logits = out.logits if head is None else head(out.features)
    seen = kept[layer]
    linear = model.head if head is None else head
    if seen.dim() == 4 and isinstance(linear, nn.Linear) and is_mean(out.features, seen):
        return torch.einsum("bc,bchw->bhw", linear.weight[classes], seen).detach(), "CAM"
    score = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, seen)
    if seen.dim() == 3:
        seen, gradient = as_grid(seen), as_grid(gradient)
    return (gradient.mean((2, 3), keepdim=True) * seen).sum(1).relu().detach(), "Grad-CAM"


def is_mean(features: Tensor, seen: Tensor) -> bool:
    """Whether the features are the map's mean over its places."""
    mean = seen.mean((2, 3))
    return features.shape == mean.shape and torch.allclose(features, mean, rtol=1e-3, atol=1e-5)


def as_grid(tokens: Tensor) -> Tensor:
    """[B, N, D] to [B, D, H, W]: the tokens of the largest square, without those before them (class tokens)."""
    side = math.isqrt(tokens.shape[1])
    return tokens[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
