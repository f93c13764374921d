"""Labels that look wrong: each labelled picture judged by the others, with a false-alarm rate that is stated.

With 4 to 10 labels a class, a picture that the others call something else is usually just a hard picture. So the
question is not "do the others disagree?" but "how rare is so much disagreement where the label is right?".

1. Class scores of each picture from all *other* labelled pictures: ridge regression on frozen features, whose
   leave-one-out answers have a closed form (Hastie, Tibshirani & Friedman, *The Elements of Statistical Learning*,
   section 7.10, in its kernel form): f_(-i) = y_i - c_i / (A^-1)_ii with A = G + ridge I, c = A^-1 Y.
2. Probabilities p_i = softmax(f_(-i) / T). Ridge, temperature T and the share of wrong labels e together maximise the
   likelihood of the given labels, sum_i log((1 - e) p_i[y_i] + e / K), so that wrong labels do not flatten p, times a
   prior on e without which few labels are thought worse than they are.
3. A label is suspect where p_i[y_i] <= t. If p is right, a correct label falls below t with probability
   FA(t) = mean_i sum_j p_ij [p_ij <= t]; t is the largest with FA(t) <= the rate asked for. Against wrong labels that
   fall on any class alike no other score finds more at that rate (Neyman & Pearson 1933).

How well the stated rate holds is measured by ``benchmarks/audit.py``.

Legend: n labelled pictures, K classes, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from handful.randomness import permutation

RATE = 0.02  # stated share of right labels that are called suspect …
MOST_ALARMS = 10.0  # … and at most so many of them in all: nobody looks through hundreds of good labels
RIDGES = (0.03, 0.1, 0.3, 1.0)
TEMPERATURES = tuple(np.geomspace(0.02, 1.0, 18))
WRONG = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
DOUBT = 9.0  # prior on the share of wrong labels: Beta(1, 1 + DOUBT), mean 9 %
LARGEST = 3000  # pictures that judge each other; more are dealt into groups

Array = NDArray[np.float64]


class Suspects(NamedTuple):
    """What the other labelled pictures say of each label.

    Attributes:
        p: float64 [n, K], probabilities of the classes by the other pictures.
        suspect: bool [n].
        rate: expected share of right labels among the suspects' kind: FA(t).
        wrong: estimated share of wrong labels in all.
    """

    p: Array
    suspect: NDArray[np.bool_]
    rate: float
    wrong: float


def suspects(
    x: NDArray[np.floating], y: NDArray[np.int64], n_classes: int, rate: float | None = None
) -> Suspects:
    """Which labels look wrong.

    Args:
        x: [n, D] frozen features, centred and of length 1.
        y: int64 [n].
        rate: largest stated share of right labels that may be called suspect; by default ``RATE``, or less where
            that would be more than ``MOST_ALARMS`` pictures.
    """
    n = len(x)
    rate = min(RATE, MOST_ALARMS / max(n, 1)) if rate is None else rate
    if n < 2 or len(np.unique(y)) < 2:
        return Suspects(np.full((n, n_classes), 1 / n_classes), np.zeros(n, dtype=bool), 0.0, 0.0)
    groups = np.array_split(permutation(n, "suspects"), -(-n // LARGEST))
    best: tuple[float, Array, float] | None = None
    for ridge in RIDGES:
        f = np.empty((n, n_classes))
        for rows in groups:
            f[rows] = left_out(x[rows].astype(np.float64), y[rows], n_classes, ridge)
        for temperature in TEMPERATURES:
            z = f / temperature
            log_p = z - logsumexp(z, axis=1, keepdims=True)
            given = np.exp(log_p[np.arange(n), y])
            for wrong in WRONG:
                likelihood = float(np.log((1 - wrong) * given + wrong / n_classes + 1e-300).sum())
                likelihood += DOUBT * np.log(1 - wrong)
                if best is None or likelihood > best[0]:
                    best = likelihood, np.exp(log_p), wrong
    assert best is not None
    _, p, wrong = best
    t, stated = threshold(p, rate)
    given = p[np.arange(n), y]
    return Suspects(p, (given <= t) & (p.argmax(1) != y), stated, wrong)


def left_out(x: Array, y: NDArray[np.int64], n_classes: int, ridge: float) -> Array:
    """Ridge regression's answer for each picture from all others, [n, K] (classes weigh alike)."""
    target = np.eye(n_classes)[y]
    with threadpool_limits(1, user_api="blas"):
        inverse = np.linalg.inv(x @ x.T + 1.0 / x.shape[0] + ridge * np.eye(len(x)))
        dual = inverse @ target
    return np.asarray(target - dual / np.diag(inverse)[:, None])


def threshold(p: Array, rate: float) -> tuple[float, float]:
    """The largest t with FA(t) = mean_i sum_j p_ij [p_ij <= t] <= rate, and FA(t); (0, 0) where there is none."""
    values = np.sort(p, axis=None)
    alarms = np.cumsum(values) / len(p)
    k = int(np.searchsorted(alarms, rate, side="right"))
    return (float(values[k - 1]), float(alarms[k - 1])) if k else (0.0, 0.0)
