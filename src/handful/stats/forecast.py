"""Forecast: what more labels would bring, from the learning curve so far, with an interval.

Every curve of the ensemble says ``error(n) = a + b · g(n)`` with ``a, b >= 0`` and a falling shape g: a power
n^-c, an exponential, the shape of Morgan, Mercer and Flodin, or minus log n, on grids of the inner parameters. All
are among the families reviewed by Viering & Loog, "The shape of learning curves: a review", IEEE TPAMI 45 (2023).
Legend: S sizes measured, T sizes predicted (labels per class), R draws, K curves, B
resamples. Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

RESAMPLES = 200
FLOOR = 0.005
"""Smallest standard error that a measured mean counts with: no curve of two parameters is truer than that."""

BASE = 0.005
"""Standard deviation of the interval's term for a forecast at the last measured size."""

DRIFT = 0.005
"""What one doubling of the labels adds to that standard deviation."""

SHARE = 0.5
"""How much of the ensemble's own standard deviation counts: curves that no data set follows widen it.

``FLOOR``, ``SHARE`` and ``DRIFT`` were chosen on other data sets than those that the forecast is scored on:
narrow intervals that cover at least 95 % there, then a little wider, because they were chosen to
(``python -m benchmarks.forecast --calibrate``)."""

STOP = 0.01  # a gain that is not worth labelling for
CONTINUE = (2.0, 3.0, 5.0, 10.0)  # by default: these multiples of the largest size measured

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """Accuracy to be expected at larger sizes.

    Attributes:
        sizes: labels per class [T], ascending; all larger than ``size``.
        mean, low, high: accuracy [T] and the ends of its interval.
        gain, gain_low, gain_high: the same for the accuracy there minus that at ``size``.
        size: the largest size measured, labels per class.
        now: fitted accuracy there.
        n_classes: how many labels one step of ``sizes`` costs.
    """

    sizes: tuple[int, ...]
    mean: Array
    low: Array
    high: Array
    gain: Array
    gain_low: Array
    gain_high: Array
    size: int
    now: float
    n_classes: int

    def labels(self, row: int) -> int:
        """Further labels, over all classes, that bring us to ``sizes[row]``."""
        return (self.sizes[row] - self.size) * self.n_classes

    def sentence(self, row: int = 0) -> str:
        """``40 more labels ≈ +3.1 points (1.2 … 5.0)``, for ``sizes[row]``."""
        value, low, high = (100 * x[row] for x in (self.gain, self.gain_low, self.gain_high))
        return f"{self.labels(row)} more labels ≈ {value:+.1f} points ({low:.1f} … {high:.1f})"

    def advice(self) -> str:
        """Whether to label on: the fewest labels that should bring a point, or the most that will not."""
        worth = np.flatnonzero(self.gain >= STOP)
        if len(worth):
            row = int(worth[0])
            sure = " (the interval includes no gain)" if self.gain_low[row] <= 0 else ""
            return f"labelling on is expected to pay: {self.sentence(row)}{sure}"
        last = len(self.sizes) - 1
        start = f"about {self.labels(last)} more labels are expected to bring less than one point"
        if self.gain_high[last] < STOP:
            return f"{start}: better stop"
        most = 100 * self.gain_high[last]
        return f"{start} (at most {most:.1f}): better stop, unless a chance of that is worth it"


