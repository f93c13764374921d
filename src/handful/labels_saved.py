"""Labels saved: how many labels a labelled-only baseline needs for the accuracy of a recipe.

Accuracies come from *paired* draws: in draw r every recipe was trained on the same labelled pictures. Numbers
in, numbers out. Legend: S sizes (labels per class, ascending), R draws. Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from handful.statistics import Estimate, mean_interval

STEPS = 256  # steps between two sizes, even in log labels, in which the ends of an interval are sought

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelsSaved:
    """What ``size`` labels per class are worth with a recipe, counted in labels of the best baseline.

    Attributes:
        size: labels per class that the recipe had.
        baseline: the labelled-only baseline that does as well (best at the number of labels found).
        labels: labels per class that it needs, or None where its curve does not pass through that accuracy.
        low, high: ends of the interval; None as ``low`` is "fewer than the smallest size", None as ``high``
            "more than we measured". Both are None too where there was one draw alone.
        smallest, largest: the ends of the baseline's curve; nothing is said beyond them.
        better: where ``labels`` is None, whether the recipe lies above the whole curve, or below it.
        draws: label draws that the figures come from.
    """

    size: int
    baseline: str
    labels: float | None
    low: float | None
    high: float | None
    smallest: int
    largest: int
    better: bool
    draws: int

    @property
    def reached(self) -> bool:
        """Whether the baseline's curve passes through the recipe's accuracy."""
        return self.labels is not None

    @property
    def saved(self) -> float | None:
        """Labels per class that need not be made; negative for a recipe worse than the baseline."""
        return None if self.labels is None else self.labels - self.size

    @property
    def words(self) -> str:
        """The number with its interval: ``11 (8 … 17)``, or the side on which it lies."""
        fewer, more = f"fewer than {self.smallest}", "more than we measured"
        if self.labels is None:
            middle = f"{more} (up to {self.largest})" if self.better else fewer
        else:
            middle = _count(self.labels)
        if self.draws < 2:
            return f"{middle} (one draw: no interval)"
        if self.low == self.largest or self.high == self.smallest:
            return middle  # the whole curve is excluded
        low = fewer if self.low is None else _count(self.low)
        high = more if self.high is None else _count(self.high)
        return f"{middle} ({low} … {high})" if self.reached else f"{middle}; interval {low} … {high}"

    def sentence(self, recipe: str) -> str:
        """``with 4 labels per class, X does what logistic needs 11 (8 … 17) for``."""
        return (
            f"with {self.size} {'label' if self.size == 1 else 'labels'} per class, {recipe} does what "
            f"{self.baseline} needs {self.words} for"
        )


def labels_saved(
    sizes: Sequence[int],
    baselines: Mapping[str, ArrayLike],
    method: ArrayLike,
    size: int,
    level: float = 0.95,
) -> LabelsSaved:
    """Labels per class that the best labelled-only baseline needs for what ``method`` does with ``size``.

    The baselines become one curve: at each size the (baseline, size up to here) of the highest mean over draws.
    Taking the best per size is what a careful person without the recipe could do; choosing it by the same
    draws flatters the baseline slightly, which makes the figure for the recipe cautious. Sizes up to here,
    because who has 8 labels may use 4 of them: so the curve never falls. Between sizes it is linear in log labels.

    The interval inverts Student's t test (as Fieller's theorem does for a ratio; E. C. Fieller, JRSS B 16,
    1954): it holds every number m of labels for which the paired differences ``method - curve(m)``, one a draw,
    are compatible with a mean of zero. At five draws it covers about 95 %, where a percentile bootstrap covers
    less than 85 %. Draws keep their pairing throughout; nothing is said beyond the measured sizes.

    Args:
        sizes: ascending labels per class [S].
        baselines: accuracies [S, R] by name; NaN where a cell is missing.
        method: accuracies [S, R] of the recipe. Draws without a figure at ``size`` are left out; so is a
            baseline's size that lacks one of the remaining draws.

    Raises:
        ValueError: for shapes that do not match, sizes not ascending, an unknown ``size``, no draw of the
            method at ``size``, or no complete baseline.
    """
    sizes = [int(n) for n in sizes]
    ours = _accuracies(method, sizes, "method")
    if sorted(set(sizes)) != sizes or not sizes or sizes[0] < 1:
        raise ValueError(f"sizes must be positive and ascending, got {sizes}")
    if size not in sizes:
        raise ValueError(f"size {size} is not among the sizes {sizes}")
    theirs = {name: _accuracies(values, sizes, name) for name, values in baselines.items()}
    for name, values in theirs.items():
        if values.shape != ours.shape:
            raise ValueError(f"{name} has {values.shape[1]} draws and the method {ours.shape[1]}")
    kept = np.isfinite(ours[sizes.index(size)])
    target = ours[sizes.index(size), kept]
    if not len(target):
        raise ValueError(f"the method has no figure at size {size}")
    nodes, names, curve = envelope(sizes, {name: values[:, kept] for name, values in theirs.items()})

    labels = _crossing(nodes, curve.mean(axis=1), float(target.mean()))
    better = bool(target.mean() > curve[-1].mean())
    low, high = _interval(nodes, curve, target, labels, level) if len(target) > 1 else (None, None)
    place = float(nodes[-1] if better else nodes[0]) if labels is None else labels
    upper = int(np.searchsorted(nodes, place * (1 - 1e-12)))
    return LabelsSaved(
        size, names[upper], labels, low, high, int(nodes[0]), int(nodes[-1]), better, len(target)
    )


def envelope(sizes: Sequence[int], baselines: Mapping[str, Array]) -> tuple[Array, list[str], Array]:
    """The best baseline up to each size: sizes [T], its name at each, and its accuracies [T, R] by draw.

    Raises:
        ValueError: where no baseline has all draws at any size.
    """
    nodes, names, rows = [], [], []
    best, best_name = None, ""
    for s, n in enumerate(sizes):
        complete = {name: x[s] for name, x in baselines.items() if np.isfinite(x[s]).all()}
        for name, row in complete.items():
            if best is None or row.mean() > best.mean():
                best, best_name = row, name
        if complete and best is not None:
            nodes.append(float(n))
            names.append(best_name)
            rows.append(best)
    if not rows:
        raise ValueError("no baseline has a figure for every draw of the method at any size")
    return np.array(nodes), names, np.stack(rows)


def paired(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of ``a - b`` over draws [R] that have both, with Student's t interval.

    Raises ValueError where the lengths differ or no draw has both.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"a has shape {x.shape} and b {y.shape}: they must be of the same draws")
    gains = x - y
    return mean_interval(gains[np.isfinite(gains)], level)


def _crossing(nodes: Array, means: Array, target: float) -> float | None:
    """The first number of labels at which the never falling curve reaches ``target``, or None."""
    if not means[0] <= target <= means[-1]:
        return None
    upper = int(np.searchsorted(means, target))
    if means[upper] == target:
        return float(nodes[upper])
    share = (target - means[upper - 1]) / (means[upper] - means[upper - 1])
    return float(nodes[upper - 1] * (nodes[upper] / nodes[upper - 1]) ** share)


def _interval(
    nodes: Array, curve: Array, target: Array, labels: float | None, level: float
) -> tuple[float | None, float | None]:
    """The smallest and largest number of labels that the paired differences do not exclude."""
    logs, places = np.log(nodes), np.arange((len(nodes) - 1) * STEPS + 1) / STEPS
    candidates = np.interp(places, np.arange(len(nodes)), logs)
    if labels is not None:
        candidates = np.sort(np.append(candidates, np.log(labels)))
    there = np.stack([np.interp(candidates, logs, draw) for draw in curve.T])  # [R, candidates]
    gains = target[:, None] - there
    n = len(target)
    half = stdtrit(n - 1, 0.5 + level / 2) * gains.std(axis=0, ddof=1) / n**0.5
    accepted = np.abs(gains.mean(axis=0)) <= half + 1e-12
    if not accepted.any():
        above = target.mean() > curve[-1].mean()
        return (float(nodes[-1]), None) if above else (None, float(nodes[0]))
    inside = np.exp(candidates[accepted])
    return None if accepted[0] else float(inside[0]), None if accepted[-1] else float(inside[-1])


def _accuracies(values: ArrayLike, sizes: Sequence[int], name: str) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] != len(sizes) or x.shape[1] == 0:
        raise ValueError(f"{name} must be [{len(sizes)} sizes, draws], got shape {x.shape}")
    return x


def _count(labels: float) -> str:
    """A number of labels: one decimal below ten, none where it would say nothing."""
    return f"{labels:.0f}" if labels >= 9.95 else f"{labels:.1f}".removesuffix(".0")
