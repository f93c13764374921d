"""Parameters, arithmetic and memory of a network, counted on shapes alone: nothing is computed, so that a network of
half a billion parameters at 800 px costs no more than a small one.

**Convention.** A FLOP is one multiplication or one addition: a multiply-add counts 2. Many papers call a multiply-add a
"FLOP" (ResNet-50: "4.1 billion"); that number is ``multiply_adds``. Convolutions, matrix products and attention count
(``torch.utils.flop_counter``); norms, activations, pooling and sums, under one percent of most networks, do not.

Legend: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from handful.models.modes import evaluation, watching

M = TypeVar("M", bound=nn.Module)


class Counted(NamedTuple):
    """Of one network, or of one layer of it, for one input."""

    parameters: int
    flops: int

    @property
    def multiply_adds(self) -> int:
        """What many papers call FLOPs."""
        return self.flops // 2


class Layer(NamedTuple):
    """A module without children, or with parameters of its own, in the order in which it first ran.

    ``parameters`` and ``flops`` are its own, without its children's.
    """

    name: str
    kind: str
    shape: tuple[int, ...]  # of what it gives; () where that is no tensor
    counted: Counted


def count(model: nn.Module, shape: Sequence[int]) -> Counted:
    """Parameters, and FLOPs of one forward pass in evaluation mode.

    Args:
        shape: of the input, [C, H, W] (one picture) or [B, C, H, W].
    """
    parameters = sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        run(on_meta(model), shape)
    return Counted(parameters, int(counter.get_total_flops()))


def layers(model: nn.Module, shape: Sequence[int]) -> list[Layer]:
    """The same layer by layer; a layer that runs twice counts its FLOPs twice. Parameters that no layer of the list
    holds (of auxiliary heads, which do not run in evaluation mode) are left out.
    """
    model = on_meta(model)
    names = {module: name for name, module in model.named_modules()}
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        shapes.setdefault(module, tuple(output.shape) if isinstance(output, Tensor) else ())

    with watching(names, note), FlopCounterMode(display=False) as counter:
        run(model, shape)
    by_name = {
        name.partition(".")[2]: sum(ops.values())
        for name, ops in counter.get_flop_counts().items()
        if name != "Global"
    }

    def flops_of(module: nn.Module) -> int:
        """Its own: without those of the modules in it."""
        name = names[module]
        inner = sum(by_name.get(f"{name}.{child}".lstrip("."), 0) for child, _ in module.named_children())
        return int(by_name.get(name, 0) - inner)

    listed = [module for module in shapes if is_layer(module) or (module is not model and flops_of(module))]
    own = dict.fromkeys(listed, 0)
    for path, module in model.named_modules():
        holder = next((m for m in ancestors(model, path) if m in own), None)
        if holder is not None:  # attention calls its last projection as a function: these count as its own
            own[holder] += sum(p.numel() for p in module.parameters(recurse=False))
    return [Layer(names[m], type(m).__name__, shapes[m], Counted(own[m], flops_of(m))) for m in listed]


def ancestors(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """The module at ``path``, the one that holds it, and so on up to the model."""
    words = path.split(".") if path else []
    for n in range(len(words), -1, -1):
        yield model.get_submodule(".".join(words[:n]))


def activation_bytes(model: nn.Module, shape: Sequence[int]) -> int:
    """Bytes that a training step keeps between forward and backward pass, beside the parameters: the memory that grows
    with the batch.

    Args:
        shape: [C, H, W] or [B, C, H, W]; batch norm over maps of one place wants B of 2 or more.
    """
    model = on_meta(model).train()
    mine = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in mine:
            kept[storage._cdata] = storage
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        _ = model(batch_for(model, shape))
    return sum(storage.nbytes() for storage in kept.values())


def is_layer(module: nn.Module) -> bool:
    """Whether a module stands in a table of layers."""
    childless = next(module.children(), None) is None
    own = next(module.parameters(recurse=False), None) is not None
    return (childless or own) and not isinstance(module, nn.Identity)


def on_meta(model: M) -> M:
    """A copy without numbers."""
    if all(t.is_meta for t in (*model.parameters(), *model.buffers())):
        return deepcopy(model)
    memo: dict[int, Any] = {}
    for p in model.parameters():  # so that no number is copied
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return deepcopy(model, memo)


def batch_for(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """An input of this shape and of the model's number format, without numbers; a picture becomes a batch of one."""
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    return torch.empty((1, *shape) if len(shape) == 3 else tuple(shape), dtype=dtype, device="meta")


def run(model: nn.Module, shape: Sequence[int]) -> None:
    """One forward pass in evaluation mode, on shapes alone."""
    with evaluation(model), torch.no_grad():
        model(batch_for(model, shape))
