"""Accuracies and means with their intervals.

Legend: n pictures, R repeats (of a cross-validation, or seeds). Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit


class Estimate(NamedTuple):
    """A value with its interval; ``low`` and ``high`` are NaN where the data cannot give one."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """The two ends alone."""
        return self.low, self.high


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion: ``correct`` of ``n``.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    It keeps inside [0, 1] and stays honest at 0 and at ``n`` of ``n``, where the textbook interval has
    no width. ``correct`` may be fractional (a mean over repeats). With n = 0 nothing is known: (0, 1).

    Raises ValueError unless 0 <= correct <= n and 0 < level < 1.
    """
    _check_level(level)
    if not 0 <= correct <= n:
        raise ValueError(f"correct must be between 0 and n = {n}, got {correct}")
    if n == 0:
        return 0.0, 1.0
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    p = correct / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (p * (1 - p) + z2 / (4 * n)) / n) ** 0.5 / (1 + z2 / n)
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def accuracy(correct: ArrayLike, level: float = 0.95) -> Estimate:
    """Accuracy with its Wilson interval from 0/1 values [n], or [R, n] if each picture was judged R times.

    Repeats are averaged per picture first and never counted as new pictures: ten rounds of
    cross-validation on 40 pictures are still 40 pictures.

    Raises ValueError for an empty array, other than 1 or 2 dimensions, or values outside [0, 1].
    """
    per_picture = _per_picture(correct)
    n = len(per_picture)
    total = min(float(per_picture.sum()), float(n))
    return Estimate(total / n, *wilson(total, n, level))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of ``a - b`` over the *same* pictures, with Student's t interval over pictures.

    ``a`` and ``b`` are 0/1 vectors [n] (right or wrong), or [R, n] for repeated cross-validation, averaged
    per picture first; R may differ between the two. Where no picture differs from another (all gains
    equal, usually all zero) a t interval would have no width; the end is then the Wilson bound for "none
    of n", because n pictures cannot exclude a rarer difference.

    The interval speaks of other pictures of the same kind. It does not cover the chance of *which*
    pictures were labelled: folds share training pictures, and no unbiased estimate of that part exists
    (Bengio & Grandvalet, "No unbiased estimator of the variance of k-fold cross-validation", JMLR 5,
    2004). Treat it as a little too narrow.

    Raises ValueError where the pictures do not match in number, or as in :func:`accuracy`.
    """
    mean_a, mean_b = _per_picture(a), _per_picture(b)
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"a has {len(mean_a)} pictures and b has {len(mean_b)}: they must be the same ones")
    gains = mean_a - mean_b
    n = len(gains)
    if np.ptp(gains) < 1e-12:
        _check_level(level)
        value, slack = float(gains[0]), wilson(0, n, level)[1]
        return Estimate(value, max(-1.0, value - slack), min(1.0, value + slack))
    value, low, high = mean_interval(gains, level)
    return Estimate(value, max(-1.0, low), min(1.0, high))


def balanced_accuracy(truth: ArrayLike, guess: ArrayLike, n_classes: int) -> float:
    """Mean over classes of the share of their pictures that were called right; classes without pictures are left
    out. ``truth`` and ``guess`` are class numbers [n]. NaN without pictures."""
    y, called = np.asarray(truth, dtype=np.int64), np.asarray(guess, dtype=np.int64)
    counts = np.bincount(y, minlength=n_classes)
    right = np.bincount(y[y == called], minlength=n_classes)
    return float((right[counts > 0] / counts[counts > 0]).mean()) if len(y) else float("nan")


def macro_f1(truth: ArrayLike, guess: ArrayLike, n_classes: int) -> float:
    """Mean over classes of F1, twice the right ones over those that are of the class plus those that were called so;
    classes with neither are left out. ``truth`` and ``guess`` are class numbers [n]. NaN without pictures."""
    y, called = np.asarray(truth, dtype=np.int64), np.asarray(guess, dtype=np.int64)
    both = np.bincount(y, minlength=n_classes) + np.bincount(called, minlength=n_classes)
    right = np.bincount(y[y == called], minlength=n_classes)
    return float((2 * right[both > 0] / both[both > 0]).mean()) if len(y) else float("nan")


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of [R] independent figures (one a seed, say) with Student's t interval.

    mean ± t(R - 1) · sd / sqrt(R), sd with R - 1 in the denominator ("Student", Biometrika 6, 1908). One
    value alone has a mean but no interval: the ends are NaN.

    Raises ValueError for an empty or not one-dimensional array.
    """
    _check_level(level)
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"values must be a non-empty vector, got shape {x.shape}")
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(mean, float("nan"), float("nan"))
    half = float(stdtrit(len(x) - 1, 0.5 + level / 2)) * float(x.std(ddof=1)) / len(x) ** 0.5
    return Estimate(mean, mean - half, mean + half)


def _per_picture(correct: ArrayLike) -> NDArray[np.float64]:
    """[n] or [R, n] of values in [0, 1] to their mean per picture [n]."""
    x = np.asarray(correct, dtype=np.float64)
    if x.ndim not in (1, 2) or x.size == 0:
        raise ValueError(f"expected [n] or [R, n] with at least one picture, got shape {x.shape}")
    if not np.all((x >= 0) & (x <= 1)):
        raise ValueError("values must be 0 (wrong) to 1 (right)")
    return x if x.ndim == 1 else x.mean(axis=0)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
