"""``evaluate``: how right is a finished run on labelled pictures?

Legend: n pictures, K classes; accuracies and confidences are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from handful.data.manifest import LABELLED, TEST, VALIDATION
from handful.data.sources import read_labelled
from handful.inference.classify import classify
from handful.inference.model_file import load_model
from handful.report.words import shortlist
from handful.run.places import downloads
from handful.run.teller import Teller
from handful.stats.calibration import expected_calibration_error, reliability_bins
from handful.stats.intervals import accuracy, balanced_accuracy, macro_f1
from handful.types import UsageError, did_you_mean

PARTS = {TEST: "the test part", VALIDATION: "the validation part", LABELLED: "the labelled pictures"}
CAUTIONS = {
    LABELLED: "These may be the pictures that the model learned from: the figures are then flattering. Figures that "
    "count come from a test/ part.",
    VALIDATION: "If these are the validation pictures that the model was chosen by, the figures are a little "
    "flattering. Figures that count come from a test/ part.",
}


@dataclass(frozen=True)
class ClassFigures:
    """One class: pictures of it, how many were called so, and the shares that were right.

    Attributes:
        recall: of its n pictures, the share that was called so.
        precision: of those called so, the share that is.
        f1: their harmonic mean; 0 where nothing was right.
    """

    name: str
    n: int
    called: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Evaluation:
    """Figures of a run on labelled pictures.

    Attributes:
        measured_on: which pictures, in words; ``caution`` where they may not be new to the model.
        interval: of the accuracy, 95 %, over other pictures of the same kind (Wilson's).
        balanced_accuracy: mean recall of the classes that have pictures.
        macro_f1: mean F1 of the classes that have pictures or were called.
        calibration_error: expected calibration error, 10 bins, with ``bins`` (confidence, accuracy, n).
        mean_confidence: of the answers.
        confusion: [K, K], row = true class, column = called, in the order of ``classes``.
        rejected: how many answers fell below the reject threshold, and how many of those were right.
        unreadable: (file, reason).
    """

    run: str
    measured_on: str
    n: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    calibration_error: float
    mean_confidence: float
    bins: list[tuple[float, float, int]]
    classes: list[str]
    per_class: list[ClassFigures]
    confusion: list[list[int]]
    rejected: tuple[int, int]
    caution: str = ""
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def figures(truth: np.ndarray, p: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """The fields of ``Evaluation`` that follow from classes [n] and probabilities [n, K] alone."""
    k = len(classes)
    guess, confidence = p.argmax(1), p.max(1)
    confusion = np.bincount(truth * k + guess, minlength=k * k).reshape(k, k)
    estimate = accuracy(guess == truth)
    rows = []
    for i, name in enumerate(classes):
        n, called, right = int(confusion[i].sum()), int(confusion[:, i].sum()), int(confusion[i, i])
        rows.append(
            ClassFigures(
                name,
                n,
                called,
                recall=right / n if n else None,
                precision=right / called if called else None,
                f1=2 * right / (n + called) if n + called else None,
            )
        )
    return {
        "n": len(truth),
        "accuracy": estimate.value,
        "interval": estimate.interval,
        "balanced_accuracy": balanced_accuracy(truth, guess, k),
        "macro_f1": macro_f1(truth, guess, k),
        "calibration_error": expected_calibration_error(confidence, guess == truth),
        "mean_confidence": float(confidence.mean()),
        "bins": [(b.confidence, b.accuracy, b.n) for b in reliability_bins(confidence, guess == truth)],
        "classes": list(classes),
        "per_class": rows,
        "confusion": confusion.tolist(),
    }


def evaluate(run: str | Path, data: str | Path, *, teller: Teller | None = None) -> Evaluation:
    """How right is a finished run on labelled pictures: on the test part of ``data``, without one on its validation
    part, or else on all that is labelled?

    Raises:
        UsageError: no run, no labelled pictures, none that can be read, or a class that the model does not know.
    """
    teller = teller or Teller()
    manifest = read_labelled(data, downloads=downloads())
    saved = load_model(run)
    split = next((split for split in PARTS if len(manifest.ids(split))), None)
    if split is None:
        raise UsageError(
            "has no labelled pictures", file=manifest.root, fix="lay it out as DIR/<class>/picture.jpg"
        )
    rows = manifest.ids(split)
    number = {name: k for k, name in enumerate(saved.classes)}
    named = [manifest.classes[k] for k in manifest.labels[rows]]
    for name in sorted(set(named) - set(number)):
        raise UsageError(
            f"class '{name}' is not one of the model's",
            file=manifest.root,
            fix=f"{did_you_mean(name, saved.classes)} It knows: {shortlist(saved.classes, 20)}".strip(),
        )
    pictures = [manifest.picture(int(row)) for row in rows]
    paths = [manifest.paths[row] for row in rows]
    names = paths if manifest.pictures is not None else [str(manifest.root / path) for path in paths]
    found = classify(saved, pictures, names, progress=partial(teller.progress, "classifying"))
    if not found.names:
        file, reason = found.bad[0]
        raise UsageError(f"cannot be read, like all others ({reason})", file=file, fix="check the files")
    truth = np.array([number[named[i]] for i in found.rows], dtype=np.int64)
    p = found.p.double().numpy()
    low = p.max(1) < saved.reject
    return Evaluation(
        run=str(run),
        measured_on=f"{PARTS[split]} of {manifest.name}, {len(truth):,} pictures",
        caution=CAUTIONS.get(split, ""),
        rejected=(int(low.sum()), int((low & (p.argmax(1) == truth)).sum())),
        unreadable=list(found.bad),
        **figures(truth, p, saved.classes),
    )
