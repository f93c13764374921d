"""FixMatch: a confident answer on a weak view is the label of the strong one (Sohn et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from handful.losses.classify import cross_entropy
from handful.losses.consistency import sharpen
from handful.methods.thresholding import Thresholded
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class FixMatch(Thresholded):
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

    tuned: ClassVar[tuple[str, ...]] = ("threshold", "momentum")

    @property
    def least_confidence(self) -> float:
        return self.threshold

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_s, p, memory = self.observed(models, batch)
        if self.align:
            p = memory.align(p)
        trust = memory(p)
        target = p.argmax(1) if self.hard else sharpen(p, self.temperature)

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, target)).mean(), used=trust)
