"""Pseudo-labels: train on a teacher's (or the model's own) answers for unlabelled pictures (Lee 2013)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handful.losses.classify import cross_entropy
from handful.losses.consistency import pseudo_target
from handful.methods.base import SemiSupervised
from handful.methods.three_views import apart_or_joint
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class PseudoLabel(SemiSupervised):
    """L = mean_i CE(student(x_i), y_i) + w(t) * mean_j 1[max p_j >= threshold] CE(student(u_j), target_j).

    Where the batch holds ``target`` [M, K] (a fixed teacher's stored probabilities) those are the p_j;
    otherwise they are the model's own predictions on the same view, without gradient (Lee 2013, eq. 14-15).

    Attributes:
        threshold: smallest confidence that is used; above 1 nothing is.
        hard: use the most probable class; otherwise the distribution itself.
        ramp_steps: steps over which the weight grows from 0 (Lee 2013, eq. 16).
        unlabelled_view: how the unlabelled pictures are shown.
        joint: one forward pass over labelled and unlabelled pictures together (batch norm sees both).
    """

    threshold: float = 0.8
    hard: bool = True
    ramp_steps: int = 0
    view: str = "strong"
    unlabelled_view: str = "strong"
    joint: bool = True

    @property
    def least_confidence(self) -> float:
        return self.threshold

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view, "strong": self.unlabelled_view}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        student, x, u = models["student"], batch["x"], batch["strong"]
        z_x, z_u = apart_or_joint(student, x, u, joint=self.joint)
        teacher = batch["target"].clamp_min(1e-12).log() if "target" in batch else z_u
        target, mask = pseudo_target(teacher, hard=self.hard, threshold=self.threshold)

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        unlabelled = (mask * cross_entropy(z_u, target)).mean()
        w = self.weight * min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else self.weight
        terms = {"supervised": supervised, "unlabelled": unlabelled, "used": mask.mean()}
        return Loss(supervised + w * unlabelled, terms)
