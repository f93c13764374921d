"""SimCLR: two views of a picture shall lie near each other and far from all others (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.losses.nt_xent import nt_xent
from handful.methods.self_supervised import Projector, SelfSupervised, like
from handful.types import Batch, Models, UsageError


@dataclass(frozen=True)
class SimCLR(SelfSupervised):
    """L_self = NT-Xent(projector(student(first(u))), projector(student(second(u)))), over the global batch (Chen et al.
    2020, eq. 1).

    Attributes:
        temperature: of the cosines; smaller looks at the nearest wrong pictures only.
        hidden: units of the projector's hidden layer.
        dim: width of what is compared.
        unlabelled_view: how an unlabelled picture is shown, twice, with draws of its own each time.
    """

    temperature: float = 0.5
    hidden: int = 256
    dim: int = 64
    unlabelled_view: str = "weak+resized-crop:smallest=0.2+jitter"

    copies = 2

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UsageError("--method.temperature must be above 0")

    @property
    def shown(self) -> Mapping[str, str]:
        return {"first": self.unlabelled_view, "second": self.unlabelled_view}

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The projection head, under ``projector``."""
        return like(network, Projector(int(network.dim), self.hidden, self.dim))  # type: ignore[arg-type]

    def own(self, models: Models, batch: Batch) -> Tensor:
        views = torch.cat([batch["first"], batch["second"]])
        z = models["projector"](models["student"](views).features)
        return nt_xent(z.unflatten(0, (2, -1)), self.temperature)
