"""How many processes there are, and what that means: who shares work between them, or must agree, asks here.

One process is the normal case: every function here is then a no-op. Under ``torchrun`` the processes form
one *global batch*: rank r of W holds rows ``[r * B / W, (r + 1) * B / W)``, random draws are made for the
whole batch and sliced, and a statistic over the batch is a statistic over the global one.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from handful.types import HandfulError


def start(backend: str | None = None) -> None:
    """Join the group that ``torchrun`` describes in the environment; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():  # one card for each process of a machine
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"))


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def size() -> int:
    """Number of processes W."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0 to W - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


def rows(global_batch: int) -> slice:
    """This rank's rows of a global batch.

    Raises:
        ValueError: where the batch does not divide evenly: a mean of means would then be wrong.
    """
    if global_batch % size():
        raise ValueError(f"a global batch of {global_batch} does not divide over {size()} processes")
    per_rank = global_batch // size()
    return slice(rank() * per_rank, (rank() + 1) * per_rank)


def total(x: Tensor) -> Tensor:
    """Sum of ``x`` over the processes, without gradient: for statistics, not for losses."""
    x = x.detach().clone()
    if size() > 1:
        dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """Mean of ``x`` over the processes (equal slices make it the mean over the global batch)."""
    return total(x) / size()


def total_with_gradient(x: Tensor) -> Tensor:
    """Sum of ``x`` over the processes, and of its gradient: for a loss of a statistic of the global batch, which
    every process computes in full."""
    out: Tensor = x if size() == 1 else _Sum.apply(x)
    return out


def gather(x: Tensor) -> Tensor:
    """Everybody's rows in the order of the global batch: [B, ...] -> [W B, ...], without gradient."""
    x = x.detach().contiguous()
    if size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def gather_with_gradient(x: Tensor) -> Tensor:
    """Everybody's rows, [B, ...] -> [W B, ...], through which the gradient finds its way back: for a loss that compares
    all pictures of the global batch, and which every process computes in full."""
    if size() == 1:
        return x
    everyone = x.new_zeros(len(x) * size(), *x.shape[1:])
    everyone[rows(len(everyone))] = x
    return total_with_gradient(everyone)


def first_says(x: float) -> float:
    """The first process's number, in every process: for decisions that are measured."""
    if size() == 1:
        return x
    told = torch.tensor([x], dtype=torch.float64, device=_device())
    dist.broadcast(told, 0)
    return float(told)


def any_says(yes: bool) -> bool:
    """Whether any process says yes: for decisions that all must take together, such as to stop."""
    return yes if size() == 1 else bool(total(torch.tensor([float(yes)], device=_device())) > 0)


def _device() -> str:
    """Where the group's messages must lie: NCCL carries nothing but GPU memory."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def barrier() -> None:
    """Wait until every process has come here."""
    if size() > 1:
        dist.barrier()


def wrap(model: nn.Module, *, find_unused: bool = False) -> nn.Module:
    """A network that trains, wrapped so that its gradients are averaged over the processes.

    Batch norm becomes synchronised: its statistics, too, are those of the global batch. The names of the
    weights stay as they are, so that a checkpoint does not depend on the number of processes.
    """
    if size() == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    model = synchronized(model)
    return nn.parallel.DistributedDataParallel(
        model, find_unused_parameters=find_unused, broadcast_buffers=False
    )


def synchronized(model: nn.Module) -> nn.Module:
    """The network with its batch norms synchronised, sharing its weights and buffers.

    On a GPU that is torch's ``SyncBatchNorm``, which does not run on a CPU; there it is ``GlobalBatchNorm``.
    """
    if torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if isinstance(model, nn.modules.batchnorm._BatchNorm):
        return GlobalBatchNorm(model)
    for name, child in model.named_children():
        setattr(model, name, synchronized(child))
    return model


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm (Ioffe & Szegedy 2015, algorithm 1) over the global batch, on any device and backend.

    It takes over weights, buffers and settings of a plain batch norm, or of timm's, which has dropout and an
    activation behind it. Every process must hold equally many pictures.

    Raises:
        HandfulError: for another kind of norm.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        plain = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, GlobalBatchNorm)
        if not plain and type(norm).__name__ != "BatchNormAct2d":
            raise HandfulError(
                f"{type(norm).__name__} cannot be synchronised over processes on a CPU",
                fix="train in one process, or choose a network with plain batch norm",
            )
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        for name, child in norm.named_children():  # timm: ``drop`` and ``act``, under their own names
            self.add_module(name, child)
        self.training = norm.training

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, ...] of this process."""
        if self.training and size() > 1:
            out = self._normalize(x)
        else:
            own = self.training or self.running_mean is None
            momentum = self._count() if self.training else 0.0
            out = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, own, momentum, self.eps
            )
        for child in self.children():
            out = child(out)
        return out

    def _normalize(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        over = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        n = x.numel() // x.shape[1] * size()
        mean = _Sum.apply(wide.sum(over)) / n
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(over)) / n
        momentum = self._count()
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), momentum)
            unbiased = variance.detach() * (n / max(n - 1, 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        scale = torch.rsqrt(variance + self.eps)
        out = centred * (scale if self.weight is None else scale * self.weight).view(shape)
        return (out if self.bias is None else out + self.bias.view(shape)).to(x.dtype)

    def _count(self) -> float:
        """Count the batch; the share that it has in the running statistics."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a plain average over all batches
                return 1 / float(self.num_batches_tracked)
        return self.momentum or 0.0

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions is taken."""


class _Sum(torch.autograd.Function):
    """Sum over the processes, forwards and (of the gradient, of its gradient …) backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        out: Tensor = _Sum.apply(grad)
        return out


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside a wrapper (DDP or ``torch.compile``); itself where there is none."""
    inner: Any = model
    while True:
        if isinstance(inner, nn.parallel.DistributedDataParallel):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        else:
            return inner
