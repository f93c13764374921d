"""Supervised training: cross-entropy on the labelled pictures. The baseline of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handful.losses.classify import cross_entropy
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class Supervised:
    """L = mean_i CE(student(x_i), y_i).

    Attributes:
        smoothing: label smoothing epsilon (Szegedy et al. 2016, sec. 7).
        view: how the labelled pictures are shown: "plain", "weak" or "strong".
    """

    smoothing: float = 0.0
    view: str = "strong"

    uses_unlabelled = False
    needs_teacher = False

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        logits = models["student"](batch["x"]).logits
        loss = cross_entropy(logits, batch["y"], smoothing=self.smoothing).mean()
        return Loss(loss, {"supervised": loss.detach()})
