"""Randomness as a pure function of names: nothing here has a state that a checkpoint could forget.

Every draw is made from a key such as (seed, stage, step, purpose). Draws for a batch are made for the whole
*global* batch and then sliced, so that two processes draw what one would have drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


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
