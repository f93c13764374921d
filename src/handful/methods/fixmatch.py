"""FixMatch: a confident answer on a weak view is the label of the strong one (Sohn et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from handful.losses.classify import cross_entropy
from handful.losses.consistency import predictions, sharpen
from handful.methods.three_views import ThreeViews
from handful.methods.thresholding import Thresholding
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class FixMatch(ThreeViews):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j 1[max p_j >= threshold] CE(student(strong(u_j)), q_j),

    p_j the student's prediction on weak(u_j), without gradient; q_j its most probable class, or p_j sharpened
    (Sohn et al. 2020, eq. 3 and 4).

    Attributes:
        threshold: smallest confidence that is used; above 1 nothing is.
        hard: use the most probable class; otherwise the distribution, sharpened by ``temperature``.
        temperature: of soft targets; 1 leaves them as they are.
        align: scale predictions so that the classes are as frequent as among the labelled pictures (Berthelot
            et al. 2020, sec. 3.1).
        momentum: of the running means that alignment needs.
    """

    threshold: float = 0.95
    hard: bool = True
    temperature: float = 1.0
    align: bool = False
    momentum: float = 0.999

    @property
    def least_confidence(self) -> float:
        return self.threshold

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The thresholding object, under ``memory``."""
        return {"memory": Thresholding(n_classes, threshold=self.threshold, momentum=self.momentum)}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        memory: Any = models["memory"]
        z_x, z_w, z_s = self.logits(models["student"], batch)
        p = predictions(z_w)
        memory.observe(p, batch["y"])
        if self.align:
            p = memory.align(p)
        trust = memory(p)
        target = p.argmax(1) if self.hard else sharpen(p, self.temperature)

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, target)).mean(), used=trust)
