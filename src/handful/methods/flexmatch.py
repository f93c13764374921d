"""FlexMatch: a lower threshold for classes that are learnt slowly (Zhang et al. 2021)."""

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
class FlexMatch(ThreeViews):
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

    @property
    def least_confidence(self) -> float:
        return self.threshold

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The thresholding object, under ``memory``: it remembers a class for each unlabelled picture."""
        return {"memory": Thresholding(n_classes, unlabelled, rule="learnt", threshold=self.threshold)}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        memory: Any = models["memory"]
        z_x, z_w, z_s = self.logits(models["student"], batch)
        p = predictions(z_w)
        memory.observe(p, batch["y"])
        if self.align:
            p = memory.align(p)
        trust = memory(p, index=batch["u_index"])

        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        return self.total(supervised, (trust * cross_entropy(z_s, p.argmax(1))).mean(), used=trust)
