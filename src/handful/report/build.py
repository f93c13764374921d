"""From a finished run to its ``Summary``: every figure of the report is made here.

Legend: n pictures, K classes; accuracies are fractions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from handful.choose.auto import Outcome, Trial
from handful.choose.rule import RULE
from handful.data.manifest import SPLITS
from handful.models.classifier import Classifier
from handful.models.heads import NearestNeighbours
from handful.recipes.task import Task, Validation
from handful.report.record import (
    Audit,
    ConfusedPair,
    Extra,
    Problem,
    Round,
    Summary,
    Thumb,
    Tried,
    curves,
    read,
)
from handful.report.record import OwnCurve as CurveOnPage
from handful.stats.calibration import expected_calibration_error, reliability_bins
from handful.stats.intervals import (
    accuracy,
    balanced_accuracy,
    macro_f1,
    paired_difference,
    wilson,
)
from handful.study.learning_curve import OwnCurve
from handful.study.pseudo_labels import PseudoLabels

GALLERY = 12  # pictures in a gallery
FEWEST_PAIRS = 3  # confused pairs that are shown even where each was confused but once
FEW_HELD_OUT = 30  # fewer held-out pictures than this make no reliability diagram
FEW_CHECKED = 10  # a share of fewer pictures than this is not shown
MOST_ISSUES = 24  # problems shown; all of them stand in issues.csv
EDGES = (0.0, 0.5, 0.7, 0.9, 0.99, 1.0)  # of confidence, in the audit of pseudo-labels


class Issue(Protocol):
    """What summarise needs to know of a problem in the data."""

    @property
    def file(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def suggestion(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def other(self) -> str: ...


@dataclass(frozen=True)
class Words:
    """What a verb other than ``fit`` says in its own way.

    Attributes:
        rule: how it came to the classifier that ships.
        unmeasured: why there is no figure, where there is none.
        verdict: the paragraph beside the headline; "": as the page words it.
        next_steps: in place of the usual ones.
        extras: sections of its own.
    """

    rule: str = ""
    unmeasured: str = "with a single label in a class there is nothing to measure on"
    verdict: str = ""
    next_steps: Sequence[str] = ()
    extras: Sequence[Extra] = ()


def summarise(
    task: Task,
    outcome: Outcome,
    *,
    name: str,
    validation: Validation | None,
    test: Tensor,
    test_y: Tensor,
    folder: Path,
    plan: Mapping[str, Any],
    seconds: float,
    digest: str,
    command: str,
    counts: Mapping[str, Mapping[str, int]],
    versions: Mapping[str, str],
    seed: int,
    curve: OwnCurve | None = None,
    pseudo: PseudoLabels | None = None,
    issues: Sequence[Issue] = (),
    reject: Mapping[str, Any] | None = None,
    tested: Mapping[str, float] | None = None,
    words: Words | None = None,
) -> Summary:
    """Everything that the page shows; test labels are looked at here for the first time."""
    trial, words = outcome.trials[outcome.chosen], words or Words()
    p_test = outcome.probabilities(test) if len(test) else None
    summary = Summary(
        title=f"{name}: {task.n_classes} classes from {len(task.labelled)} labels",
        data_name=name,
        counts=_counts(counts),
        n_labelled=len(task.labelled),
        n_unlabelled=len(task.unlabelled),
        n_validation=len(validation.rows) if validation else 0,
        n_test=len(test),
        tried_on="validation pictures" if validation else "cross-validation",
        classes=list(task.classes),
        verdict=words.verdict,
        decision_rule=words.rule
        or (RULE if outcome.verdict else f"No choice was made: --recipe asked for {outcome.chosen}."),
        extras=list(words.extras),
        asked_for=outcome.verdict is None,
        tried=_tried(outcome, tested or {}),
        curves={k: v for k, v in curves(read(folder / "metrics.jsonl")).items() if "/" not in k},
        mean_pictures=_mean_pictures(task),
        command=command,
        provenance={
            **{
                name: f"{value:.3g}" if isinstance(value, float) else str(value)
                for name, value in plan.items()
            },
            "seed": str(seed),
            "seconds in all": f"{seconds:.0f}",
            "memory of what was learned": _memory(outcome.fitted.classifier, len(task.labelled)),
            "SHA-256 of the weights": digest,
            **versions,
        },
    )
    if p_test is not None:
        right = (p_test.argmax(1) == test_y).numpy()
        estimate = accuracy(right)
        summary.headline_accuracy, summary.headline_interval = estimate.value, estimate.interval
        summary.measured_on = f"a test part of {len(test)} pictures that was not used for any choice"
        for tried in summary.tried:
            if tried.chosen:
                tried.test_accuracy = estimate.value
        _confusion(summary, task, test, test_y, p_test)
        summary.confusion_on = "the test part"
    elif trial.right is not None:
        estimate = accuracy(trial.right)
        summary.headline_accuracy, summary.headline_interval = estimate.value, estimate.interval
        n = trial.right.shape[1]
        if validation:
            summary.measured_on = (
                f"{n} validation pictures, which were also used to choose (so a little flattering)"
            )
        else:
            summary.measured_on = (
                f"{outcome.n_folds}-fold cross-validation on the {n} labelled pictures, "
                "which were also used to choose (so a little flattering)"
            )
        if trial.logits is not None and trial.truth is not None:
            rows = validation.rows if validation else task.labelled
            _confusion(summary, task, rows, trial.truth, (trial.logits / outcome.temperature).softmax(1))
            summary.confusion_on = "held-out labelled pictures"
    else:
        summary.measured_on = f"nothing: {words.unmeasured}"
    if p_test is not None and len(test) >= FEW_HELD_OUT:
        _reliability(summary, outcome.fitted.logits(test), test_y, outcome.temperature)
        summary.reliability_on = "the test part"
    elif trial.logits is not None and trial.truth is not None and len(trial.truth) >= FEW_HELD_OUT:
        _reliability(summary, trial.logits, trial.truth, outcome.temperature)
        summary.reliability_on = (
            "held-out labelled pictures, by which the temperature was set (so a little flattering)"
        )
    summary.reject = dict(reject or {})
    if reject and p_test is not None:
        low = p_test.amax(1) < reject["threshold"]
        right_ones = int((low & (p_test.argmax(1) == test_y)).sum())
        summary.reject |= {"n_test": len(test), "below": int(low.sum()), "below_right": right_ones}
    if curve:
        summary.own_curve = _own_curve(replace(curve, name=_title(outcome.trials[curve.name])))
    if pseudo:
        summary.audit = _audit(task, pseudo)
        summary.rounds = _rounds(trial, pseudo.threshold)
    _issues(summary, task, issues)
    if len(task.unlabelled):
        _least_sure(summary, task, outcome)
    summary.next_steps = list(words.next_steps) or _next_steps(summary, task, outcome, folder)
    return summary


def _memory(classifier: Classifier, labelled: int) -> str:
    """What the head on frozen features takes, or the whole network; stored examples grow with the labels."""
    told = f"{classifier.learned_bytes / 1024:,.1f} kB"
    if classifier.head is None:
        return f"{told}, the whole network"
    if any(isinstance(module, NearestNeighbours) for module in classifier.head.modules()):
        return f"{told}, the features of all {labelled:,} labelled pictures: it grows with each label"
    return f"{told}, a head on frozen features"


def _counts(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Classes and their splits, without the splits that no class has pictures in and the classes without any."""
    used = [split for split in SPLITS if any(row.get(split) for name, row in counts.items() if name)]
    named = {name: row for name, row in counts.items() if name and any(row.values())}
    return {name: {split: row.get(split, 0) for split in used} for name, row in named.items()}