def forecast(
    sizes: Sequence[int],
    accuracies: ArrayLike,
    *,
    n_classes: int,
    ahead: Sequence[int] = (),
    n_test: int = 0,
    level: float = 0.95,
) -> Forecast:
    """Predict the accuracy at ``ahead`` labels per class from that at ``sizes``.

    Each curve is fitted by weighted least squares to the mean errors; curves are averaged with weights
    exp(-chi² / 2), each family starting with the same share. Resampling (draws, jointly over sizes; or the
    binomial noise of a single curve) and the spread over curves give a standard deviation, of which SHARE counts;
    (BASE + DRIFT · log2(n / largest size))² is added to its square for what the curve cannot tell. Both were
    calibrated on several data sets at once.

    Args:
        sizes: ascending labels per class [S], at least 3.
        accuracies: [S, R] over draws, NaN where missing, or [S]: one curve, such as cross-validation on
            a user's own few labels.
        ahead: labels per class to predict; by default multiples of the largest size.
        n_test: pictures that each figure was measured on; needed for one curve alone.

    Raises:
        ValueError: for fewer than 3 sizes, sizes not ascending, a size without figures, accuracies outside
            [0, 1], one curve without ``n_test``, or ``ahead`` not ascending beyond the largest size.
    """
    n = np.asarray(sizes, dtype=np.float64)
    x = np.asarray(accuracies, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    ahead = tuple(int(m) for m in ahead) or tuple(round(sizes[-1] * factor) for factor in CONTINUE)
    _check(n, x, ahead, n_test)

    means, error = _summary(x, n_test)
    resampled = _resample(x, means, error)  # [B, S]; the first row is the measured means
    points = np.concatenate([n, np.asarray(ahead, dtype=np.float64)])
    predicted, weights = _fit(n, 1 - resampled, error, points)  # errors [B, K, S + T], weights [B, K]
    predicted = np.clip(1 - predicted, 0, 1)[:, :, len(n) - 1 :]  # accuracy at the last size and ahead of it

    accuracy, spread = _mixture(predicted, weights)
    gain, gain_spread = _mixture(predicted[:, :, 1:] - predicted[:, :, :1], weights)
    doublings = np.log2(np.asarray(ahead) / n[-1])
    z = float(ndtri(0.5 + level / 2))
    half = z * np.sqrt((SHARE * spread[1:]) ** 2 + (BASE + DRIFT * doublings) ** 2)
    gain_half = z * np.sqrt((SHARE * gain_spread) ** 2 + (DRIFT * doublings) ** 2)
    mean = accuracy[1:]
    return Forecast(
        ahead,
        mean,
        np.clip(mean - half, 0, 1),
        np.clip(mean + half, 0, 1),
        gain,
        gain - gain_half,
        np.minimum(gain + gain_half, 1 - accuracy[0]),
        int(sizes[-1]),
        float(accuracy[0]),
        n_classes,
    )


def shapes(n: Array, largest: float) -> tuple[Array, Array]:
    """Falling shapes g [K, len(n)] of the ensemble and the share [K] that each starts with.

    ``largest``: the largest size measured, to which the exponentials' rates and the saturation points are tied.
    """
    x = n[None, :]
    power = x ** -np.linspace(0.1, 1.5, 15)[:, None]
    exponential = np.exp(-x / (largest * np.geomspace(0.1, 2, 8)[:, None]))
    half_way, steep = (g.reshape(-1, 1) for g in np.meshgrid(np.geomspace(0.5, 16, 6), [0.5, 0.75, 1.0, 1.5]))
    saturating = 1 / (1 + (x / half_way) ** steep)
    logarithm = -np.log(x)
    families = [power, exponential, saturating, logarithm]
    share = [np.full(len(g), 1 / (len(families) * len(g))) for g in families]
    return np.concatenate(families), np.concatenate(share)


def _fit(n: Array, errors: Array, spread: Array, points: Array) -> tuple[Array, Array]:
    """Every curve fitted to every row of ``errors`` [B, S]: its errors at ``points`` [B, K, P], weights [B, K].

    Weighted least squares in a and b for fixed g, in closed form; where a or b would be negative it is set to
    zero and the other one fitted alone (the solution of the constrained problem, which is convex).
    """
    g, share = shapes(n, n[-1])
    w = 1 / spread**2
    total, sum_g, sum_gg = w.sum(), g @ w, g**2 @ w  # [], [K], [K]
    sum_y, sum_gy = (errors @ w)[:, None], errors @ (g * w).T  # [B, 1], [B, K]
    b = (sum_gy * total - sum_g * sum_y) / (sum_gg * total - sum_g**2)
    a = (sum_y - b * sum_g) / total
    free = (a < 0) & (g.min(axis=1) >= 0)  # minus log n needs a free a: its g is negative
    b = np.where(free, sum_gy / sum_gg, b)
    a = np.where(free, 0.0, a)
    flat = b < 0
    b, a = np.where(flat, 0.0, b), np.where(flat, sum_y / total, a)
    misfit = (((errors[:, None, :] - a[..., None] - b[..., None] * g) ** 2) * w).sum(axis=2)
    weights = share * np.exp(-(misfit - misfit.min(axis=1, keepdims=True)) / 2)
    ahead, _ = shapes(points, n[-1])
    return a[..., None] + b[..., None] * ahead, weights / weights.sum(axis=1, keepdims=True)


def _mixture(predicted: Array, weights: Array) -> tuple[Array, Array]:
    """Mean over curves of the measured row, and the standard deviation over curves and resamples."""
    mean = np.einsum("bk,bkp->bp", weights, predicted)
    within = np.einsum("bk,bkp->bp", weights, (predicted - mean[:, None]) ** 2).mean(axis=0)
    return mean[0], np.sqrt(within + mean.var(axis=0))


def _summary(x: Array, n_test: int) -> tuple[Array, Array]:
    """Mean [S] and its standard error [S]: the spread over draws, evened out between the sizes (five draws
    say little about a spread), or the binomial one, and never below ``FLOOR``."""
    means, counts = np.nanmean(x, axis=1), np.isfinite(x).sum(axis=1)
    if x.shape[1] == 1:
        smooth = (means * n_test + 1) / (n_test + 2)
        return means, np.hypot(np.sqrt(smooth * (1 - smooth) / n_test), FLOOR)
    squares = np.nansum((x - means[:, None]) ** 2, axis=1)
    pooled = squares.sum() / max(1, (counts - 1).sum())
    variance = (squares + pooled) / counts  # a prior of one draw with the pooled spread
    return means, np.hypot(np.sqrt(variance / counts), FLOOR)


def _resample(x: Array, means: Array, error: Array) -> Array:
    """Mean accuracies [B, S]: the measured ones, then resampled ones; the same on every machine."""
    generator = np.random.RandomState(0)
    draws = x.shape[1]
    if draws == 1 or not np.isfinite(x).all():
        noise = generator.standard_normal((RESAMPLES, len(means))) * error
    else:
        picks = generator.randint(0, draws, (RESAMPLES, draws))
        noise = (x[:, picks].mean(axis=2).T - means) * (draws / (draws - 1)) ** 0.5
    return np.concatenate([means[None], np.clip(means + noise, 0, 1)])


def _check(n: Array, x: Array, ahead: Sequence[int], n_test: int) -> None:
    if n.ndim != 1 or len(n) < 3 or n[0] < 1 or np.any(np.diff(n) <= 0):
        raise ValueError(f"a forecast needs at least 3 ascending sizes, got {n.tolist()}")
    if x.ndim != 2 or len(x) != len(n) or x.shape[1] == 0:
        raise ValueError(f"accuracies must be [{len(n)} sizes, draws], got shape {x.shape}")
    if np.isnan(x).all(axis=1).any():
        raise ValueError("a size has no figure at all: leave it out")
    if np.nanmin(x) < 0 or np.nanmax(x) > 1:
        raise ValueError("accuracies must be fractions between 0 and 1")
    if x.shape[1] == 1 and n_test < 1:
        raise ValueError("one curve alone needs n_test, the number of pictures it was measured on")
    if ahead[0] <= n[-1] or np.any(np.diff(ahead) <= 0):
        raise ValueError(f"ahead must ascend beyond the largest size {n[-1]:.0f}, got {list(ahead)}")
