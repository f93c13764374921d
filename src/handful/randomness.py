"""Randomness as a pure function of names: nothing here has a state that a checkpoint could forget.

Layers that draw by themselves, for their first weights or in training (dropout), do so under ``seeded`` or ``Noise``:
torch's default generator belongs to the whole process, in which other threads may draw too.

Every draw is made from a key such as (seed, stage, step, purpose). Draws for a batch are made for the whole
*global* batch and then sliced, so that two processes draw what one would have drawn.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def key(*parts: object) -> int:
    """A 63-bit number from a tuple of names and numbers: the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def digest(*parts: str | np.ndarray | Tensor, size: int = 8) -> str:
    """A hash (BLAKE2b of ``size`` bytes, in hexadecimal) over texts and the bytes of arrays: names what is stored."""
    made = hashlib.blake2b(digest_size=size)
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if isinstance(part, str):
            made.update(part.encode("utf-8", "surrogateescape"))
        else:
            made.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return made.hexdigest()


def generator(*parts: object) -> torch.Generator:
    """A CPU generator for this key (draws are moved to the device afterwards)."""
    return torch.Generator().manual_seed(key(*parts))


def uniform(shape: Sequence[int], *parts: object) -> Tensor:
    """Uniform numbers in [0, 1), float32, of the given shape."""
    return torch.rand(tuple(shape), generator=generator(*parts))


def permutation(n: int, *parts: object) -> np.ndarray:
    """A random order of 0 … n-1 (int64 [n]), stable over machines and library versions.

    It sorts raw 64-bit words of Philox, whose bit stream NumPy guarantees; ``Generator.permutation`` may
    change between versions.
    """
    words = np.random.Philox(key=key(*parts)).random_raw(n)
    return np.argsort(words, kind="stable")


_default = threading.RLock()  # on torch's default generator


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Layers that are made here get first weights that ``number`` decides. One thread at a time; torch's default
    generator is afterwards as it was."""
    with _default, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        yield


TAKES_GENERATOR: frozenset[Any] = frozenset(
    getattr(torch, name)
    for name in ("bernoulli", "multinomial", "normal", "rand", "randint", "randn", "randperm")
) | frozenset(
    getattr(Tensor, name)
    for name in ("bernoulli", "bernoulli_", "multinomial", "normal_", "random_", "uniform_")
)


class Noise(TorchFunctionMode):
    """Inside, what layers draw by themselves (dropout, stochastic depth) is decided by a key: each device has a
    generator that starts from it. Torch's default generator is neither read nor changed, and other threads go on as
    they are.

    Reached are ``F.dropout`` and the functions that take a generator; attention's own dropout and the rarer kinds
    (``F.dropout2d``, ``F.alpha_dropout``) take none and would draw as they always do.
    """

    def __init__(self, *parts: object) -> None:
        super().__init__()
        self.number = key(*parts)
        self.generators: dict[str, torch.Generator] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in TAKES_GENERATOR and kwargs.get("generator") is None:
            of_input = args[0].device if args and isinstance(args[0], Tensor) else None
            device = of_input or torch.device(kwargs.get("device") or "cpu")
            kwargs = {**kwargs, "generator": self._generator(device)}
        return func(*args, **kwargs)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """As torch has it on a processor: each value kept with probability 1 - p, and divided by that."""
        if not training or not 0 < p < 1:
            return F.dropout(input, p, training, inplace)
        kept = torch.empty_like(input).bernoulli_(1 - p, generator=self._generator(input.device)).div_(1 - p)
        return input.mul_(kept) if inplace else input * kept

    def _generator(self, device: torch.device) -> torch.Generator:
        if device.type not in self.generators:  # a process computes on one card at most
            self.generators[device.type] = torch.Generator(device).manual_seed(self.number)
        return self.generators[device.type]
