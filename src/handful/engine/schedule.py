"""Learning rates as pure functions of the step: factors in [0, 1] on each group's base rate."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(steps: int, warmup: int = 0, turns: float = 0.5) -> Callable[[int], float]:
    """Linear warm-up over ``warmup`` steps, then cos(turns * pi * t), t from 0 to 1.

    ``turns=0.5`` ends at 0; 7/16 is the slower decay of FixMatch (Sohn et al. 2020, sec. 2.3).
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        t = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return max(math.cos(turns * math.pi * t), 0.0)

    return factor
