"""SimCLR: two views of a picture shall lie near each other and far from all others (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from handful.losses.nt_xent import nt_xent
from handful.methods.self_supervised import SelfSupervised
from handful.types import Batch, Models, UsageError


@dataclass(frozen=True)
class Contrast(SelfSupervised):
    """The methods in which projections of pictures are compared by NT-Xent.

    Attributes:
        temperature: of the cosines; smaller looks at the nearest wrong pictures only.
        dim: width of what is compared.
    """

    temperature: float = 0.5
    dim: int = 64

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UsageError("--method.temperature must be above 0")

    @property
    def answers(self) -> tuple[int, int]:
        return 1, self.dim


@dataclass(frozen=True)
class SimCLR(Contrast):
    """L_self = NT-Xent(projector(student(first(u))), projector(student(second(u)))), over the global batch (Chen et al.
    2020, eq. 1).

    Attributes:
        unlabelled_view: how an unlabelled picture is shown, twice, with draws of its own each time.
    """

    unlabelled_view: str = "weak+resized-crop:smallest=0.2+jitter"

    copies = 2

    @property
    def shown(self) -> Mapping[str, str]:
        return {"first": self.unlabelled_view, "second": self.unlabelled_view}

    def own(self, models: Models, batch: Batch) -> Tensor:
        views = torch.cat([batch["first"], batch["second"]])
        z = models["projector"](models["student"](views).features)
        return nt_xent(z.unflatten(0, (2, -1)), self.temperature)
