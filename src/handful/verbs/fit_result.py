"""What ``fit`` looks into after the choice, and the choice as a ``Result``.

Legend: m unlabelled pictures, n labelled ones, K classes; accuracies are fractions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handful.choose.auto import Outcome, Trial
from handful.choose.rule import RULE
from handful.recipes.task import Task, Workshop
from handful.report.record import Audit, Round, Tried
from handful.report.record import OwnCurve as CurveOnPage
from handful.report.words import titled
from handful.run.pictures import Pictures
from handful.run.result import HeldOutAnswers, Result, measured
from handful.run.teller import Teller
from handful.stats.intervals import accuracy, paired_difference
from handful.study.afterwards import accuracy_afterwards
from handful.study.learning_curve import OwnCurve, own_curve
from handful.study.pseudo_labels import PseudoLabels, pseudo_labels
from handful.study.screening import Screening, screened

FEW_CHECKED = 10  # a share of fewer pictures than this is not shown
EDGES = (0.0, 0.5, 0.7, 0.9, 0.99, 1.0)  # of confidence, in the audit of pseudo-labels


@dataclass(frozen=True)
class Studies:
    """What was looked into, each None where it cannot be.

    Attributes:
        curve: the user's own learning curve.
        pseudo: what became of the unlabelled pictures; ``screening``: what is wrong with them.
        tested: accuracy of the other candidates on the test part, by their keys.
    """

    curve: OwnCurve | None = None
    pseudo: PseudoLabels | None = None
    tested: Mapping[str, float] = field(default_factory=dict)
    screening: Screening | None = None

    def told(self, pictures: Pictures, folder: Path, teller: Teller) -> Pictures:
        """The pictures with the problems of the unlabelled ones; in words what a person should know of all that."""
        if self.screening:
            pictures = pictures.with_issues(self.screening.issues(pictures.task), folder)
            for issue in self.screening.overall(pictures.task.classes):
                teller.tell(f"{issue.file}: {issue.reason}; {issue.suggestion} ({folder / 'issues.csv'})")
        if self.curve:
            teller.tell(self.curve.advice())
        return pictures


def study(outcome: Outcome, pictures: Pictures, workshop: Workshop) -> Studies:
    """Look into the run, for the report alone: nothing is chosen by it."""
    task = pictures.task
    return Studies(
        own_curve(task, workshop, outcome),
        pseudo_labels(task, workshop, outcome),
        accuracy_afterwards(task, workshop, outcome, pictures.test, pictures.test_y),
        screened(task, workshop, outcome),
    )


def as_result(outcome: Outcome, task: Task, studies: Studies) -> Result:
    """The choice, for the run's files."""
    trial, curve, pseudo = outcome.trials[outcome.chosen], studies.curve, studies.pseudo
    held = None
    if trial.right is not None and trial.logits is not None and trial.truth is not None:
        held = HeldOutAnswers(trial.logits, trial.truth, trial.right, outcome.n_folds)
    return Result(
        name=outcome.chosen,
        fitted=outcome.fitted,
        tried=tried(outcome, studies.tested),
        held_out=held,
        rule=RULE if outcome.verdict else f"No choice was made: --recipe asked for {outcome.chosen}.",
        temperature=outcome.temperature,
        was_chosen=outcome.verdict is not None,
        own_curve=curve_on_page(curve, title(outcome.trials[curve.name])) if curve else None,
        audit=audit_of(task, pseudo) if pseudo else None,
        rounds=rounds_of(trial, pseudo.threshold) if pseudo else [],
    )