def _tried(outcome: Outcome, tested: Mapping[str, float]) -> list[Tried]:
    """One row per candidate; differences are to the labelled-only baseline, on the same pictures."""
    verdict = outcome.verdict
    reference = verdict.baseline if verdict else outcome.twin
    base = outcome.trials[reference] if reference else None
    rows = []
    for key, trial in outcome.trials.items():
        row = Tried(
            name=_title(trial),
            uses_unlabelled=trial.uses_unlabelled,
            seconds=trial.seconds or None,
            chosen=key == outcome.chosen,
            baseline=key == reference,
            test_accuracy=tested.get(key),
            note=trial.note,
        )
        if trial.right is not None:
            estimate = accuracy(trial.right)
            row.cv_accuracy, row.cv_interval = estimate.value, estimate.interval
            if base is not None and base.right is not None and base is not trial:
                gain = paired_difference(*_same_repeats(trial, base))
                row.difference, row.difference_interval = gain.value, gain.interval
        if verdict and base is not trial and key in verdict.beliefs:
            row.prior_mean, row.prior_sd = verdict.priors[key]
            row.posterior_mean, row.posterior_sd = verdict.beliefs[key]
        rows.append(row)
    return rows


def _title(trial: Trial) -> str:
    """A candidate's name for people."""
    begun = f", started by {trial.init}" if trial.init else ""
    return f"{trial.recipe.title} ({trial.on}{begun})"


