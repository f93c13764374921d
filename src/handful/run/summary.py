"""From what a verb hands over to the ``Summary`` of the run: every figure of the report is made here.

Legend: n pictures, K classes; accuracies are fractions.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from handful.data.manifest import SPLITS, Issue, printable
from handful.models.classifier import Classifier
from handful.models.heads import NearestNeighbours
from handful.recipes.task import Task
from handful.report.inspect import MEAN_OF
from handful.report.record import ConfusedPair, Problem, Reliability, Summary, Thumb, curves, read
from handful.report.words import shortlist
from handful.run.file import RunFile, versions
from handful.run.pictures import Pictures
from handful.run.result import Result
from handful.stats.calibration import expected_calibration_error, reliability_bins
from handful.stats.intervals import accuracy, balanced_accuracy, macro_f1, wilson

GALLERY = 12  # pictures in a gallery
FEWEST_PAIRS = 3  # confused pairs that are shown even where each was confused but once
FEW_HELD_OUT = 30  # fewer held-out pictures than this make no reliability diagram
MOST_ISSUES = 24  # problems shown; all of them stand in issues.csv


def summarise(run_file: RunFile, pictures: Pictures, result: Result, digest: str) -> Summary:
    """Everything that the page shows. Test labels are only measured on: nothing here, and nothing before, is chosen by
    them.

    Args:
        digest: SHA-256 of the weights.
    """
    task, validation, test = pictures.task, pictures.validation, pictures.test
    name = printable(pictures.manifest.name)
    summary = Summary(
        title=f"{name}: {task.n_classes} classes from {len(task.labelled)} labels",
        data_name=name,
        counts=counts_by_class(pictures.manifest.counts()),
        n_labelled=len(task.labelled),
        n_unlabelled=len(task.unlabelled),
        n_validation=len(validation.rows) if validation else 0,
        n_test=len(test),
        tried_on="validation pictures" if validation else "cross-validation",
        classes=list(task.classes),
        verdict=result.verdict,
        decision_rule=result.rule,
        extras=list(result.extras),
        asked_for=not result.was_chosen,
        tried=list(result.tried),
        own_curve=result.own_curve,
        audit=result.audit,
        rounds=list(result.rounds),
        curves={k: v for k, v in curves(read(run_file.folder / "metrics.jsonl")).items() if "/" not in k},
        mean_pictures=_mean_pictures(task),
        command=run_file.command,
        provenance=_provenance(run_file, result.fitted.classifier, len(task.labelled), digest),
        reject=dict(result.reject or {}),
    )
    _measure(summary, pictures, result)
    show_issues(summary, task, pictures.issues)
    if len(task.unlabelled):
        _least_sure(summary, task, result)
    summary.next_steps = list(result.next_steps) or _next_steps(summary, task, run_file)
    return summary


def _measure(summary: Summary, pictures: Pictures, result: Result) -> None:
    """Headline, confusions and calibration: on the test part, or else on what was held out; the reject threshold on the
    test part."""
    task, validation, test, held = pictures.task, pictures.validation, pictures.test, result.held_out
    if len(test):
        z, y = result.fitted.logits(test), pictures.test_y
        p = (z / result.temperature).softmax(1)
        right = p.argmax(1) == y
        estimate = accuracy(right.numpy())
        summary.measured_on = f"a test part of {len(test)} pictures that was not used for any choice"
        summary.tried = [
            replace(row, test_accuracy=estimate.value) if row.chosen else row for row in summary.tried
        ]
        _confusion(summary, task, test, y, p)
        summary.confusion_on = "the test part"
        if summary.reject:
            low = p.amax(1) < summary.reject["threshold"]
            below = {"below": int(low.sum()), "below_right": int((low & right).sum())}
            summary.reject |= {"n_test": len(test), **below}
    elif held:
        estimate = accuracy(held.right)
        n = held.right.shape[1]
        how = (
            f"{n} validation pictures"
            if validation
            else f"{held.n_folds}-fold cross-validation on the {n} labelled pictures"
        )
        summary.measured_on = f"{how}, which were also used to choose (so a little flattering)"
        rows = validation.rows if validation else task.labelled
        _confusion(summary, task, rows, held.truth, (held.logits / result.temperature).softmax(1))
        summary.confusion_on = "held-out labelled pictures"
    else:
        summary.measured_on = f"nothing: {result.unmeasured}"
    if len(test) or held:
        summary.headline_accuracy, summary.headline_interval = estimate.value, estimate.interval
    if len(test) >= FEW_HELD_OUT:
        summary.reliability = _reliability(z, y, result.temperature)
        summary.reliability_on = "the test part"
    elif held and len(held.truth) >= FEW_HELD_OUT:
        summary.reliability = _reliability(held.logits, held.truth, result.temperature)
        summary.reliability_on = (
            "held-out labelled pictures, by which the temperature was set (so a little flattering)"
        )


def _provenance(run_file: RunFile, classifier: Classifier, labelled: int, digest: str) -> dict[str, str]:
    """Plan, seed, times, sizes and versions."""
    plan = {
        name: f"{value:.3g}" if isinstance(value, float) else str(value)
        for name, value in run_file.plan.items()
    }
    return plan | {
        "seed": str(run_file.options.seed),
        "seconds in all": f"{run_file.seconds:.0f}",
        "memory of what was learned": _memory(classifier, labelled),
        "SHA-256 of the weights": digest,
        **versions(),
    }


def _memory(classifier: Classifier, labelled: int) -> str:
    """What the head on frozen features takes, or the whole network; stored examples grow with the labels."""
    told = f"{classifier.learned_bytes / 1024:,.1f} kB"
    if classifier.head is None:
        return f"{told}, the whole network"
    if any(isinstance(module, NearestNeighbours) for module in classifier.head.modules()):
        return f"{told}, the features of all {labelled:,} labelled pictures: it grows with each label"
    return f"{told}, a head on frozen features"


def counts_by_class(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Classes and their splits, without the splits that no class has pictures in and the classes without any."""
    used = [split for split in SPLITS if any(row.get(split) for name, row in counts.items() if name)]
    named = {name: row for name, row in counts.items() if name and any(row.values())}
    return {name: {split: row.get(split, 0) for split in used} for name, row in named.items()}


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
    rows = {name: task.labelled[task.y == k][:MEAN_OF] for k, name in enumerate(task.classes)}
    return {name: Thumb.of_mean(task.images.take(some), name) for name, some in rows.items() if len(some)}


