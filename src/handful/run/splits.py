"""``splits.csv`` of a run: which picture is labelled, unlabelled, validated on, tested on. A resumed run obeys it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from handful.data.manifest import SPLITS, Manifest, printable
from handful.files import as_csv, write_atomic
from handful.report.words import shortlist
from handful.types import HandfulError

HEADER = ["path", "split", "label"]
SHOWN = 3


def save_splits(manifest: Manifest, path: Path) -> None:
    """Write the table, whole or not at all."""
    names = (*manifest.classes, "")  # the last one for pictures without a label
    rows = zip(map(printable, manifest.paths), manifest.splits, (names[label] for label in manifest.labels))
    write_atomic(path, as_csv([HEADER, *rows]))


def obey_splits(manifest: Manifest, path: Path) -> Manifest:
    """The manifest with the splits and labels that the run began with.

    Raises:
        HandfulError: the table is damaged, or of other pictures.
    """
    fix = "remove the run's folder, or choose another with --out"
    saved = _read(path, fix)
    names = [printable(name) for name in manifest.paths]
    if set(names) != set(saved):
        raise HandfulError(f"is of other pictures: {differences(manifest, path)}", file=path, fix=fix)
    index = {name: k for k, name in enumerate(manifest.classes)} | {"": -1}
    unknown = next((label for _, label in saved.values() if label not in index), None)
    if unknown is not None:
        raise HandfulError(f"knows a class '{unknown}' that the data do not have", file=path, fix=fix)
    rows = [saved[name] for name in names]
    labels = np.array([index[label] for _, label in rows], dtype=np.int64)
    return replace(manifest, splits=np.array([split for split, _ in rows]), labels=labels)


def differences(manifest: Manifest, path: Path) -> str:
    """What has changed since the table was written, in words; "" without a table, or where the names are equal."""
    if not path.exists():
        return ""
    saved = _read(path, "remove the run's folder, or choose another with --out")
    now = {printable(name) for name in manifest.paths}
    new, gone = sorted(now - set(saved)), sorted(set(saved) - now)
    return "; ".join(
        f"{len(names)} picture{' is' if len(names) == 1 else 's are'} {word} ({shortlist(names, SHOWN, ', …')})"
        for names, word in ((new, "new"), (gone, "gone"))
        if names
    )


def _read(path: Path, fix: str) -> dict[str, tuple[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True))
        saved = {name: (split, label) for name, split, label in rows}
    except (csv.Error, ValueError, OSError) as error:
        raise HandfulError(f"is damaged ({error})", file=path, fix=fix) from error
    if header != HEADER or not {split for split, _ in saved.values()} <= set(SPLITS):
        raise HandfulError("is damaged", file=path, fix=fix)
    return saved
