"""When an answer is "none of these": a threshold on the confidence, set without a test label.

It is the split-conformal quantile of the confidences of held-out labelled pictures that were classified right (Vovk,
Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005, section 2.2; Lei et al. 2018, algorithm 2).
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

LOSS = 0.05  # of the right answers that may be given up

RULE = (
    f"The threshold is the largest confidence that at most {100 * LOSS:.0f} in 100 right answers are expected to fall "
    "below, going by labelled pictures that were held out. No picture of another kind was seen: how many of those it "
    "catches is not known."
)


def threshold(logits: Tensor | None, truth: Tensor | None, temperature: float) -> dict[str, Any]:
    """The threshold, the number of right held-out answers it rests on, and the rule in words.

    With the ``floor(LOSS (n + 1))``-th smallest of n confidences, a new right answer, if exchangeable with them, falls
    below with a probability of at most LOSS. Under 19 right answers there is no such one, and nothing is rejected; nor
    is it where no answer can fall below the threshold.

    Args:
        logits: of held-out labelled pictures [n, K], before the temperature; None where there are none.
        truth: their classes [n].
    """
    if logits is None or truth is None:
        return {"threshold": 0.0, "right_answers": 0, "rule": RULE}
    p, guess = (logits / temperature).softmax(1).max(1)
    right = p[guess == truth].double().sort().values
    rank = int(LOSS * (len(right) + 1) + 1e-9)
    value = math.floor(float(right[rank - 1]) * 1e6) / 1e6 if rank else 0.0
    return {
        "threshold": value if value > 1 / logits.shape[1] else 0.0,
        "right_answers": len(right),
        "rule": RULE,
    }
