"""MixMatch: guessed labels, and mixtures of labelled and unlabelled pictures (Berthelot et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from handful import parallel
from handful.losses.classify import cross_entropy
from handful.losses.consistency import mix, predictions, sharpen, squared_difference
from handful.methods.base import SemiSupervised
from handful.methods.three_views import apart_or_joint
from handful.randomness import permutation
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class MixMatch(SemiSupervised):
    """L = mean_i CE(student(x_i'), y_i') + weight * w(step) * mean_j |softmax student(u_j') - q_j'|^2 / K,

    q_j the student's mean prediction on two views of u_j, sharpened; (x', y') and (u', q') are (x, y) and (u, q)
    mixed with partners drawn from both (Berthelot et al. 2019, eq. 2 to 12): share s ~ Beta(alpha, alpha), the
    larger of s and 1 - s for the picture itself.

    Attributes:
        ramp_steps: steps over which w, and so the weight, grows linearly from 0.
        temperature: of the sharpening.
        alpha: of the Beta distribution; 0 mixes nothing.
        unlabelled_view: how the unlabelled pictures are shown, twice.
        joint: one forward pass over all mixtures together.
    """

    weight: float = 75.0
    ramp_steps: int = 1000
    temperature: float = 0.5
    alpha: float = 0.75
    unlabelled_view: str = "weak"
    joint: bool = True

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view, "weak": self.unlabelled_view, "weak_2": self.unlabelled_view}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        student, x, u = models["student"], batch["x"], torch.cat([batch["weak"], batch["weak_2"]])
        with torch.no_grad():
            p = predictions(student(u).logits)
        first, second = p.chunk(2)
        q = sharpen((first + second) / 2, self.temperature).repeat(2, 1)
        y = F.one_hot(batch["y"], p.shape[1]).to(p.dtype)

        x, y, u, q = self.mixed(x, y, u, q, int(batch["draw"]))
        z_x, z_u = apart_or_joint(student, x, u, joint=self.joint)
        supervised = cross_entropy(z_x, y, smoothing=self.smoothing).mean()
        unlabelled = squared_difference(z_u, q).mean()
        grown = min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else 1.0
        total = supervised + self.weight * grown * unlabelled
        return Loss(total, {"supervised": supervised, "unlabelled": unlabelled})

    def mixed(
        self, x: Tensor, y: Tensor, u: Tensor, q: Tensor, draw: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This process's pictures and targets, mixed with partners from the global batch: labelled pictures first,
        then the unlabelled ones' first and second views."""
        if self.alpha == 0:
            return x, y, u, q
        ours = [(x, y), *zip(u.chunk(2), q.chunk(2), strict=True)]
        everyone = [(parallel.gather(a), parallel.gather(b)) for a, b in ours]
        pictures, targets = (torch.cat(parts) for parts in zip(*everyone, strict=True))
        n = len(pictures)
        partner = torch.from_numpy(permutation(n, draw, "partners")).to(x.device)
        share = torch.from_numpy(np.random.RandomState(draw % 2**32).beta(self.alpha, self.alpha, n)).to(x)
        share = torch.maximum(share, 1 - share)
        done, first = [], 0
        for (a, b), (every_a, _) in zip(ours, everyone, strict=True):
            here = torch.arange(first, first + len(every_a), device=x.device)[parallel.rows(len(every_a))]
            other, part = partner[here], share[here]
            done.append((mix(a, pictures[other], part), mix(b, targets[other], part)))
            first += len(every_a)
        (x, y), *rest = done
        return x, y, torch.cat([a for a, _ in rest]), torch.cat([b for _, b in rest])
