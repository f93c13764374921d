"""Networks in evaluation mode, or watched, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode (no dropout, the norms' running averages); every module's mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def watching(modules: Iterable[nn.Module], seen: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    """``seen(module, inputs, output)`` is called after every forward pass of each of these modules."""
    hooks = [module.register_forward_hook(seen) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
