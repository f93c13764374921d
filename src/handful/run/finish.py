"""The files that a finished run leaves: model, predictions, summary, model card, report."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import torch
from torch import Tensor

from handful import parallel
from handful.data.manifest import Manifest
from handful.files import as_csv, write_atomic
from handful.inference.model_file import NONE, save_model
from handful.report.page import write as write_page
from handful.run.card import model_card
from handful.run.file import Run, RunFile
from handful.run.pictures import Pictures
from handful.run.result import Result
from handful.run.summary import summarise
from handful.run.teller import Teller
from handful.stats.reject import threshold


def finish(run_file: RunFile, pictures: Pictures, result: Result, teller: Teller, begun: float) -> Run:
    """Write the run's files, by the first process alone; the finished run.

    Args:
        begun: when the verb began (``time.perf_counter``).
    """
    run_file.seconds = time.perf_counter() - begun
    if parallel.is_first():
        teller.tell("writing model, predictions and report")
        write_files(run_file, pictures, result)
    parallel.barrier()
    return run_file.result()


def write_files(run_file: RunFile, pictures: Pictures, result: Result) -> None:
    """``run.toml`` comes last, so that a run counts as finished only with all."""
    folder, task, classifier, held = run_file.folder, pictures.task, result.fitted.classifier, result.held_out
    if result.reject is None:
        logits, truth = (held.logits, held.truth) if held else (None, None)
        result = replace(result, reject=threshold(logits, truth, result.temperature))
    assert result.reject is not None
    store = task.images.channels, task.images.side
    digest = save_model(folder, classifier, task.classes, *store, reject=result.reject)
    rows = torch.cat([task.unlabelled, pictures.test])
    answers = result.probabilities(rows) if len(rows) else torch.empty(0, task.n_classes)
    least = float(result.reject["threshold"])
    write_atomic(folder / "predictions.csv", predictions(pictures.manifest, rows, answers, least))
    summary = summarise(run_file, pictures, result, digest)
    summary.save(folder / "summary.json")
    card = model_card(summary, classifier.backbone_config, result.reject)
    write_atomic(folder / "model-card.md", card)
    write_page(summary, folder / "report.html")
    accuracy, interval = summary.headline_accuracy, summary.headline_interval
    run_file.finish(Run(folder, result.name, accuracy, interval, summary.measured_on))
    shutil.rmtree(folder / "stages", ignore_errors=True)


def predictions(manifest: Manifest, rows: Tensor, p: Tensor, reject: float) -> str:
    """CSV of the unlabelled and the test pictures: path, split, label, calibrated probability, best class.

    ``label`` is the best class, or "none of these" where its probability is below ``reject``.
    """
    table = [("path", "split", "label", "probability", "best")]
    if len(rows):
        confidence, best = p.max(1)
        for row, k, c in zip(rows.tolist(), best.tolist(), confidence.tolist()):
            name = manifest.classes[k]
            label = NONE if c < reject else name
            table.append((manifest.paths[row], manifest.splits[row], label, f"{c:.4f}", name))
    return as_csv(table)
