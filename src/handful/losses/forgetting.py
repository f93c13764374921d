"""What keeps a network's old answers while it learns new classes.

Legend: B pictures, O old classes; ``logits`` [B, O].
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.losses.classify import at_least_float32, cross_entropy


def old_task_loss(recorded: Tensor, logits: Tensor, temperature: float = 2.0) -> Tensor:
    """-sum_o y'_o log yhat'_o per picture, without a factor T^2 (Li & Hoiem 2018, "Learning without Forgetting", eq. 2
    and 3).

    y' and yhat' are the recorded and the present probabilities to the power 1/T, scaled to sum 1. Since
    p = softmax(z), p^(1/T) so scaled is softmax(z / T). At T = 1 this is the cross-entropy with the recorded
    probabilities as target.

    Args:
        recorded: logits of the old network [B, O]; no gradient flows into them.
        logits: of the network that trains, for the old classes [B, O].
        temperature: T; above 1 small probabilities count more.

    Returns:
        [B], at least float32.
    """
    wanted = torch.softmax(at_least_float32(recorded.detach()) / temperature, dim=1)
    return cross_entropy(at_least_float32(logits) / temperature, wanted)
