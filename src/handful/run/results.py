"""The files that a finished run leaves: model, predictions, summary, report."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from handful.choose.auto import Outcome
from handful.data.manifest import Manifest
from handful.files import write_atomic
from handful.inference.model_file import NONE, save_model
from handful.recipes.task import Task, Validation
from handful.report.build import Issue, Words, summarise
from handful.report.page import write as write_page
from handful.run.card import model_card
from handful.run.file import Run, RunBook, versions
from handful.stats.reject import threshold
from handful.study.learning_curve import OwnCurve
from handful.study.pseudo_labels import PseudoLabels


def write_results(
    book: RunBook,
    outcome: Outcome,
    task: Task,
    manifest: Manifest,
    validation: Validation | None,
    test: Tensor,
    issues: Sequence[Issue],
    name: str,
    *,
    curve: OwnCurve | None = None,
    pseudo: PseudoLabels | None = None,
    tested: Mapping[str, float] | None = None,
    words: Words | None = None,
    reject: Mapping[str, Any] | None = None,
) -> None:
    """Model, predictions, summary, report; ``run.toml`` last, so that a run counts as finished only with all.

    ``reject`` is what ``stats.reject.threshold`` says, where it is not to be asked.
    """
    folder = book.path.parent
    images, trial = task.images, outcome.trials[outcome.chosen]
    reject = reject or threshold(trial.logits, trial.truth, outcome.temperature)
    digest = save_model(
        folder, outcome.fitted.classifier, task.classes, images.channels, images.side, reject=reject
    )
    rows = torch.cat([task.unlabelled, test])
    answers = outcome.probabilities(rows) if len(rows) else torch.empty(0, task.n_classes)
    write_atomic(folder / "predictions.csv", predictions(manifest, rows, answers, float(reject["threshold"])))
    summary = summarise(
        task,
        outcome,
        name=name,
        validation=validation,
        test=test,
        test_y=torch.from_numpy(manifest.labels[test.numpy()]),
        folder=folder,
        plan=book.plan,
        seconds=book.seconds,
        digest=digest,
        command=book.command,
        counts={name: row for name, row in manifest.counts().items() if any(row.values())},
        versions=versions(),
        seed=book.options.seed,
        curve=curve,
        pseudo=pseudo,
        issues=issues,
        reject=reject,
        tested=tested,
        words=words,
    )
    summary.save(folder / "summary.json")
    write_atomic(
        folder / "model-card.md", model_card(summary, outcome.fitted.classifier.backbone_config, reject)
    )
    write_page(summary, folder / "report.html")
    interval = summary.headline_interval
    book.finish(Run(folder, outcome.chosen, summary.headline_accuracy, interval, summary.measured_on))
    shutil.rmtree(folder / "stages", ignore_errors=True)


def predictions(manifest: Manifest, rows: Tensor, p: Tensor, reject: float) -> str:
    """CSV of the unlabelled and the test pictures: path, split, label, calibrated probability, best class.

    ``label`` is the best class, or "none of these" where its probability is below ``reject``.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "split", "label", "probability", "best"])
    if len(rows):
        confidence, best = p.max(1)
        for row, k, c in zip(rows.tolist(), best.tolist(), confidence.tolist()):
            name = manifest.classes[k]
            label = NONE if c < reject else name
            table.writerow([manifest.paths[row], manifest.splits[row], label, f"{c:.4f}", name])
    return text.getvalue()
