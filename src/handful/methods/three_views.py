"""What the methods share that show a network labelled pictures, and unlabelled ones in a weak and a strong view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.methods.base import SemiSupervised
from handful.types import Batch, Loss


@dataclass(frozen=True)
class ThreeViews(SemiSupervised):
    """Options of the whole family.

    Attributes:
        weak_view: how the unlabelled ones are shown for the target.
        strong_view: how the unlabelled ones are shown to learn the target.
        passes: 1: one forward pass over everything (batch norm sees all); 2: weak views apart and without a
            graph, which saves a third of the time; 3: each of the three apart.
    """

    weak_view: str = "weak"
    strong_view: str = "strong"
    passes: int = 1

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view, "weak": self.weak_view, "strong": self.strong_view}

    def logits(self, student: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the labelled pictures, and of the unlabelled ones' weak and strong views."""
        x, weak, strong = batch["x"], batch["weak"], batch["strong"]
        if self.passes == 1:
            z = student(torch.cat([x, weak, strong])).logits
            z_x, z_w, z_s = z.split([len(x), len(weak), len(strong)])
            return z_x, z_w, z_s
        with torch.no_grad():
            z_w = student(weak).logits
        z_x, z_s = apart_or_joint(student, x, strong, joint=self.passes == 2)
        return z_x, z_w, z_s

    def total(self, supervised: Tensor, unlabelled: Tensor, used: Tensor, **others: Tensor) -> Loss:
        """``supervised + weight * unlabelled + others``, and every part of it for the log."""
        total = supervised + self.weight * unlabelled + sum(others.values())
        terms = {"supervised": supervised, "unlabelled": unlabelled, "used": used.mean(), **others}
        return Loss(total, terms)


def apart_or_joint(student: nn.Module, a: Tensor, b: Tensor, *, joint: bool) -> tuple[Tensor, Tensor]:
    """Logits of two batches: in one forward pass, where batch norm sees both, or in one each."""
    if not joint:
        return student(a).logits, student(b).logits
    z_a, z_b = student(torch.cat([a, b])).logits.split([len(a), len(b)])
    return z_a, z_b
