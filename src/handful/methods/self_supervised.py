"""What the self-supervised methods share: a task that the pictures set themselves, beside the labels or alone.

Legend: B labelled pictures, M unlabelled ones, D features, V views or tiles of a picture.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from handful import parallel
from handful.losses.classify import cross_entropy
from handful.methods.base import SemiSupervised
from handful.models.norms import statistics_kept
from handful.randomness import generator
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class SelfSupervised(SemiSupervised):
    """L = mean_i CE(student(x_i), y_i) + weight * L_self(unlabelled); with ``alone`` just L_self.

    A method of the family gives ``shown`` (views of the unlabelled pictures), ``own`` (L_self), and ``answers``, the
    form of the role ``projector``: a small network on the student's features, which is thrown away at the end.

    Attributes:
        alone: no labels at all: a start for other methods.
        hidden: units of the projector's hidden layer.
    """

    view: str = "strong"
    alone: bool = False
    hidden: int = 256

    parts: ClassVar[bool] = False  # whether the network is shown parts of pictures, enlarged

    @property
    def trains(self) -> tuple[str, ...]:
        return ("student", "projector")

    @property
    @abstractmethod
    def shown(self) -> Mapping[str, str]:
        """Views of the unlabelled pictures, by name."""

    @property
    @abstractmethod
    def copies(self) -> int:
        """V: how often each unlabelled picture goes through the network."""

    @property
    @abstractmethod
    def answers(self) -> tuple[int, int]:
        """Of how many copies of a picture the projector sees the features at once, and how wide its answer is."""

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The projector, in the student's number format."""
        copies, width = self.answers
        projector = Projector(copies * int(network.dim), self.hidden, width)  # type: ignore[arg-type]
        return {"projector": projector.to(next(network.parameters()).dtype)}

    @abstractmethod
    def own(self, models: Models, batch: Batch) -> Tensor:
        """L_self, a scalar."""

    @property
    def views(self) -> Mapping[str, str]:
        return self.shown if self.alone else {"x": self.view, **self.shown}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        if self.alone:
            own = self.own(models, batch)
            return Loss(own, {"unlabelled": own})
        logits = models["student"](batch["x"]).logits
        supervised = cross_entropy(logits, batch["y"], smoothing=self.smoothing).mean()
        # running statistics are for whole pictures, which is what the network will be asked about
        with statistics_kept(models["student"]) if self.parts else nullcontext():
            own = self.own(models, batch)
        return Loss(supervised + self.weight * own, {"supervised": supervised, "unlabelled": own})


class Projector(nn.Module):
    """Features [M, I] to [M, O] over one hidden layer; its first weights are the same for everybody."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        for i, layer in enumerate((self.first, self.last)):
            drawn = generator("projector", inputs, hidden, outputs, i)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=drawn)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.first(features)))
        return out


def draws(batch: Batch, n: int, *shape: int) -> Tensor:
    """Uniform numbers [n, *shape] for this process's n pictures, drawn for the global batch."""
    everyone = n * parallel.size()
    drawn = torch.rand(everyone, *shape, generator=torch.Generator().manual_seed(int(batch["draw"])))
    return drawn[parallel.rows(everyone)]
