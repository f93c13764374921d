"""Meta Pseudo Labels: a teacher that learns from how well its pseudo-labels teach (Pham et al. 2021).

Legend: B labelled pictures, M unlabelled ones (of this process), K classes; z logits, q pseudo-labels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.losses.classify import at_least_float32, cross_entropy
from handful.losses.consistency import pseudo_target
from handful.methods.feedback import Feedback, MovingMean
from handful.types import Batch, State


@dataclass(frozen=True)
class MetaPseudoLabels(Feedback):
    """Each step (Pham et al. 2021, section 2 and algorithm 1), with x, y labelled and u unlabelled pictures:

        pseudo-labels    q = argmax of, or a draw from, or all of  p_T(u)
        student          S' = S - lr grad_S CE(q, S(u))
        feedback         h = CE(y, S(x)) - CE(y, S'(x)),  less its moving average
        teacher          goes down  CE(y, T(x)) + w(t) UDA + feedback_weight * h * CE(q, T(u))

    with the last term exact where the labels are soft (``Feedback``). The student sees no label; some steps on the
    labelled pictures end its training. A ``feedback_weight`` of 0 leaves a UDA teacher that is distilled while it
    learns.

    Attributes:
        uda_weight: final weight of the teacher's consistency term.
        ramp_steps: steps over which that weight grows from 0.
        temperature: sharpens the teacher's target on the weak view.
        threshold: smallest confidence of that sharpened target that is used; above 1 nothing is.
        smoothing: label smoothing of the teacher's labelled term.
        wait: steps that the teacher takes before the student's first.
    """

    uda_weight: float = 8.0
    ramp_steps: int = 5000
    temperature: float = 0.7
    threshold: float = 0.6
    smoothing: float = 0.15
    wait: int = 0

    @property
    def first_whole_step(self) -> int:
        return self.wait

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view, "weak": "weak", "strong": "strong"}

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """A teacher with the student's first weights, and the memory of the feedback's average."""
        return {"teacher": copy.deepcopy(network), "memory": MovingMean(self.baseline_rate)}

    def update(self, state: State, batch: Batch) -> dict[str, Tensor]:
        """One step of the student on the teacher's labels, then one of the teacher."""
        x, y, weak, u = batch["x"], batch["y"], batch["weak"], batch["strong"]
        with state.precision():
            z = state.models["teacher"](torch.cat([x, weak, u])).logits
        z_x, z_weak, z_u = at_least_float32(z).split([len(x), len(u), len(u)])

        supervised = cross_entropy(z_x, y, smoothing=self.smoothing).mean()
        target, mask = pseudo_target(z_weak / self.temperature, hard=False, threshold=self.threshold)
        uda = (mask * cross_entropy(z_u, target)).mean()
        loss = supervised + self.uda_weight_at(state.step) * uda
        scalars = {"supervised": supervised.detach(), "uda": uda.detach(), "used": mask.mean()}

        if state.step >= self.wait:
            student, h, term = self.student_step(state, x, y, u, z_u)
            if self.feedback_weight:
                loss = loss + self.feedback_weight * term
            scalars |= {"student": student, "feedback": h}

        state.optimizers["teacher"].zero_grad(set_to_none=True)
        loss.backward()
        state.advance("teacher")
        total = loss.detach() + scalars.get("student", torch.zeros_like(supervised))
        return {"loss": total, **scalars}

    def uda_weight_at(self, step: int) -> float:
        """w(t): from 0 up to ``uda_weight`` over ``ramp_steps``."""
        return self.uda_weight * (min(1.0, step / self.ramp_steps) if self.ramp_steps else 1.0)
