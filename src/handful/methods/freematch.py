"""FreeMatch: thresholds that follow the model's own confidence, and a term for diverse answers (Wang et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from handful.losses.classify import at_least_float32, cross_entropy
from handful.losses.consistency import fairness
from handful.methods.thresholding import Thresholded
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class FreeMatch(Thresholded):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j 1[max p_j >= T_k] CE(student(strong(u_j)), k) + fair * L_f,

    k the most probable class of p_j on weak(u_j); T_k = the running mean confidence, times how probable class k is on
    average relative to the most probable class; L_f wants answers on strong views as diverse as those on weak ones
    (Wang et al. 2023, eq. 5 to 12).

    Attributes:
        fair: weight of L_f.
        momentum: of the running means.
    """

    fair: float = 0.01
    momentum: float = 0.999

    rule: ClassVar[str] = "adaptive"
    tuned: ClassVar[tuple[str, ...]] = ("momentum",)

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_s, p, memory = self.observed(models, batch)
        trust = memory(p)
        p_s = at_least_float32(z_s).softmax(1)

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        unlabelled = (trust * cross_entropy(z_s, p.argmax(1))).mean()
        diverse = self.fair * fairness(p_s, trust, memory.found, memory.histogram)
        return self.total(supervised, unlabelled, used=trust, fairness=diverse)
