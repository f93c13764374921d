"""Which candidate is best? Prior knowledge from other data sets and paired cross-validation, put together.

Legend: n labelled pictures, R repeats of the cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from handful.choose.evidence import Belief, combine, measured
from handful.choose.prior import PriorTable

EVIDENCE_FROM = 4  # labels of the rarest class from which cross-validation counts
SURE = 0.25  # standard errors by which a candidate must lead to ship (benchmarks/results/choice.json)

RULE = (
    "The best labelled-only candidate is the baseline. Every candidate that uses unlabelled pictures is compared "
    "with it on the same pictures: what that difference was on other data sets at this number of labels (the prior) "
    f"and what cross-validation says here (counted from {EVIDENCE_FROM} labels per class) are averaged, each weighted "
    f"by its certainty. Of those that lead by more than {SURE:g} standard errors of that average the best one ships; "
    "where none does, the baseline ships."
)


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
