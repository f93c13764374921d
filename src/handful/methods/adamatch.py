"""AdaMatch: a threshold relative to the labelled pictures' confidence, aligned answers (Berthelot et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from handful.losses.classify import cross_entropy
from handful.losses.consistency import predictions
from handful.methods.three_views import ThreeViews
from handful.methods.thresholding import Thresholding
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class AdaMatch(ThreeViews):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j 1[max p_j >= c] CE(student(strong(u_j)), argmax p_j),

    p_j the student's prediction on weak(u_j), aligned to the labelled pictures' class frequencies; c = threshold *
    the mean confidence on the labelled pictures (Berthelot et al. 2022, sec. 3.2 and 3.3).

    Attributes:
        threshold: relative to the confidence on labelled pictures; above K nothing passes.
        momentum: of the running means that alignment needs.
    """

    threshold: float = 0.9
    momentum: float = 0.999

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The thresholding object, under ``memory``."""
        memory = Thresholding(n_classes, rule="relative", threshold=self.threshold, momentum=self.momentum)
        return {"memory": memory}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        memory: Any = models["memory"]
        z_x, z_w, z_s = self.logits(models["student"], batch)
        p = predictions(z_w)
        memory.observe(p, batch["y"])
        p = memory.align(p)
        trust = memory(p, labelled=predictions(z_x))

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, p.argmax(1))).mean(), used=trust)