def tried(outcome: Outcome, tested: Mapping[str, float]) -> list[Tried]:
    """One row per candidate; differences are to the labelled-only baseline, on the same pictures."""
    verdict = outcome.verdict
    reference = verdict.baseline if verdict else outcome.twin
    base = outcome.trials[reference].right if reference else None
    rows = []
    for key, trial in outcome.trials.items():
        row = Tried(
            name=title(trial),
            uses_unlabelled=trial.uses_unlabelled,
            seconds=trial.seconds or None,
            chosen=key == outcome.chosen,
            baseline=key == reference,
            test_accuracy=tested.get(key),
            note=trial.note,
            words=trial.recipe.words,
        )
        row = measured(row, trial.right, None if row.baseline else base)
        if verdict and not row.baseline and key in verdict.beliefs:
            row.prior_mean, row.prior_sd = verdict.priors[key]
            row.posterior_mean, row.posterior_sd = verdict.beliefs[key]
        rows.append(row)
    return rows


def title(trial: Trial) -> str:
    """A candidate's name for people."""
    begun = f", started by {trial.candidate.init}" if trial.candidate.init else ""
    return titled(trial.recipe.title, f"{trial.candidate.on}{begun}")


def curve_on_page(curve: OwnCurve, name: str) -> CurveOnPage:
    """The measured curve and its forecast, as the page draws and tables it."""
    f = curve.expected
    rows = range(len(f.sizes))
    return {
        "name": name,
        "measured": list(zip(curve.sizes, curve.accuracy)),
        "expected": [(f.sizes[i], float(f.mean[i]), float(f.low[i]), float(f.high[i])) for i in rows],
        "more": [(curve.more(i), *curve.gain(i)) for i in rows if i],
        "advice": re.sub(r"(?<!\w)-(?=\d)", "\u2212", replace(curve, name=name).advice()),
    }


def rounds_of(trial: Trial, threshold: float) -> list[Round]:
    """Every network of a chain on the held-out labelled pictures: how right, and how right what it is sure of."""
    rows: list[Round] = []
    before: np.ndarray | None = None
    for name, logits in trial.rounds.items():
        assert trial.truth is not None
        confidence, guess = logits.softmax(1).max(1)
        right, sure = (guess == trial.truth).double().numpy(), (confidence >= threshold).numpy()
        estimate, few = accuracy(right), int(sure.sum()) < FEW_CHECKED
        gain = None if before is None else paired_difference(right, before)
        rows.append(
            {
                "name": name,
                "right": estimate.value,
                "interval": estimate.interval,
                "n": len(right),
                "gain": gain and (gain.value, gain.low, gain.high),
                "sure": int(sure.sum()),
                "sure_right": None if few else float(right[sure].mean()),
            }
        )
        before = right
    return rows


def audit_of(task: Task, pseudo: PseudoLabels) -> Audit:
    """How many pseudo-labels of which confidence; how right, going by labelled pictures treated alike."""
    confidence, guess = pseudo.p.max(1)
    used = confidence >= pseudo.threshold
    audit: Audit = {
        "n_unlabelled": len(confidence),
        "n_used": int(used.sum()),
        "threshold": pseudo.threshold,
        "note": pseudo.note,
    }
    if used.any():
        audit["mean_confidence"] = float(confidence[used].mean())
    sure, said, right = torch.empty(0), torch.empty(0), torch.empty(0)
    if pseudo.checked is not None and pseudo.truth is not None:
        sure, said = pseudo.checked.max(1)
        kept = sure >= pseudo.threshold
        sure, said, right = sure[kept], said[kept], (said == pseudo.truth)[kept].double()
        if len(right):
            estimate = accuracy(right.numpy())
            audit |= {"accuracy": estimate.value, "interval": estimate.interval, "n_checked": len(right)}

    def share(which: Tensor) -> float | None:
        return float(right[which].mean()) if int(which.sum()) >= FEW_CHECKED else None

    audit["bins"] = []
    for low, high in pairwise(EDGES):
        last = high == EDGES[-1]
        inside = used & (confidence >= low) & ((confidence <= high) if last else (confidence < high))
        known = (sure >= low) & ((sure <= high) if last else (sure < high))
        if inside.any():
            audit["bins"].append((low, high, int(inside.sum()), share(known)))
    audit["per_class"] = {
        name: (int((used & (guess == k)).sum()), share(said == k)) for k, name in enumerate(task.classes)
    }
    return audit
