"""SoftMatch: less confident pseudo-labels count less, instead of not at all (Chen et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from handful.losses.classify import cross_entropy
from handful.methods.thresholding import Thresholded
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class SoftMatch(Thresholded):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j g(p_j) CE(student(strong(u_j)), argmax p_j),

    p_j the student's prediction on weak(u_j), g a Gaussian of its confidence below the running mean and 1 above it
    (Chen et al. 2023, eq. 1 and 6 to 8).

    Attributes:
        align: g looks at p_j scaled so that all classes are equally frequent (*uniform alignment*, eq. 10); the
            label itself is that of p_j.
        momentum: of the running means.
    """

    align: bool = True
    momentum: float = 0.999

    rule: ClassVar[str] = "gaussian"
    tuned: ClassVar[tuple[str, ...]] = ("momentum",)

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_s, p, memory = self.observed(models, batch)
        trust = memory(memory.align(p, uniform=True) if self.align else p)

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, p.argmax(1))).mean(), used=trust)
