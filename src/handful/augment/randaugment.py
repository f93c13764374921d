"""RandAugment and its relatives: which operations a picture gets, and how strong they are.

A *scale* says what a magnitude means: M = 9 is nine tenths of full strength on the paper's scale and three tenths on
torchvision's. The tables below are the whole difference.

Legend: B pictures, N steps a picture, H height, W width; ``u`` float64 [B, n_draws] in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from handful.augment import tensors
from handful.augment.operations import OPERATIONS, Canvas, find
from handful.augment.views import Stepwise, uniform_to
from handful.types import UsageError

Array = np.ndarray


@dataclass(frozen=True)
class Strength:
    """How a share of full strength becomes an operation's number.

    Attributes:
        at: (share [B], W, H) to numbers [B]; of signed ones, the distance from the operation's identity.
        signed: either way with probability one half.
    """

    at: Callable[[Array, int, int], Array]
    signed: bool = False


@dataclass(frozen=True)
class Scale:
    """A list of operations and what magnitudes mean for each.

    Attributes:
        full: the magnitude of full strength; larger ones extrapolate.
        magnitude: the usual one; None: drawn for each picture and step.
        bins: drawn magnitudes are one of so many, evenly spaced from 0 to ``full``; 0: any.
        strengths: by operation; None where it takes no number.
    """

    full: float
    magnitude: float | None
    bins: int
    strengths: Mapping[str, Strength | None]


def _up_to(full: float, most: float = math.inf) -> Strength:
    return Strength(lambda s, w, h: np.minimum(full * s, most), signed=True)


def _between(weakest: float, strongest: float) -> Strength:
    return Strength(lambda s, w, h: weakest + (strongest - weakest) * s)


def _pixels(of_width: float, of_height: float, most: float = math.inf) -> Strength:
    """A shift by whole pixels, as a share of the side; one of the first two numbers is 0."""

    def at(share: Array, w: int, h: int) -> Array:
        side, part = (w, of_width) if of_width else (h, of_height)
        return np.trunc(min(part * side, most) * share) / side

    return Strength(at, signed=True)


def _turns_and_shears(rotate: float, shear: float) -> dict[str, Strength | None]:
    return {"rotate": _up_to(rotate), "shear-x": _up_to(shear), "shear-y": _up_to(shear)}


def _enhance(strength: Strength) -> dict[str, Strength | None]:
    return dict.fromkeys(("color", "contrast", "brightness", "sharpness"), strength)


TO_FULL_RANGE: dict[str, Strength | None] = {"autocontrast": None, "equalize": None}
SCALES: dict[str, Scale] = {
    # Cubuk et al. 2020, the list of sec. 3; numbers of their released code. There, posterize and solarize get
    # weaker as M grows, and 100 px of a shift belong to pictures of 224 px; shifts do not extrapolate, or nothing
    # would be left of a picture.
    "paper": Scale(
        10, 9, 0,
        {
            "identity": None,
            **TO_FULL_RANGE,
            **_turns_and_shears(30, 0.3),
            **_enhance(_between(0.1, 1.9)),
            "translate-x": _up_to(100 / 224, most=100 / 224),
            "translate-y": _up_to(100 / 224, most=100 / 224),
            "posterize": Strength(lambda s, w, h: np.floor(4 * s)),
            "solarize": Strength(lambda s, w, h: np.floor(256 * s)),
        },
    ),
    # torchvision.transforms.v2.RandAugment: 31 bins, 0 to 30; strength grows with M for every operation.
    "torchvision": Scale(
        30, 9, 0,
        {
            "identity": None,
            **TO_FULL_RANGE,
            **_turns_and_shears(30, 0.3),
            **_enhance(_up_to(0.9)),
            "translate-x": _pixels(150 / 331, 0),
            "translate-y": _pixels(0, 150 / 331),
            "posterize": Strength(lambda s, w, h: np.round(8 - 4 * s)),
            "solarize": Strength(lambda s, w, h: 255 * (1 - s)),
        },
    ),
    # Sohn et al. 2020 (FixMatch), table 12: no M, a strength is drawn each time.
    "fixmatch": Scale(
        10, None, 0,
        {
            "identity": None,
            **TO_FULL_RANGE,
            **_turns_and_shears(30, 0.3),
            **_enhance(_between(0.05, 0.95)),
            "translate-x": _up_to(0.3),
            "translate-y": _up_to(0.3),
            "posterize": Strength(lambda s, w, h: np.floor(4 + 5 * s).clip(max=8)),
            "solarize": Strength(lambda s, w, h: 256 * s),
        },
    ),
    # Müller & Hutter 2021 (TrivialAugment), "wide", as in torchvision: one of 31 strengths is drawn.
    "wide": Scale(
        30, None, 31,
        {
            "identity": None,
            **TO_FULL_RANGE,
            **_turns_and_shears(135, 0.99),
            **_enhance(_up_to(0.99)),
            "translate-x": Strength(lambda s, w, h: np.trunc(32 * s) / w, signed=True),
            "translate-y": Strength(lambda s, w, h: np.trunc(32 * s) / h, signed=True),
            "posterize": Strength(lambda s, w, h: np.round(8 - 6 * s)),
            "solarize": Strength(lambda s, w, h: 255 * (1 - s)),
        },
    ),
    # Hendrycks et al. 2020 (AugMix): without the operations that resemble the corruptions it is tested on.
    "augmix": Scale(
        10, None, 0,
        {
            **TO_FULL_RANGE,
            **_turns_and_shears(30, 0.3),
            "translate-x": _pixels(1 / 3, 0),
            "translate-y": _pixels(0, 1 / 3),
            "posterize": Strength(lambda s, w, h: np.round(4 - 4 * s)),
            "solarize": Strength(lambda s, w, h: 255 * (1 - s)),
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """What was drawn for each picture and step: the operation, and the number that it gets.

    Attributes:
        names: of the operations that ``which`` points to.
        which: int64 [B, N].
        value: float64 [B, N]; 0 where the operation takes none.
    """

    names: tuple[str, ...]
    which: Array
    value: Array

    def rows(self, canvas: Canvas) -> Array:
        """int32 [B, N, 8] for ``tensors.run``."""
        out = np.zeros((*self.which.shape, 8), np.int32)
        for k, name in enumerate(self.names):
            chosen = self.which == k
            out[chosen] = find(name).encode(self.value[chosen], canvas)
        return out


@dataclass(frozen=True)
class RandAugment(Stepwise):
    """N operations drawn from a list with equal chances, all of strength M (Cubuk et al. 2020).

    Attributes:
        n: operations a picture.
        m: magnitude on the scale; -1 takes the scale's own habit (9, or drawn for each operation).
        scale: "paper", "torchvision", "fixmatch" or "wide".
        operations: the list; () takes the scale's 14.
        bilinear: mix four pixels in geometric operations instead of taking the nearest one.
        fill: gray value of what comes from outside the picture.
    """

    n: int = 2
    m: float = -1.0
    scale: str = "torchvision"
    operations: tuple[str, ...] = ()
    bilinear: bool = False
    fill: int = 0

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise UsageError(f"there is no scale '{self.scale}'", fix=f"one of {', '.join(SCALES)}")
        strengths = SCALES[self.scale].strengths
        for name in self.operations:
            if name not in strengths:
                raise UsageError(
                    f"the scale '{self.scale}' has no operation '{name}'", fix=f"of {', '.join(strengths)}"
                )
        if self.n < 0 or (self.m < 0 and self.m != -1) or not 0 <= self.fill <= 255:
            raise UsageError("randaugment takes n of 0 or more, m of 0 or more, fill of 0 to 255")

    @property
    def names(self) -> tuple[str, ...]:
        """The operations that are drawn from."""
        return self.operations or tuple(SCALES[self.scale].strengths)

    @property
    def n_draws(self) -> int:
        return 3 * self.n

    def draw(self, u: Array, h: int, w: int) -> Drawn:
        """Operations and their numbers for u [B, 3 N] (operation, sign, strength of each step)."""
        u = u.reshape(len(u), self.n, 3)
        scale = SCALES[self.scale]
        which = uniform_to(u[:, :, 0], len(self.names))
        m = scale.magnitude if self.m == -1 else self.m
        if m is not None:
            share = np.full(which.shape, m / scale.full)
        elif scale.bins:
            share = uniform_to(u[:, :, 2], scale.bins) / (scale.bins - 1)
        else:
            share = u[:, :, 2]
        value = np.zeros(which.shape)
        for k, name in enumerate(self.names):
            strength, chosen = scale.strengths[name], which == k
            if strength is None:
                continue
            number = strength.at(share[chosen], w, h)
            if strength.signed:
                number = OPERATIONS[name].identity + np.where(u[chosen][:, 1] < 0.5, -number, number)
            value[chosen] = number
        return Drawn(self.names, which, value)

    def rows(self, u: Array, h: int, w: int) -> Array:
        return self.draw(u, h, w).rows(Canvas(h, w, self.bilinear, self.fill))


@dataclass(frozen=True)
class AugMix:
    """A random average of the picture and ``width`` chains of 1 to 3 operations (Hendrycks et al. 2020, alg. 1), with
    Dirichlet and Beta weights of alpha 1.

    Attributes:
        severity: strengths are drawn from 0 to severity - 1 of 9 (torchvision's rule; 1 to 10).
        width: chains.
        bilinear: as in ``RandAugment``.
    """

    severity: int = 3
    width: int = 3
    bilinear: bool = True

    DEPTH = 3

    def __post_init__(self) -> None:
        if not 1 <= self.severity <= 10 or self.width < 1:
            raise UsageError("augmix takes a severity of 1 to 10 and a width of 1 or more")

    @property
    def n_draws(self) -> int:
        return self.width * (2 + 3 * self.DEPTH) + 1

    def draw(self, u: Array, h: int, w: int) -> tuple[Array, Array]:
        """Rows int32 [B, width, 3, 8] and weights float64 [B, 1 + width], the picture's own first."""
        chains = u[:, :-1].reshape(len(u), self.width, 2 + 3 * self.DEPTH)
        depth = 1 + uniform_to(chains[:, :, 0], self.DEPTH)
        each = -np.log1p(-chains[:, :, 1])  # exponential: divided by their sum they are Dirichlet(1, …, 1)
        own = 1 - u[:, -1:]  # Beta(1, 1)
        total = np.maximum(each.sum(1, keepdims=True), 1e-300)
        weights = np.concatenate([own, (1 - own) * each / total], 1)
        draws = chains[:, :, 2:].reshape(-1, 3 * self.DEPTH).copy()
        draws[:, 2::3] = uniform_to(draws[:, 2::3], self.severity) / 9
        drawn = RandAugment(self.DEPTH, scale="augmix").draw(draws, h, w)
        rows = drawn.rows(Canvas(h, w, self.bilinear)).reshape(len(u), self.width, self.DEPTH, 8)
        rows[np.arange(self.DEPTH) >= depth[:, :, None]] = 0
        return rows, weights

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        """Args: x uint8 [B, C, H, W]; u [B, n_draws]."""
        rows, weights = self.draw(u.cpu().double().numpy(), x.shape[2], x.shape[3])
        w = torch.from_numpy(weights).float().to(x.device).view(len(x), -1, 1, 1, 1)
        mixed = x * w[:, 0]
        for i in range(self.width):
            mixed += tensors.run(x, np.ascontiguousarray(rows[:, i])) * w[:, 1 + i]
        return mixed.add_(0.5).clamp_(0, 255).to(torch.uint8)
