"""Which candidate is best? Prior knowledge from other data sets and paired cross-validation, put together.

All figures are *differences of accuracy between two candidates on the same pictures*, never two accuracies
compared by eye. A prior and a measurement, each a mean with a standard deviation, combine by precision:
posterior = (m1 / s1^2 + m2 / s2^2) / (1 / s1^2 + 1 / s2^2).

Legend: n labelled pictures, R repeats of the cross-validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np

EVIDENCE_FROM = 4  # labels of the rarest class from which cross-validation counts
DOUBT = 0.10  # added spread of log error ratios: another data set is never quite like those measured
LONE_SPREAD = 0.5  # their spread where a single data set was measured
LEAST_ERROR = 0.005  # smaller errors in the table count as this
NO_PRIOR = (0.0, 0.10)  # mean and spread of a difference that nothing is known about
SURE = 0.5  # standard errors by which a candidate must lead to ship (benchmarks/results/choice.json)

RULE = (
    "The best labelled-only candidate is the baseline. Every candidate that uses unlabelled pictures is compared "
    "with it on the same pictures: what that difference was on other data sets at this number of labels (the prior) "
    f"and what cross-validation says here (counted from {EVIDENCE_FROM} labels per class) are averaged, each weighted "
    f"by its certainty. Of those that lead by more than {SURE:g} standard errors of that average the best one ships; "
    "where none does, the baseline ships."
)


ALIKE = {
    "small colour": ("small colour", "photo")
}  # kinds whose data sets speak for a kind; else only its own


class Belief(NamedTuple):
    """A difference of accuracies: mean and standard deviation."""

    mean: float
    sd: float


def combine(a: Belief, b: Belief) -> Belief:
    """Precision-weighted average of two independent beliefs."""
    wa, wb = 1 / a.sd**2, 1 / b.sd**2
    return Belief((a.mean * wa + b.mean * wb) / (wa + wb), (wa + wb) ** -0.5)


def measured(a: np.ndarray, b: np.ndarray, n_folds: int) -> Belief:
    """Difference of two candidates from right/wrong arrays [R, n] of the same repeated cross-validation.

    Repeats are averaged per picture; the variance over pictures is enlarged by 1 + 1 / (folds - 1), because the
    folds share training pictures (Nadeau & Bengio 2003, sec. 3), and never falls below that of a single
    changed decision, so that few equal answers are not taken for certainty.
    """
    gain = a.mean(0) - b.mean(0)
    n = len(gain)
    if n < 2:
        return Belief(float(gain.mean()), 1.0)  # one picture says next to nothing
    variance = max(float(gain.var(ddof=1)), 1 / n) / n
    inflation = 1 + 1 / (n_folds - 1) if n_folds > 1 else 1.0
    return Belief(float(gain.mean()), math.sqrt(variance * inflation))


@dataclass(frozen=True)
class PriorTable:
    """Mean accuracies on benchmark data sets: {(data set, kind, labels per class): {candidate: accuracy}}."""

    rows: Mapping[tuple[str, str, int], Mapping[str, float]] = field(default_factory=dict)

    def without(self, names: Iterable[str]) -> PriorTable:
        """The table without some data sets: for an honest test on those."""
        gone = set(names)
        return PriorTable({key: value for key, value in self.rows.items() if key[0] not in gone})

    def difference(self, a: str, b: str, kind: str, labels: int, error: float | None = None) -> Belief:
        """What ``a`` should gain over ``b`` here, going by data sets of this kind at the number of labels nearest to
        ``labels`` (in log), each data set counting once.

        Gains shrink where little is left to gain, so they are averaged as d = log(error_b / error_a), and
        brought back as error_b (1 - exp(-d)). The spread is that between data sets, with a doubt added.

        Args:
            error: of ``b`` on the pictures at hand; by default its mean over the data sets.
        """
        if a == b:
            return Belief(0.0, 1e-6)
        logs, errors = [], []
        here = {
            k: row
            for k, row in self.rows.items()
            if k[1] in ALIKE.get(kind, (kind,)) and a in row and b in row
        }
        for name in sorted({k[0] for k in here}):
            sizes = [k[2] for k in here if k[0] == name]
            if sizes:
                size = min(sizes, key=lambda s: abs(math.log(s / max(labels, 1))))
                row = next(row for k, row in here.items() if k[0] == name and k[2] == size)
                errors.append(1 - row[b])
                logs.append(math.log(max(1 - row[b], LEAST_ERROR) / max(1 - row[a], LEAST_ERROR)))
        if not logs:
            return Belief(*NO_PRIOR)
        mean = float(np.mean(logs))
        spread = math.hypot(float(np.std(logs, ddof=1)) if len(logs) > 1 else LONE_SPREAD, DOUBT)
        left = math.exp(-mean) * (float(np.mean(errors)) if error is None else error)
        return Belief(left * (math.exp(mean) - 1), left * spread)


@cache
def prior_table() -> PriorTable:
    """The table that ships with handful, made by ``python -m benchmarks.prior``."""
    path = resources.files("handful.choose") / "prior.json"
    rows = json.loads(path.read_text())["rows"]
    return PriorTable({(r["data"], r["kind"], r["labels"]): r["accuracy"] for r in rows})


class Verdict(NamedTuple):
    """The choice: its name, the labelled-only baseline, and every candidate's belief against that baseline."""

    chosen: str
    baseline: str
    beliefs: dict[str, Belief]
    priors: dict[str, Belief]


def decide(
    candidates: Mapping[str, bool],
    prior: PriorTable,
    kind: str,
    labels: int,
    right: Mapping[str, np.ndarray],
    n_folds: int,
    sure: float = SURE,
) -> Verdict:
    """Apply ``RULE``.

    Args:
        candidates: name to whether it uses unlabelled pictures; the first labelled-only one is the reference.
        kind: "photo", "small colour" or "small".
        labels: of the rarest class.
        right: right/wrong [R, n] by candidate, where measured.
        n_folds: of the cross-validation (1: a separate validation part).
        sure: standard errors by which a candidate must lead.
    """

    def belief(a: str, b: str) -> Belief:
        known = prior.difference(a, b, kind, labels, error(b))
        if a == b or a not in right or b not in right:
            return known
        repeats = min(len(right[a]), len(right[b]))
        return combine(known, measured(right[a][:repeats], right[b][:repeats], n_folds))

    def error(name: str) -> float | None:
        """Held-out error of a candidate (never quite 0 or 1: Laplace's rule), where it was measured."""
        if name not in right:
            return None
        repeats, n = right[name].shape
        return float((n - right[name].sum() / repeats + 1) / (n + 2))

    labelled_only = [name for name, unlabelled in candidates.items() if not unlabelled]
    reference = labelled_only[0]
    baseline = max(labelled_only, key=lambda name: belief(name, reference).mean)
    beliefs = {name: belief(name, baseline) for name in candidates}
    priors = {name: prior.difference(name, baseline, kind, labels, error(baseline)) for name in candidates}
    users = [name for name, unlabelled in candidates.items() if unlabelled]
    leading = [name for name in users if beliefs[name].mean > sure * beliefs[name].sd]
    chosen = max(leading, key=lambda name: beliefs[name].mean, default=baseline)
    return Verdict(chosen, baseline, beliefs, priors)
