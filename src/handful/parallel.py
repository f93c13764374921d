"""How many processes there are, and what that means. No other file knows.

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


def start(backend: str | None = None) -> None:
    """Join the group that ``torchrun`` describes in the environment; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
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


def first_says(x: float) -> float:
    """The first process's number, in every process: for decisions that are measured."""
    if size() == 1:
        return x
    told = torch.tensor([x], dtype=torch.float64)
    dist.broadcast(told, 0)
    return float(told)


def barrier() -> None:
    """Wait until every process has come here."""
    if size() > 1:
        dist.barrier()


def wrap(model: nn.Module, *, find_unused: bool = False) -> nn.Module:
    """A network that trains, wrapped so that its gradients are averaged over the processes.

    Batch norm becomes synchronised: its statistics, too, are those of the global batch.
    """
    if size() == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if torch.cuda.is_available() else model
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=find_unused)


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
