"""Reduced Meta Pseudo Labels: a stored teacher, and a small network that learns to correct it from the feedback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from handful.losses.classify import at_least_float32, cross_entropy
from handful.methods.feedback import Feedback, MovingMean
from handful.randomness import generator
from handful.types import Batch, State


@dataclass(frozen=True)
class ReducedMetaPseudoLabels(Feedback):
    """Meta Pseudo Labels in the memory of one network (Pham et al. 2021, "Reduced Meta Pseudo Labels"):

        z_u = log p_j + corrector(log p_j),   p_j the stored prediction of a large teacher for picture u_j
        corrector    goes down  anchor * CE(p, z_u) + feedback_weight * h * CE(q, z_u)

    The corrector starts as nothing at all, where the first term is at its minimum: only the feedback moves it, and
    the anchor holds it. With ``feedback_weight`` 0 the student learns the stored predictions.

    Attributes:
        anchor: of the term that keeps the corrected labels near the stored ones. Alone with feedback of size a for
            class k it ends at (anchor p + a e_k) / (anchor + a); below -a it would end nowhere.
        teacher: network whose predictions are stored; "" takes one like the student. It may be larger: it is gone
            when the student learns.
        hidden: units of the corrector's one hidden layer.
    """

    anchor: float = 1.0
    teacher: str = ""
    hidden: int = 64

    needs_teacher: ClassVar[bool] = True

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view, "strong": "strong"}

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The corrector as the teacher, and the memory of the feedback's average."""
        like = next(network.parameters())
        corrector = Corrector(n_classes, self.hidden).to(like.dtype)
        return {"teacher": corrector, "memory": MovingMean(self.baseline_rate)}

    def update(self, state: State, batch: Batch) -> dict[str, Tensor]:
        """One step of the student on the corrected labels, then one of the corrector."""
        log_p = batch["target"].clamp_min(1e-6).log()
        z_u = at_least_float32(state.models["teacher"](log_p))
        student, h, term = self.student_step(state, batch["x"], batch["y"], batch["strong"], z_u)
        if self.feedback_weight:  # else the corrector is at its minimum already
            held = cross_entropy(z_u, batch["target"]).mean()
            state.optimizers["teacher"].zero_grad(set_to_none=True)
            (self.anchor * held + self.feedback_weight * term).backward()
            state.advance("teacher")
        changed = (z_u.argmax(1) != log_p.argmax(1)).double().mean()
        return {"loss": student, "feedback": h, "corrected": changed}


class Corrector(nn.Module):
    """log p [M, K] to logits [M, K]: log p plus what one hidden layer adds, which is 0 at first."""

    def __init__(self, n_classes: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(n_classes, hidden), nn.Linear(hidden, n_classes)
        nn.init.kaiming_normal_(self.first.weight, generator=generator("corrector", n_classes, hidden))
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, log_p: Tensor) -> Tensor:
        added: Tensor = self.last(torch.relu(self.first(log_p)))
        return log_p + added
