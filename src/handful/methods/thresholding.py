"""Which pseudo-labels to trust: one object for the whole family, which remembers what it has to.

Legend: B pictures of this process's batch, K classes, t updates so far; ``p`` [B, K] probabilities without
gradient, c = max_k p_k their confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful import parallel
from handful.losses.consistency import align, predictions
from handful.methods.three_views import ThreeViews
from handful.types import Batch, Models

RULES = ("fixed", "relative", "learnt", "adaptive", "gaussian")


class Thresholding(nn.Module):
    """Weights in [0, 1] for pseudo-labels; a module under the role ``memory``, so that a checkpoint holds it.

    ``observe`` takes up how often the classes come; the call gives the weights, by ``rule``:

    - "fixed": 1 where c >= threshold (FixMatch, UDA).
    - "relative": 1 where c >= threshold * mean c of the labelled pictures (Berthelot et al. 2022, "AdaMatch", eq. 3).
    - "learnt": 1 where c >= threshold * s / (2 - s), with s the *learning status* of the class: how many unlabelled
      pictures are confidently in it, relative to the fullest class or to those in none (Zhang et al. 2021,
      "FlexMatch", eq. 5 to 11).
    - "adaptive": 1 where c >= mean c * found_k / max found (Wang et al. 2023, "FreeMatch", eq. 5 to 8).
    - "gaussian": exp(-(c - mean)^2 / (2 (deviation / 2)^2)) below the mean confidence, 1 above it (Chen et al.
      2023, "SoftMatch", eq. 6 to 8).

    Every running mean is a <- d a + (1 - d) mean over the *global* batch, with d = min(momentum, (1 + t) /
    (10 + t)): a run of a few hundred steps must not be ruled by what the mean started from.

    Args:
        n_classes: K.
        unlabelled: int64 [m], row numbers of the unlabelled pictures; only "learnt" remembers each.
        threshold: above 1 (or, for "relative", above K) nothing passes, except by "learnt", where a class in which
            nothing is confident has threshold 0; "adaptive" and "gaussian" have none.
        momentum: of the running means.

    Attributes:
        found: running mean of p over unlabelled pictures, [K]; ``histogram``: of their most probable classes.
        wanted: running frequency of the classes among labelled pictures, [K].
        level, variance: running mean and variance of c over unlabelled pictures.
        confident: for each row the class it was last confidently in, -1 where it never was, -2 for rows that are not
            unlabelled.
        t: updates so far.
    """

    found: Tensor
    histogram: Tensor
    wanted: Tensor
    level: Tensor
    variance: Tensor
    confident: Tensor
    t: Tensor

    def __init__(
        self,
        n_classes: int,
        unlabelled: Tensor | None = None,
        *,
        rule: str = "fixed",
        threshold: float = 0.95,
        momentum: float = 0.999,
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"there is no rule '{rule}'; known: {', '.join(RULES)}")
        self.rule, self.threshold, self.momentum = rule, threshold, momentum
        uniform = torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
        for name in ("found", "histogram", "wanted"):
            self.register_buffer(name, uniform.clone())
        self.register_buffer("level", uniform[0].clone())
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))
        confident = torch.empty(0, dtype=torch.int64)
        if rule == "learnt":
            if unlabelled is None:
                raise ValueError("the rule 'learnt' needs the unlabelled pictures' row numbers")
            confident = torch.full((int(unlabelled.max()) + 1,), -2)
            confident[unlabelled] = -1
        self.register_buffer("confident", confident)
        self.register_buffer("t", torch.zeros((), dtype=torch.int64))

    def observe(self, p: Tensor, y: Tensor) -> None:
        """Take up predictions p [B, K] on unlabelled pictures and the labels y int64 [n] beside them."""
        n_classes = p.shape[1]
        self._follow(self.found, p.double().mean(0))
        self._follow(self.histogram, torch.bincount(p.argmax(1), minlength=n_classes).double() / len(p))
        self._follow(self.wanted, torch.bincount(y, minlength=n_classes).double() / len(y))

    def align(self, p: Tensor, *, uniform: bool = False) -> Tensor:
        """p [B, K] with the classes as frequent as among the labelled pictures, or all equally frequent."""
        wanted = torch.full_like(self.wanted, 1 / p.shape[1]) if uniform else self.wanted
        return align(p, wanted.to(p.dtype), self.found.to(p.dtype))

    def forward(self, p: Tensor, *, labelled: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """Weights [B] of the pseudo-labels of p [B, K]; counts as one update.

        Args:
            labelled: probabilities [n, K] of the labelled pictures, for "relative".
            index: row numbers [B], for "learnt".
        """
        c, label = p.max(1)
        if self.rule == "gaussian":
            weight = self._gaussian(c)
        else:
            weight = (c >= self._thresholds(p, c, label, labelled)).to(p.dtype)
        if self.rule == "learnt":
            assert index is not None
            self._record(c, label, index)
        self.t += 1
        return weight

    def status(self) -> Tensor:
        """Learning status of each class in [0, 1], float64 [K]: FlexMatch, eq. 6 and 11."""
        n_classes = len(self.found)
        count = torch.bincount(self.confident + 2, minlength=n_classes + 2).double()
        return count[2:] / torch.maximum(count[2:].max(), count[1]).clamp_min(1)

    def _thresholds(self, p: Tensor, c: Tensor, label: Tensor, labelled: Tensor | None) -> Tensor | float:
        if self.rule == "relative":
            assert labelled is not None
            return self.threshold * parallel.mean(labelled.amax(1).mean())
        if self.rule == "learnt":
            s = self.status().to(p.dtype)[label]
            return self.threshold * s / (2 - s)
        if self.rule == "adaptive":
            self._follow(self.level, c.double().mean())
            return (self.level * self.found / self.found.max()).to(p.dtype)[label]
        return self.threshold

    def _gaussian(self, c: Tensor) -> Tensor:
        wide = c.double()
        n = len(c) * parallel.size()
        mean = parallel.mean(wide.mean())
        self._follow(self.variance, (wide - mean).square().mean() * (n / max(n - 1, 1)))
        self._follow(self.level, mean)
        below = (wide - self.level).clamp_max(0)
        return torch.exp(-below.square() / (2 * self.variance / 4)).to(c.dtype)

    def _record(self, c: Tensor, label: Tensor, index: Tensor) -> None:
        """Remember the classes of confident pictures; of several views of one picture, the largest class number."""
        sure = torch.where(c >= self.threshold, label, -1)
        index, sure = parallel.gather(index.to(label.device)), parallel.gather(sure)
        now = torch.full_like(self.confident, -1).scatter_reduce(0, index, sure, "amax")
        self.confident.copy_(torch.where(now >= 0, now, self.confident))

    def _follow(self, running: Tensor, of_batch: Tensor) -> None:
        decay = min(self.momentum, float(1 + self.t) / float(10 + self.t))
        running.lerp_(parallel.mean(of_batch), 1 - decay)


@dataclass(frozen=True)
class Thresholded(ThreeViews):
    """The methods in which a ``Thresholding``, the role ``memory``, says how much each pseudo-label is trusted.

    Attributes:
        rule: of the thresholding; ``tuned``: those of its other settings that are options of the method.
    """

    rule: ClassVar[str] = "fixed"
    tuned: ClassVar[tuple[str, ...]] = ()

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The thresholding object, under ``memory``."""
        settings: Any = {name: getattr(self, name) for name in self.tuned}
        return {"memory": Thresholding(n_classes, unlabelled, rule=self.rule, **settings)}

    def observed(self, models: Models, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Any]:
        """Logits of the labelled pictures and of the strong views, the predictions p [M, K] on the weak ones, and the
        ``Thresholding``, which has taken up p and the labels."""
        memory: Any = models["memory"]
        z_x, z_w, z_s = self.logits(models["student"], batch)
        p = predictions(z_w)
        memory.observe(p, batch["y"])
        return z_x, z_s, p, memory
