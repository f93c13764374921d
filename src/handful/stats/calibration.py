"""Whether confidences are to be believed, and the temperature that makes them so.

Guo et al., "On calibration of modern neural networks", ICML 2017. Legend: n pictures, K classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from torch import Tensor

TEMPERATURE_SD = 0.5
"""Of log T beforehand; chosen on other data sets than those reported (benchmarks/calibration.py)."""


def fit_temperature(
    logits: Tensor, target: Tensor, *, sd: float = TEMPERATURE_SD, low: float = 0.05, high: float = 20.0
) -> float:
    """The temperature T that minimises sum_i CE(y_i, softmax(z_i / T)) + (log T)^2 / (2 sd^2).

    The sum is that of Guo et al., section 4.2. The other term is a normal prior on log T around 0: a dozen pictures
    cannot move T far from 1, hundreds can. An infinite ``sd`` takes it away. Brent's method finds T to 1e-6 between
    the neighbours of the best point of a grid: with the prior there may be two valleys. Fit it on pictures that the
    model was not trained on.

    Args:
        logits: [n, K]. target: int64 [n].
    """
    logits, target = logits.double(), target.long()

    def loss(log_t: float) -> float:
        fit = F.cross_entropy(logits / math.exp(log_t), target, reduction="sum")
        return float(fit) + (log_t / sd) ** 2 / 2

    points = np.linspace(math.log(low), math.log(high), 61)
    best = int(np.argmin([loss(point) for point in points]))
    bounds = points[max(best - 1, 0)], points[min(best + 1, 60)]
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


class Bin(NamedTuple):
    """The predictions whose confidence fell into one bin: mean confidence, accuracy, how many."""

    confidence: float
    accuracy: float
    n: int


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> list[Bin]:
    """Predictions grouped by confidence into ``bins`` equal steps of (0, 1]; empty bins are left out.

    ``confidence`` [n] is the probability of the predicted class, ``correct`` [n] is 0/1. Guo et al., "On
    calibration of modern neural networks", ICML 2017, section 2 (bin m is ((m - 1) / M, m / M]).

    Raises ValueError where the lengths differ, a confidence lies outside [0, 1], or bins < 1.
    """
    p = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if p.ndim != 1 or p.shape != right.shape:
        raise ValueError(
            f"confidence and correct must be equally long vectors, got {p.shape} and {right.shape}"
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not np.all((p >= 0) & (p <= 1 + 1e-6)):
        raise ValueError("a confidence lies outside [0, 1]")
    number = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    groups = (number == m for m in range(bins))
    return [Bin(float(p[g].mean()), float(right[g].mean()), int(g.sum())) for g in groups if g.any()]


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their size.

    Guo et al. 2017, equation 3: sum over m of |B_m| / n · |acc(B_m) - conf(B_m)|. In [0, 1]; 0 is perfect.
    NaN without predictions. With few pictures it is biased upwards: a perfect model does not reach 0.

    Raises ValueError as :func:`reliability_bins`.
    """
    groups = reliability_bins(confidence, correct, bins)
    n = sum(g.n for g in groups)
    return sum(g.n * abs(g.accuracy - g.confidence) for g in groups) / n if n else float("nan")
