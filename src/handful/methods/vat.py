"""VAT: the answer shall not change in the direction in which it changes most (Miyato et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from handful import parallel
from handful.losses.classify import cross_entropy, entropy
from handful.losses.consistency import divergence, predictions
from handful.methods.base import SemiSupervised
from handful.methods.three_views import apart_or_joint
from handful.models.norms import statistics_kept
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class VAT(SemiSupervised):
    """L = mean_i CE(student(x_i), y_i) + weight * mean_j KL(p_j || student(u_j + r_j)) + entropy * mean_j H(p_j),

    p_j the student's prediction on u_j, without gradient in the second term; r_j of length ``radius`` in the
    direction found by power iteration (Miyato et al. 2018, eq. 5 and algorithm 1; the third term: eq. 17).

    Attributes:
        entropy: weight of entropy minimisation.
        radius: length of r_j for each pixel, as a root mean square: pixels run from -1 to 1, so 0.1 is a twentieth
            of their range. (The paper's epsilon is radius times the square root of the number of values.)
        probe: root mean square of the step that the direction is found with (the paper's xi).
        iterations: of the power iteration.
        unlabelled_view: how the unlabelled pictures are shown.
        joint: one forward pass over labelled and unlabelled pictures together.
    """

    entropy: float = 0.1
    radius: float = 0.1
    probe: float = 0.01
    iterations: int = 1
    unlabelled_view: str = "weak"
    joint: bool = True

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view, "weak": self.unlabelled_view}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        student, x, u = models["student"], batch["x"], batch["weak"]
        z_x, z_u = apart_or_joint(student, x, u, joint=self.joint)
        p = predictions(z_u)

        def answer(moved: Tensor, network: nn.Module) -> Tensor:
            shown = torch.cat([x, moved]) if self.joint else moved  # in the same batch as in the first pass
            with statistics_kept(network):
                z: Tensor = network(shown).logits[-len(moved) :]
            return z

        r = self.direction(partial(answer, network=parallel.unwrap(student)), u, p, batch["draw"])
        supervised = cross_entropy(z_x, batch["y"], smoothing=self.smoothing).mean()
        adversarial = divergence(p, answer(u + r, student)).mean()
        unsure = entropy(z_u).mean()
        total = supervised + self.weight * adversarial + self.entropy * unsure
        return Loss(total, {"supervised": supervised, "unlabelled": adversarial, "entropy": unsure})

    def direction(self, answer: Callable[[Tensor], Tensor], u: Tensor, p: Tensor, draw: Tensor) -> Tensor:
        """r, of the shape of u: power iteration from a random direction, drawn for the global batch; ``answer`` takes
        pictures to logits."""
        everyone = (len(u) * parallel.size(), *u.shape[1:])
        start = torch.randn(everyone, generator=torch.Generator().manual_seed(int(draw)))
        d = _unit(start[parallel.rows(len(start))].to(u))
        for _ in range(self.iterations):
            r = (self.probe * d).requires_grad_(True)
            # in half precision the difference of so near predictions would be rounding
            with torch.enable_grad(), torch.autocast(u.device.type, enabled=False):
                (gradient,) = torch.autograd.grad(divergence(p, answer(u + r)).sum(), r)
            d = _unit(gradient)
        return self.radius * d


def _unit(d: Tensor) -> Tensor:
    """Each picture (or row of features) scaled to a root mean square of 1: [B, …]."""
    scale = d.square().mean(tuple(range(1, d.dim())), keepdim=True).sqrt()
    return d / scale.clamp_min(torch.finfo(d.dtype).tiny)