def _same_repeats(a: Trial, b: Trial) -> tuple[np.ndarray, np.ndarray]:
    assert a.right is not None and b.right is not None
    repeats = min(len(a.right), len(b.right))
    return a.right[:repeats], b.right[:repeats]


def _confusion(summary: Summary, task: Task, rows: Tensor, y: Tensor, p: Tensor) -> None:
    """Matrix, most confused pairs with pictures, and the most confident mistakes."""
    confidence, guess = p.max(1)
    k = task.n_classes
    matrix = torch.bincount(y * k + guess, minlength=k * k).view(k, k)
    summary.confusion = matrix.tolist()
    summary.balanced_accuracy = balanced_accuracy(y.numpy(), guess.numpy(), k)
    summary.macro_f1 = macro_f1(y.numpy(), guess.numpy(), k)
    off = matrix.clone().fill_diagonal_(0)
    for flat in off.flatten().argsort(descending=True, stable=True)[:5].tolist():
        truth, predicted = divmod(flat, k)
        n = int(off[truth, predicted])
        if n > 1 or (n and len(summary.confused_pairs) < FEWEST_PAIRS):
            where = torch.nonzero((y == truth) & (guess == predicted)).flatten()[:4]
            thumbs = [_thumb(task, rows[i], p[i], y[i]) for i in where]
            summary.confused_pairs.append(
                ConfusedPair(task.classes[truth], task.classes[predicted], n, thumbs)
            )
    wrong = torch.nonzero(guess != y).flatten()
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)][:GALLERY]
    summary.mistakes = [_thumb(task, rows[i], p[i], y[i]) for i in worst]


def _thumb(task: Task, row: Tensor, p: Tensor, truth: Tensor | None = None) -> Thumb:
    confidence, guess = p.max(0)
    return Thumb(
        image=task.images.take(row.view(1))[0].numpy(),
        caption=task.images.names[int(row)],
        label=task.classes[int(guess)],
        truth=None if truth is None else task.classes[int(truth)],
        confidence=float(confidence),
    )


def _mean_pictures(task: Task) -> dict[str, Thumb]:
    means = {}
    for k, name in enumerate(task.classes):
        rows = task.labelled[task.y == k][:500]
        if not len(rows):
            continue
        mean = task.images.take(rows).float().mean(0).round().to(torch.uint8)
        means[name] = Thumb(mean.numpy(), caption=f"mean of {len(rows)}", label=name)
    return means


def _reliability(summary: Summary, z: Tensor, truth: Tensor, temperature: float) -> None:
    """Confidence against accuracy of logits [n, K], before and after temperature scaling."""
    right = (z.argmax(1) == truth).numpy()
    before = z.softmax(1).amax(1).numpy()
    after = (z / temperature).softmax(1).amax(1).numpy()
    summary.reliability = {
        "before": [(b.confidence, b.accuracy, b.n) for b in reliability_bins(before, right)],
        "after": [(b.confidence, b.accuracy, b.n) for b in reliability_bins(after, right)],
        "ece_before": expected_calibration_error(before, right),
        "ece_after": expected_calibration_error(after, right),
        "temperature": temperature,
    }


