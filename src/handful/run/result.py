"""What every verb that trains hands to the run's files: the classifier that ships, and how it came about.

Legend: n labelled pictures, R repeats, K classes; accuracies are fractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from handful.recipes.task import Fitted
from handful.report.record import Audit, Extra, OwnCurve, Round, Tried
from handful.stats.intervals import accuracy, paired_difference


@dataclass(frozen=True)
class HeldOutAnswers:
    """Answers for labelled pictures that the network had not learned from: of the validation part, or of all labelled
    ones in cross-validation.

    Attributes:
        logits: float32 [n, K], before the temperature, with classes ``truth`` [n].
        right: bool or float [R, n]; the first repeat is that of ``logits``.
        n_folds: of the cross-validation; not read where there is a validation part.
    """

    logits: Tensor
    truth: Tensor
    right: np.ndarray
    n_folds: int = 0

    @classmethod
    def of(cls, logits: Tensor, truth: Tensor, n_folds: int = 0) -> HeldOutAnswers:
        """One repeat."""
        return cls(logits, truth, (logits.argmax(1) == truth).double().unsqueeze(0).numpy(), n_folds)


@dataclass(frozen=True)
class Result:
    """The classifier that ships, and what the report says of how it came about.

    Attributes:
        name: of what ships ("propagation@pixels"), for ``run.toml``.
        temperature: that its logits are divided by.
        tried: a row for each candidate; that of what ships is marked ``chosen``.
        held_out: None where nothing could be measured.
        rule: how it was chosen.
        was_chosen: there was a choice at all.
        unmeasured: why there is no figure, where there is none.
        verdict: the paragraph beside the headline; "": as the page words it.
        next_steps: in place of the usual ones.
        extras: sections of its own.
        reject: as ``stats.reject.threshold`` says it; None: it is asked.
        own_curve, audit, rounds: as in ``Summary``.
    """

    name: str
    fitted: Fitted
    tried: Sequence[Tried]
    held_out: HeldOutAnswers | None
    rule: str
    temperature: float = 1.0
    was_chosen: bool = False
    unmeasured: str = "with a single label in a class there is nothing to measure on"
    verdict: str = ""
    next_steps: Sequence[str] = ()
    extras: Sequence[Extra] = ()
    reject: Mapping[str, Any] | None = None
    own_curve: OwnCurve | None = None
    audit: Audit | None = None
    rounds: list[Round] = field(default_factory=list)

    def probabilities(self, rows: Tensor) -> Tensor:
        """Calibrated class probabilities of pictures by row number: [n, K]."""
        return (self.fitted.logits(rows) / self.temperature).softmax(1)


def measured(row: Tried, right: np.ndarray | None, baseline: np.ndarray | None = None) -> Tried:
    """A row with its accuracy on held-out pictures, and its gain over the baseline's on the same ones.

    Args:
        right: [R, n], or None where it was not measured.
        baseline: [R', n] of the baseline; the repeats that both have are compared.
    """
    if right is None:
        return row
    estimate = accuracy(right)
    row = replace(row, cv_accuracy=estimate.value, cv_interval=estimate.interval)
    if baseline is None:
        return row
    repeats = min(len(right), len(baseline))
    gain = paired_difference(right[:repeats], baseline[:repeats])
    return replace(row, difference=gain.value, difference_interval=gain.interval)
