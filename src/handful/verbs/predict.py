"""``predict``: classes and probabilities of picture files, by a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from handful.data.manifest import pictures_below
from handful.inference.classify import Progress, classify
from handful.inference.model_file import load_model
from handful.types import UsageError


def predict(
    run: str | Path, pictures: Sequence[str | Path], *, batch: int = 64, progress: Progress | None = None
) -> tuple[list[tuple[str, str, float]], list[tuple[str, str]]]:
    """Class and probability of pictures (files, or folders that are searched).

    The class is "none of these" where the probability of the best one is below the run's threshold.

    Args:
        run: a run's folder, or a file of ``handful export --format safetensors``.

    Returns:
        (file, class, probability) in the order given, and (file, reason) of those that cannot be read.

    Raises:
        UsageError: no such run or no pictures.
    """
    saved = load_model(run)
    found = classify(saved, picture_files(pictures), batch=batch, progress=progress)
    best, label = (x.tolist() for x in found.p.max(1)) if len(found.p) else ([], [])
    good = [(name, saved.answer(k, p), p) for name, k, p in zip(found.names, label, best)]
    return good, list(found.bad)


def picture_files(pictures: Sequence[str | Path]) -> list[Path]:
    """Files, and those in folders.

    Raises:
        UsageError: one is not there, a folder holds none, or none are given.
    """
    files: list[Path] = []
    for item in map(Path, pictures):
        if item.is_dir():
            below = pictures_below(item)
            if not below:
                raise UsageError(
                    "holds no pictures", file=item, fix="give pictures, or a folder that holds some"
                )
            files += [item / name for name in below]
        elif item.exists():
            files.append(item)
        else:
            raise UsageError("there is no such file", file=item, fix="check the path")
    if not files:
        raise UsageError("no pictures were given", fix="handful predict RUN picture.jpg folder/ …")
    return files
