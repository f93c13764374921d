"""What is known from other data sets: how candidates compared there, carried over to the pictures at hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np

from handful.choose.evidence import Belief

DOUBT = 0.10  # added spread of log error ratios: another data set is never quite like those measured
LONE_SPREAD = 0.5  # their spread where a single data set was measured
LEAST_ERROR = 0.005  # smaller errors in the table count as this
NO_PRIOR = (0.0, 0.10)  # mean and spread of a difference that nothing is known about
# Kinds whose data sets speak for a kind; for another one only its own do.
ALIKE = {"small colour": ("small colour", "photo")}


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
