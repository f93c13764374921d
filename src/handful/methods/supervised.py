"""Supervised training: cross-entropy on the labelled pictures. The baseline of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from handful.augment.mix import Mixing
from handful.losses.classify import cross_entropy
from handful.methods.base import Objective
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class Supervised(Objective):
    """L = mean_i CE(student(x_i), y_i); where pictures are mixed, x_i and y_i are mixed in the same proportion.

    A network with auxiliary heads (GoogLeNet) adds ``auxiliary_weight`` times the loss of each (Szegedy et al. 2015,
    section 5); they speak in training only.

    Attributes:
        smoothing: label smoothing epsilon (Szegedy et al. 2016, sec. 7).
        view: how the labelled pictures are shown: "plain", "weak", "strong", or as ``augment.named`` has it, such as
            "weak+randaugment:n=2:m=9" or a policy file.
        mix: "none", "mixup", "cutmix", or "both".
        mix_alpha: of the Beta distribution of the proportions.
        mix_chance: share of the pictures that are mixed.
        auxiliary_weight: of the loss of each auxiliary head, where the network has any; 0.3 in the paper.
    """

    smoothing: float = 0.0
    view: str = "strong"
    mix: str = "none"
    mix_alpha: float = 1.0
    mix_chance: float = 1.0
    auxiliary_weight: float = 0.3

    uses_auxiliary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ = self.mixing  # wrong settings are told at once

    @property
    def mixing(self) -> Mixing | None:
        """How labelled pictures are mixed, if they are."""
        return None if self.mix == "none" else Mixing(self.mix, self.mix_alpha, self.mix_chance)

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        out = models["student"](batch["x"])
        loss = cross_entropy(out.logits, batch["y"], smoothing=self.smoothing).mean()
        terms = {"supervised": loss}
        if out.auxiliary:
            each = [cross_entropy(z, batch["y"], smoothing=self.smoothing).mean() for z in out.auxiliary]
            terms["auxiliary"] = torch.stack(each).sum()
            loss = loss + self.auxiliary_weight * terms["auxiliary"]
        return Loss(loss, terms)
