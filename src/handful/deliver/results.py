"""The files that a finished run leaves: model, predictions, summary, report."""

from __future__ import annotations

import csv
import io
import shutil

import torch
from torch import Tensor

from handful.data.manifest import Manifest
from handful.deliver.book import Run, RunBook, versions
from handful.export import save_model
from handful.files import write_atomic
from handful.recipes.auto import Outcome, Validation
from handful.recipes.task import Task
from handful.report.build import summarise
from handful.report.page import write as write_page


def write_results(
    book: RunBook,
    outcome: Outcome,
    task: Task,
    manifest: Manifest,
    validation: Validation | None,
    test: Tensor,
    unreadable: list[tuple[str, str]],
    name: str,
) -> None:
    """Model, predictions, summary, report; ``run.toml`` last, so that a run counts as finished only with all."""
    folder = book.path.parent
    digest = save_model(
        folder, outcome.fitted.classifier, task.classes, task.images.channels, task.images.side
    )
    write_atomic(folder / "predictions.csv", _predictions(outcome, manifest, task, test))
    summary = summarise(
        task,
        outcome,
        name=name,
        validation=validation,
        test=test,
        test_y=torch.from_numpy(manifest.labels[test.numpy()]),
        unreadable=unreadable,
        folder=folder,
        plan=book.plan,
        seconds=book.seconds,
        digest=digest,
        command=book.command,
        counts=manifest.counts(),
        versions=versions(),
        seed=book.options.seed,
    )
    summary.save(folder / "summary.json")
    write_page(summary, folder / "report.html")
    shutil.rmtree(folder / "stages", ignore_errors=True)
    interval = summary.headline_interval
    book.finish(Run(folder, outcome.chosen, summary.headline_accuracy, interval, summary.measured_on))


def _predictions(outcome: Outcome, manifest: Manifest, task: Task, test: Tensor) -> str:
    """CSV of the unlabelled and the test pictures: path, split, label, probability."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "split", "label", "probability"])
    rows = torch.cat([task.unlabelled, test])
    if len(rows):
        p = outcome.probabilities(rows)
        confidence, label = p.max(1)
        for row, k, c in zip(rows.tolist(), label.tolist(), confidence.tolist()):
            table.writerow([manifest.paths[row], manifest.splits[row], manifest.classes[k], f"{c:.4f}"])
    return text.getvalue()
