"""UDA: the sharpened prediction on a weak view is the target of the strong one (Xie et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful import parallel
from handful.losses.classify import cross_entropy
from handful.losses.consistency import predictions, sharpen, signal_annealing
from handful.methods.thresholding import Thresholded
from handful.types import Batch, Loss, Models, UsageError


@dataclass(frozen=True)
class UDA(Thresholded):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j 1[max p_j >= threshold] CE(student(strong(u_j)), q_j),

    q_j = p_j sharpened by ``temperature``, p_j the student's prediction on weak(u_j), without gradient (Xie et al.
    2020, eq. 1 and sec. 3.2). With *training-signal annealing* the first mean runs over the labelled pictures
    whose own class is still less probable than eta(step) (sec. 3.1).

    Attributes:
        threshold: smallest confidence that is used; above 1 nothing is.
        temperature: of the targets; 1 leaves them as they are.
        align: scale predictions so that the classes are as frequent as among the labelled pictures (Berthelot
            et al. 2020, sec. 3.1).
        annealing: how eta grows from 1/K to 1: "linear", "log", "exp" (for few labels), or "" for no annealing.
        annealing_steps: steps until eta is 1.
    """

    threshold: float = 0.8
    temperature: float = 0.4
    align: bool = False
    annealing: str = ""
    annealing_steps: int = 300

    tuned: ClassVar[tuple[str, ...]] = ("threshold",)

    def __post_init__(self) -> None:
        if self.annealing not in ("", "linear", "log", "exp"):
            raise UsageError(f"there is no annealing '{self.annealing}'", fix="linear, log, exp or none")

    @property
    def least_confidence(self) -> float:
        return self.threshold

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        z_x, z_s, p, memory = self.observed(models, batch)
        if self.align:
            p = memory.align(p)
        trust = memory(p)
        unlabelled = (trust * cross_entropy(z_s, sharpen(p, self.temperature))).mean()
        return self.total(self.supervised(z_x, batch["y"], step), unlabelled, used=trust)

    def supervised(self, z_x: Tensor, y: Tensor, step: int) -> Tensor:
        """The labelled term: the mean over those pictures of the global batch that still teach something."""
        loss = cross_entropy(z_x, y, smoothing=self.smoothing)
        if not self.annealing:
            return loss.mean()
        eta = signal_annealing(step, self.annealing_steps, z_x.shape[1], self.annealing)
        own = predictions(z_x).gather(1, y.unsqueeze(1)).squeeze(1)
        teaches = (own < eta).to(loss.dtype)
        count = parallel.mean(teaches.sum())  # the gradient is averaged over processes, too
        return (teaches * loss).sum() / torch.clamp(count, min=1 / parallel.size())