def _own_curve(curve: OwnCurve) -> CurveOnPage:
    """The measured curve and its forecast, as the page draws and tables it."""
    f = curve.expected
    rows = range(len(f.sizes))
    return {
        "name": curve.name,
        "measured": list(zip(curve.sizes, curve.accuracy)),
        "expected": [(f.sizes[i], float(f.mean[i]), float(f.low[i]), float(f.high[i])) for i in rows],
        "more": [(curve.more(i), *curve.gain(i)) for i in rows if i],
        "advice": re.sub(r"(?<!\w)-(?=\d)", "\u2212", curve.advice()),
    }


def _rounds(trial: Trial, threshold: float) -> list[Round]:
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


def _audit(task: Task, pseudo: PseudoLabels) -> Audit:
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


def _issues(summary: Summary, task: Task, issues: Sequence[Issue]) -> None:
    """Counts by kind, and the first problems with their pictures; of each kind some, so that one cannot hide the
    others."""
    kinds: dict[str, list[Issue]] = {}
    for issue in issues:
        kinds.setdefault(issue.kind, []).append(issue)
    summary.n_issues = {kind: len(some) for kind, some in kinds.items()}
    room = MOST_ISSUES // max(1, len(kinds))
    wanted = [issue for some in kinds.values() for issue in some[:room]]
    files = {name for issue in wanted for name in (issue.file, issue.other)}
    rows = {name: row for row, name in enumerate(task.images.names) if name in files}
    for issue in wanted:
        thumbs = [
            Thumb(task.images.take(torch.tensor([rows[name]]))[0].numpy(), caption=name)
            for name in (issue.file, issue.other)
            if name in rows
        ]
        summary.issues.append(Problem(issue.file, issue.reason, issue.suggestion, issue.kind, thumbs))


def _least_sure(summary: Summary, task: Task, outcome: Outcome) -> None:
    """Unlabelled pictures with the smallest margin between the two best classes, no class more than its share."""
    p = outcome.probabilities(task.unlabelled)
    best = p.topk(2, dim=1)
    order = (best.values[:, 0] - best.values[:, 1]).argsort(stable=True)
    most = max(1, GALLERY // task.n_classes)
    taken: dict[int, int] = {}
    for i in order.tolist():
        guess = int(best.indices[i, 0])
        if taken.get(guess, 0) < most or task.n_classes > GALLERY:
            taken[guess] = taken.get(guess, 0) + 1
            summary.least_sure.append(_thumb(task, task.unlabelled[i], p[i]))
        if len(summary.least_sure) == GALLERY:
            break


def _next_steps(summary: Summary, task: Task, outcome: Outcome, folder: Path) -> list[str]:
    steps = []
    if summary.issues or summary.problems:
        steps.append(
            "Look through the problems found in the data, below: a wrong label among few costs most."
        )
    if summary.own_curve:
        steps.append(summary.own_curve["advice"])
    rarest = int(torch.bincount(task.y, minlength=task.n_classes).min())
    names = [task.classes[k] for k in range(task.n_classes) if int((task.y == k).sum()) == rarest]
    if rarest < 4:
        steps.append(
            f"Label more pictures of {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}: from 4 labels "
            "in every class on, the choice can be checked on your own pictures."
        )
    if summary.least_sure:
        steps.append("Label the pictures below that the model is least sure about; they teach it most.")
    if not len(task.unlabelled):
        steps.append("Put pictures without labels into `unlabeled/`: several recipes learn from them.")
    if not summary.n_test:
        low, high = wilson(80, 100)
        steps.append(
            "Put some labelled pictures into `test/<class>/` to get a figure that no choice has touched: with 100 of "
            f"them a model that is right 80 % of the time is measured as {100 * low:.0f} to {100 * high:.0f} %."
        )
    steps.append(f"Classify new pictures with: `handful predict {shlex.quote(str(folder))} PICTURES…`")
    return steps
