"""AdaMatch: a threshold relative to the labelled pictures' confidence, aligned answers (Berthelot et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from handful.losses.classify import cross_entropy
from handful.losses.consistency import predictions
from handful.methods.thresholding import Thresholded
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class AdaMatch(Thresholded):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j 1[max p_j >= c] CE(student(strong(u_j)), argmax p_j),

    p_j the student's prediction on weak(u_j), aligned to the labelled pictures' class frequencies; c = threshold *
    the mean confidence on the labelled pictures (Berthelot et al. 2022, sec. 3.2 and 3.3).

    Attributes:
        threshold: relative to the confidence on labelled pictures; above K nothing passes.
        momentum: of the running means that alignment needs.
    """

    threshold: float = 0.9
    momentum: float = 0.999

    rule: ClassVar[str] = "relative"
    tuned: ClassVar[tuple[str, ...]] = ("threshold", "momentum")

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_s, p, memory = self.observed(models, batch)
        p = memory.align(p)
        trust = memory(p, labelled=predictions(z_x))

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, p.argmax(1))).mean(), used=trust)
