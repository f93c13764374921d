"""Pi-model: two views of a picture shall get the same answer (Laine & Aila 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from handful.losses.classify import cross_entropy
from handful.losses.consistency import predictions, ramp_up, squared_difference
from handful.methods.three_views import ThreeViews
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class PiModel(ThreeViews):
    """L = mean_i CE(student(x_i), y_i) + weight * w(step) * mean_j |softmax student(u_j'') - p_j'|^2 / K,

    p_j' the student's prediction on another view of u_j, without gradient; w(t) = exp(-5 (1 - t)^2) (Laine & Aila
    2017, algorithm 1). Both views are weak unless told otherwise.

    Attributes:
        ramp_steps: steps over which w grows to 1.
    """

    weight: float = 10.0
    strong_view: str = "weak"
    ramp_steps: int = 200

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_w, z_s = self.logits(models["student"], batch)
        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        unlabelled = squared_difference(z_s, predictions(z_w)).mean()
        grown = ramp_up(step, self.ramp_steps)
        return self.total(supervised, grown * unlabelled, used=torch.ones_like(z_s[:, 0]))
