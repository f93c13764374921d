"""How far apart are two sets of pictures? A classifier is asked to tell them apart, and simple figures are compared.

Ben-David et al., "A theory of learning from different domains" (Machine Learning 79, 2010), section 4: if no
classifier can tell two sets, a model of one is as good on the other. Here, the share of pictures whose set is told
right by a classifier that did not learn from them; 50 % is chance, as both sets give equally many.

Legend: n pictures of each set, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from handful.augment.tensors import gray
from handful.data.images import Images
from handful.data.split import folds
from handful.stats.intervals import Estimate, accuracy
from handful.stats.logistic import solve_logistic

FOLDS = 5
C = 0.015  # inverse strength of the penalty; with two rows of weights, half of what it is with one
LOOK = 16  # pixels a side that the classifier sees
COMPONENTS = 48  # of these pixels

Measures = dict[str, NDArray[np.float64]]


class Shift(NamedTuple):
    """One figure in both sets: means, and their difference in standard deviations with its 95 % interval."""

    name: str
    first: float
    second: float
    effect: Estimate


class Gap(NamedTuple):
    """Two sets side by side.

    Attributes:
        accuracy: of telling them apart, with a 95 % interval; 0.5 is chance.
        n: pictures of each set that were used.
        shifts: largest first.
        p_first, p_second: float64 [n], the probability of each picture to be of its own set, by a classifier that did
            not learn from it: the largest give the set away.
    """

    accuracy: Estimate
    n: int
    shifts: list[Shift]
    p_first: NDArray[np.float64]
    p_second: NDArray[np.float64]

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart better than by chance."""
        return self.accuracy.low > 0.5


def gap(first: tuple[Tensor, Measures], second: tuple[Tensor, Measures], seed: int = 0) -> Gap:
    """Compare two sets of n pictures each: (features float32 [n, D], figures by name float64 [n])."""
    x = torch.cat([first[0], second[0]]).double()
    y = np.repeat([0, 1], [len(first[0]), len(second[0])])
    p = held_out_probabilities(x, torch.from_numpy(y), seed)
    right = (p > 0.5) == (y == 1)
    own = np.where(y == 1, p, 1 - p)
    names = [name for name in first[1] if name in second[1]]
    shifts = [shift(name, first[1][name], second[1][name]) for name in names]
    shifts.sort(key=lambda s: -abs(s.effect.value))
    return Gap(accuracy(right), len(first[0]), shifts, own[y == 0], own[y == 1])


def held_out_probabilities(x: Tensor, y: Tensor, seed: int) -> NDArray[np.float64]:
    """Probability [N] that a picture is of set 1, by logistic regression on the folds that it is not in; features
    [N, D] are standardised there."""
    p = torch.empty(len(x), dtype=torch.float64)
    fold_of = torch.from_numpy(folds(y.numpy(), FOLDS, 1, seed)[0])
    for fold in range(FOLDS):
        held = fold_of == fold
        spread, mean = torch.std_mean(x[~held], 0, correction=0)
        z = (x - mean) / torch.where(spread > 1e-12, spread, 1.0)
        w, b = solve_logistic(z[~held], F.one_hot(y[~held]), torch.ones(int((~held).sum())), C)
        p[held] = (z[held].float() @ w.T + b).softmax(1)[:, 1].double()
    return p.numpy()


def shift(name: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> Shift:
    """Means of a figure in two sets, and Cohen's d with its large-sample interval (Hedges & Olkin 1985, sec. 5.E)."""
    spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    difference = float(b.mean() - a.mean())
    d = difference / spread if spread > 1e-12 else np.sign(difference) * np.inf if difference else 0.0
    error = np.sqrt(1 / len(a) + 1 / len(b) + d * d / (2 * (len(a) + len(b)))) if spread > 1e-12 else 0.0
    half = 1.96 * error
    return Shift(name, float(a.mean()), float(b.mean()), Estimate(float(d), float(d - half), float(d + half)))


def looks(images: Images, rows: Tensor) -> Tensor:
    """Shrunk gray pictures, float32 [n, LOOK²] in [0, 1]."""
    parts = (F.interpolate(gray(images.take(some)), (LOOK, LOOK), mode="area") for some in rows.split(1024))
    return torch.cat([part.flatten(1) / 255 for part in parts])


def components(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets on the principal components of both together, float32 [n, COMPONENTS] each."""
    both = torch.cat([first, second])
    both = both - both.mean(0)
    _, _, axes = torch.linalg.svd(both, full_matrices=False)
    scores = both @ axes[:COMPONENTS].T
    return scores[: len(first)], scores[len(first) :]


def measures(images: Images, rows: Tensor) -> Measures:
    """Simple figures of pictures as they are stored, each float64 [n]: brightness, contrast, sharpness, brightness of
    the border (all 0 … 1), and for colour pictures saturation and the share of red and of blue."""
    found: dict[str, list[Tensor]] = {}
    for some in rows.split(512):
        light = gray(images.take(some))[:, 0] / 255
        edge = max(1, light.shape[1] // 8)
        border = torch.ones_like(light[0], dtype=torch.bool)
        border[edge:-edge, edge:-edge] = False
        down, across = light.diff(dim=1).abs().mean((1, 2)), light.diff(dim=2).abs().mean((1, 2))
        figures = {
            "brightness": light.mean((1, 2)),
            "contrast": light.std((1, 2)),
            "sharpness": (down + across) / 2,
            "brightness of the border": light[:, border].mean(1),
        }
        if images.channels == 3:
            x = images.take(some).float() / 255
            figures["saturation"] = ((x.amax(1) - x.amin(1)) / x.amax(1).clamp_min(1 / 255)).mean((1, 2))
            total = x.sum(1).mean((1, 2)).clamp_min(1e-6)
            figures["share of red"] = x[:, 0].mean((1, 2)) / total
            figures["share of blue"] = x[:, 2].mean((1, 2)) / total
        for name, values in figures.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def as_features(figures: Mapping[str, NDArray[np.float64]], names: list[str]) -> Tensor:
    """Some of the figures as columns, float32 [n, len(names)]."""
    return torch.from_numpy(np.stack([figures[name] for name in names], 1)).float()