def _reliability(z: Tensor, truth: Tensor, temperature: float) -> Reliability:
    """Confidence against accuracy of logits [n, K], before and after temperature scaling."""
    right = (z.argmax(1) == truth).numpy()
    before = z.softmax(1).amax(1).numpy()
    after = (z / temperature).softmax(1).amax(1).numpy()
    return {
        "before": [(b.confidence, b.accuracy, b.n) for b in reliability_bins(before, right)],
        "after": [(b.confidence, b.accuracy, b.n) for b in reliability_bins(after, right)],
        "ece_before": expected_calibration_error(before, right),
        "ece_after": expected_calibration_error(after, right),
        "temperature": temperature,
    }


def show_issues(summary: Summary, task: Task, issues: Sequence[Issue]) -> None:
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


def _least_sure(summary: Summary, task: Task, result: Result) -> None:
    """Unlabelled pictures with the smallest margin between the two best classes, no class more than its share."""
    p = result.probabilities(task.unlabelled)
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


def _next_steps(summary: Summary, task: Task, run_file: RunFile) -> list[str]:
    steps = []
    if summary.issues:
        steps.append(
            "Look through the problems found in the data, below: a wrong label among few costs most."
        )
    if summary.own_curve:
        steps.append(summary.own_curve["advice"])
    rarest = int(torch.bincount(task.y, minlength=task.n_classes).min())
    names = [task.classes[k] for k in range(task.n_classes) if int((task.y == k).sum()) == rarest]
    if rarest < 4:
        steps.append(
            f"Label more pictures of {shortlist(names, 5, ' and others')}: from 4 labels "
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
    steps.append(
        f"Classify new pictures with: `handful predict {shlex.quote(str(run_file.folder))} PICTURES…`"
    )
    return steps
