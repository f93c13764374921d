"""Batch norm folded into the convolution before it: the same function, fewer passes over memory."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from handful.models.modes import watching
from handful.models.norms import activation_in
from handful.types import HandfulError, InputSpec

TOLERANCE = 1e-3
"""Largest difference of an output, as a share of the largest output, that folding may cause."""


def fold(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy of ``model`` for inference; batch norms that directly follow a convolution are folded into it.

    Which norm follows which convolution is seen, not guessed: the network runs once on ``example``, and a
    pair is a norm that received the very tensor that a convolution returned. Activations that live in the
    norm (timm's ``BatchNormAct2d``) stay.

    Args:
        model: a network; its copy is in evaluation mode, and on the same device.
        example: ``[B, C, H, W]``; by default two random pictures as ``model.spec`` says.

    Raises:
        HandfulError: where the outputs of the folded copy differ by more than ``TOLERANCE``: the network uses
            a convolution's output in another place too.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    if example is None:
        weight = next(model.parameters())
        size, channels = cast(InputSpec, model.spec)[:2]
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(2, channels, size, size, generator=generator).to(weight.device, weight.dtype)
    names = {module: name for name, module in folded.named_modules()}
    with torch.inference_mode():
        pairs, before = follow(folded, example)
    for conv, norm in pairs:
        fold_pair(conv, norm)
        folded.set_submodule(names[norm], activation_in(norm))
    with torch.inference_mode():
        after = flat(folded(example))
    for a, b in zip(before, after, strict=True):
        if not torch.allclose(a, b, rtol=0, atol=TOLERANCE * (float(a.abs().max()) if a.numel() else 0)):
            worst = float((a - b).abs().max())
            raise HandfulError(
                f"folding batch norm changed an output of {type(model).__name__} by {worst:.3g}",
                fix="use the network unfolded (backend 'torch-eager-fp32')",
            )
    return folded


def follow(model: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Conv2d, _BatchNorm]], list[Tensor]]:
    """The pairs (convolution, norm) where the one's output is the other's input, and the model's outputs."""
    calls: list[nn.Module] = []
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def seen(module: nn.Module, inputs: Any, output: Tensor) -> None:
        calls.append(module)
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif isinstance(module, _BatchNorm) and id(inputs[0]) in made and module.running_var is not None:
            pairs.append((made[id(inputs[0])][0], module))

    with watching((m for m in model.modules() if isinstance(m, (nn.Conv2d, _BatchNorm))), seen):
        outputs = flat(model(example))
    return [(c, n) for c, n in pairs if calls.count(c) == calls.count(n) == 1], outputs


def fold_pair(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Change ``conv`` in place to ``norm(conv(.))``; in float64, since variances may be tiny."""
    tensors = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    w, b, mean, variance, scale, shift = (None if x is None else x.double() for x in tensors)
    assert w is not None
    assert mean is not None  # follow() took only norms with statistics
    assert variance is not None
    fused = fuse_conv_bn_weights(w, b, mean, variance, norm.eps, scale, shift)
    conv.weight, conv.bias = (nn.Parameter(x.to(conv.weight.dtype), requires_grad=False) for x in fused)


def flat(output: object) -> list[Tensor]:
    """The tensors of an output, which may be one tensor or a tuple."""
    return [output] if isinstance(output, Tensor) else [t for t in output if isinstance(t, Tensor)]  # type: ignore[attr-defined]
