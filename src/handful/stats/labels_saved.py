"""Labels saved: how many labels does the best labelled-only baseline need for a method's accuracy?

Legend: S sizes (labels per class, ascending), R label draws (paired: draw r is the same pictures in every table).
Accuracies are fractions [S, R], NaN where a draw is missing.

The baseline's curve is, at each size, the labelled-only recipe with the highest mean there (picked with hindsight,
which favours the baselines a little and so understates what is saved), made monotone, and interpolated linearly in
log labels. It is never extended beyond the sizes that were measured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

STEPS = 2000  # of the search along the curve


@dataclass(frozen=True)
class LabelsSaved:
    """``given`` labels per class with the method do what ``labels`` do for the baseline.

    Attributes:
        labels: per class; None where the curve does not reach the accuracy (then ``beyond`` says at which end).
        low, high: 95 % interval; None where that end lies outside the measured sizes or cannot be told.
        beyond: "" within the curve, "above" where the baseline never gets there, "below" where it is better with
            the fewest labels that were measured.
        baseline: the labelled-only recipe nearest to that point of the curve.
        sure: False where the method lies beyond the curve, and the paired difference at that end is not told apart from
            zero (or there are fewer than two draws to tell by).
    """

    given: int
    labels: float | None
    low: float | None
    high: float | None
    beyond: str
    baseline: str
    smallest: int
    largest: int
    sure: bool = True


def labels_saved(
    sizes: Sequence[int],
    baselines: Mapping[str, NDArray[np.float64]],
    method: NDArray[np.float64],
    level: float = 0.95,
) -> list[LabelsSaved]:
    """One answer for each size.

    The interval holds every number of labels m at which the paired difference between the method and the baseline
    curve, draw by draw, is not told apart from zero by Student's t test over the draws (a test turned into an
    interval, after Fieller, "Some problems in interval estimation", JRSS B 16, 1954). Over five draws it covers
    what it claims; a percentile bootstrap over five covers 83 % (tests/test_labels_saved.py).

    Raises:
        ValueError: shapes that do not fit, or sizes that do not ascend.
    """
    sizes_ = list(sizes)
    if sizes_ != sorted(set(sizes_)) or min(sizes_, default=0) < 1:
        raise ValueError(f"sizes must ascend from at least 1, got {sizes_}")
    for name, table in {**baselines, "method": method}.items():
        if table.shape != (len(sizes_), method.shape[1]):
            raise ValueError(f"{name}: expected [{len(sizes_)}, {method.shape[1]}], got {list(table.shape)}")
    names, curve = best_curve(baselines)
    where = np.log(np.array(sizes_, dtype=float))
    raw = _mean(curve)
    mean = np.maximum.accumulate(raw)
    curve = curve + (mean - raw)[:, None]  # a dip is levelled in every draw alike
    return [_at_size(i, sizes_, where, names, curve, mean, method[i], level) for i in range(len(sizes_))]


def best_curve(baselines: Mapping[str, NDArray[np.float64]]) -> tuple[list[str], NDArray[np.float64]]:
    """At each size the baseline with the highest mean: names [S] and accuracies [S, R].

    Raises:
        ValueError: there is no baseline.
    """
    if not baselines:
        raise ValueError("labels are saved beside a labelled-only baseline, and there is none")
    order = list(baselines)
    means = np.stack([_mean(baselines[name]) for name in order])  # [baselines, S]
    best = np.where(np.isnan(means), -np.inf, means).argmax(0)
    return [order[b] for b in best], np.stack([baselines[order[b]][s] for s, b in enumerate(best)])


def _at_size(
    i: int,
    sizes: list[int],
    where: NDArray[np.float64],
    names: list[str],
    curve: NDArray[np.float64],
    mean: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    level: float,
) -> LabelsSaved:
    target = float(_mean(accuracy[None])[0])
    beyond = "above" if target > mean[-1] else "below" if target < mean[0] else ""
    solved = None if beyond or math.isnan(target) else _solve(where, mean, target)
    labels = None if solved is None else float(np.exp(solved))
    points = [*where, *([] if solved is None else [solved])]
    log_m = np.union1d(np.linspace(where[0], where[-1], STEPS), points)
    place = where[-1 if beyond == "above" else 0] if solved is None else solved
    nearest = names[int(np.abs(where - place).argmin())]
    low, high, outside = _interval(log_m, where, curve, accuracy, level)
    sure = not beyond or outside[-1 if beyond == "above" else 0]
    return LabelsSaved(sizes[i], labels, low, high, beyond, nearest, sizes[0], sizes[-1], sure)


def _solve(where: NDArray[np.float64], mean: NDArray[np.float64], target: float) -> float:
    """The first point of the monotone curve that reaches ``target``, which lies within its range."""
    right = int(np.searchsorted(mean, target))
    if right == 0 or mean[right] == target:
        return float(where[right])
    share = (target - mean[right - 1]) / (mean[right] - mean[right - 1])
    return float(where[right - 1] + share * (where[right] - where[right - 1]))


def _interval(
    log_m: NDArray[np.float64],
    where: NDArray[np.float64],
    curve: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    level: float,
) -> tuple[float | None, float | None, tuple[bool, ...]]:
    """The ends of all m whose paired difference is compatible with zero; None at an end of the measured sizes. Also
    whether it is told apart from zero, at each m."""
    whole = ~np.isnan(accuracy) & ~np.isnan(curve).any(0)
    draws = int(whole.sum())
    if draws < 2:
        return None, None, (False,)
    along = np.stack([np.interp(log_m, where, curve[:, r]) for r in np.flatnonzero(whole)], axis=1)  # [m, R]
    gap = accuracy[whole] - along
    slack = float(stdtrit(draws - 1, 0.5 + level / 2)) * gap.std(1, ddof=1) / math.sqrt(draws)
    outside = np.abs(gap.mean(1)) > slack + 1e-12
    inside = np.flatnonzero(~outside)
    if not len(inside):
        return None, None, tuple(outside.tolist())
    first, last = int(inside[0]), int(inside[-1])
    low = None if first == 0 else float(np.exp(log_m[first]))
    high = None if last == len(log_m) - 1 else float(np.exp(log_m[last]))
    return low, high, tuple(outside.tolist())


def _mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over draws [S], NaN where none was measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice": NaN is the answer
        return np.asarray(np.nanmean(table, axis=1))


def worth(saved: LabelsSaved) -> str:
    """ "11 (8 … 17)", "more than 64 (the most measured)", "fewer than 1 (the fewest measured)"; "perhaps more …" where
    that is not sure."""
    perhaps = "" if saved.sure else "perhaps "
    if saved.beyond == "above":
        least = f", at least {_count(saved.low)}" if saved.low is not None else ""
        return f"{perhaps}more than {saved.largest} (the most measured{least})"
    if saved.beyond == "below":
        return f"{perhaps}fewer than {saved.smallest} (the fewest measured)"
    if saved.labels is None:
        return "not known"
    low = "< " + str(saved.smallest) if saved.low is None else _count(saved.low)
    high = "> " + str(saved.largest) if saved.high is None else _count(saved.high)
    return f"{_count(saved.labels)} ({low} … {high})"


def sentence(method: str, saved: LabelsSaved) -> str:
    """ "With 4 labels per class, X does what logistic regression needs 11 (8 … 17) for"."""
    labels = "label" if saved.given == 1 else "labels"
    if saved.beyond:
        side, end = (
            ("better", f"{saved.largest}, the most")
            if saved.beyond == "above"
            else ("worse", f"{saved.smallest}, the fewest")
        )
        words = f"With {saved.given} {labels} per class, {method} does {side} than {saved.baseline} with {end} measured"
        least = f", and surely as well as with {_count(saved.low)}" if saved.low is not None else ""
        return f"{words}." if saved.sure else f"{words}, but that is not certain{least}."
    return f"With {saved.given} {labels} per class, {method} does what {saved.baseline} needs {worth(saved)} for."


def _count(labels: float) -> str:
    """1.4, 11, 240: two digits are all that such a number can carry."""
    return f"{labels:.1f}".rstrip("0").rstrip(".") if labels < 10 else f"{labels:.0f}"
