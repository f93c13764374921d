"""Patch contrast: patches of one picture shall lie near each other and far from those of other pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.augment.tiles import enlarged, normalized, patches
from handful.losses.nt_xent import nt_xent
from handful.methods.self_supervised import draws
from handful.methods.simclr import Contrast
from handful.types import Batch, Models, UsageError


@dataclass(frozen=True)
class PatchContrast(Contrast):
    """L_self = NT-Xent over ``patches`` small windows of each picture, each normalised by itself and enlarged; the
    positives of a patch are the other patches of its picture (Khosla et al. 2020, eq. 2, a picture being a class).

    Attributes:
        patches: of each picture.
        side: of a patch, as a share of the picture's.
        unlabelled_view: how an unlabelled picture is shown before it is cut.
    """

    patches: int = 4
    side: float = 0.5
    unlabelled_view: str = "weak"

    parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches < 2:
            raise UsageError("--method.patches must be at least 2: a patch needs another one to be near to")
        if not 0 < self.side <= 1:
            raise UsageError("--method.side must be a share of the picture's side, above 0 and at most 1")

    @property
    def copies(self) -> int:
        return self.patches

    @property
    def shown(self) -> Mapping[str, str]:
        return {"uncut": self.unlabelled_view}

    def own(self, models: Models, batch: Batch) -> Tensor:
        u = batch["uncut"]
        places = draws(batch, len(u), self.patches, 2).to(u.device)
        shown = normalized(patches(u, self.side, places)).flatten(0, 1)  # [M V, C, t, t]
        shown = enlarged(shown, u.shape[-1]).contiguous(memory_format=torch.channels_last)
        z = models["projector"](models["student"](shown).features)
        return nt_xent(z.unflatten(0, (len(u), self.patches)).transpose(0, 1), self.temperature)
