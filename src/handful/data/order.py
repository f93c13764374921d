"""Which pictures come at which step: a pure function of (seed, stage, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from handful.randomness import permutation


def positions(n: int, batch: int, step: int, *names: object) -> np.ndarray:
    """Positions in 0 … n-1 of global batch number ``step``, int64 [batch].

    The pictures are read in epochs, each in an order of its own, laid end to end: every picture comes equally
    often, and a batch may straddle two epochs (or hold several, where n < batch).
    """
    first = step * batch
    parts = []
    position = first
    while position < first + batch:
        epoch, offset = divmod(position, n)
        take = min(n - offset, first + batch - position)
        parts.append(_epoch(n, *names, epoch)[offset : offset + take])
        position += take
    return np.concatenate(parts)


@lru_cache(maxsize=8)  # a run asks for one order at every step, and sorting 60,000 numbers takes 5 ms
def _epoch(n: int, *names: object) -> np.ndarray:
    return permutation(n, "order", *names)
