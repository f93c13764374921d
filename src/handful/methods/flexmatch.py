"""FlexMatch: a lower threshold for classes that are learnt slowly (Zhang et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from handful.losses.classify import cross_entropy
from handful.methods.thresholding import Thresholded
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class FlexMatch(Thresholded):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j 1[max p_j >= T_k] CE(student(strong(u_j)), k),

    k the most probable class of p_j on weak(u_j); T_k = threshold * s_k / (2 - s_k), s_k the share of pictures that
    are confidently in class k, relative to the fullest class (Zhang et al. 2021, eq. 5 to 12).

    Attributes:
        threshold: of a class that is fully learnt; also what makes a picture count as confidently in its class.
        align: scale predictions so that the classes are as frequent as among the labelled pictures (Berthelot
            et al. 2020, sec. 3.1).
    """

    threshold: float = 0.95
    align: bool = False

    rule: ClassVar[str] = "learnt"
    tuned: ClassVar[tuple[str, ...]] = ("threshold",)

    @property
    def least_confidence(self) -> float:
        return self.threshold

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_s, p, memory = self.observed(models, batch)
        if self.align:
            p = memory.align(p)
        trust = memory(p, index=batch["u_index"])

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, p.argmax(1))).mean(), used=trust)
