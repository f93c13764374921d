"""Jigsaw: in which order are the picture's tiles shown? (Noroozi & Favaro 2016)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial
from typing import ClassVar

import torch
from torch import Tensor

from handful.augment.tiles import cut, enlarged, normalized, permutations
from handful.losses.classify import cross_entropy
from handful.methods.self_supervised import SelfSupervised, draws
from handful.types import Batch, Models, UsageError


@dataclass(frozen=True)
class Jigsaw(SelfSupervised):
    """L_self = mean_j CE(projector(student(tile_1) ... student(tile_T)), s_j): the tiles of u_j stand in order s_j of
    ``orders``, and the network tells which it is (Noroozi & Favaro 2016, sec. 3.2 and 4.2).

    Attributes:
        grid: cells a side, 2 or 3.
        orders: permutations to tell apart, at most 24 for four tiles; they differ as much as they can.
        gap: share of a cell's side that is left out between tiles.
        unlabelled_view: how an unlabelled picture is shown before it is cut.
    """

    grid: int = 2
    orders: int = 24
    gap: float = 0.15
    unlabelled_view: str = "weak"

    parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.grid not in (2, 3):
            raise UsageError("--method.grid must be 2 or 3")
        if not 2 <= self.orders <= factorial(self.copies):
            raise UsageError(f"--method.orders must lie between 2 and {factorial(self.copies)}")
        if not 0 <= self.gap < 1:
            raise UsageError("--method.gap must lie in [0, 1)")

    @property
    def copies(self) -> int:
        return self.grid**2

    @property
    def shown(self) -> Mapping[str, str]:
        return {"uncut": self.unlabelled_view}

    @property
    def answers(self) -> tuple[int, int]:
        return self.copies, self.orders

    def own(self, models: Models, batch: Batch) -> Tensor:
        u, tiles = batch["uncut"], self.copies
        drawn = draws(batch, len(u), 1 + 2 * tiles).to(u.device)
        order = (drawn[:, 0] * self.orders).long().clamp_max(self.orders - 1)  # [M]
        shown = normalized(cut(u, self.grid, self.gap, drawn[:, 1:].unflatten(1, (tiles, 2))))
        turn = permutations(tiles, self.orders).to(u.device)[order]  # [M, T]
        shown = shown[torch.arange(len(u), device=u.device).unsqueeze(1), turn].flatten(0, 1)
        shown = enlarged(shown, u.shape[-1]).contiguous(memory_format=torch.channels_last)
        features = models["student"](shown).features  # [M T, D]
        return cross_entropy(models["projector"](features.unflatten(0, (-1, tiles)).flatten(1)), order).mean()
