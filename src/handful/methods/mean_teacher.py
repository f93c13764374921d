"""Mean Teacher: the answer of the weights' moving average is the target (Tarvainen & Valpola 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.losses.classify import cross_entropy
from handful.losses.consistency import predictions, ramp_up, squared_difference
from handful.methods.three_views import ThreeViews, apart_or_joint
from handful.models.ema import EMA
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class MeanTeacher(ThreeViews):
    """L = mean_i CE(student(x_i), y_i) + weight * w(step) * mean_j |softmax student(u_j'') - p_j'|^2 / K,

    p_j' the prediction of the teacher, whose weights are a moving average of the student's, on another view of u_j;
    w(t) = exp(-5 (1 - t)^2) (Tarvainen & Valpola 2017, sec. 2). Both views are weak unless told otherwise.

    Attributes:
        decay: of the teacher's moving average.
        ramp_steps: steps over which w grows to 1.
    """

    weight: float = 50.0
    strong_view: str = "weak"
    decay: float = 0.99
    ramp_steps: int = 200

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The teacher: an ``EMA``, which follows the student after every step."""
        return {"teacher": EMA(network, self.decay)}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        with torch.no_grad():
            p = predictions(models["teacher"](batch["weak"]).logits)
        z_x, z_s = apart_or_joint(models["student"], batch["x"], batch["strong"], joint=self.passes < 3)
        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        unlabelled = squared_difference(z_s, p).mean()
        grown = ramp_up(step, self.ramp_steps)
        return self.total(supervised, grown * unlabelled, used=torch.ones_like(z_s[:, 0]))
