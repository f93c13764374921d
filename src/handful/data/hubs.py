"""Data sets that are known by name: those of torchvision, and of the Hugging Face hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset

from handful.data.manifest import (
    LABELLED,
    SPLIT_WORDS,
    TEST,
    UNLABELLED,
    VALIDATION,
    Manifest,
    assemble,
)  # fmt: skip
from handful.randomness import key
from handful.types import Interrupted, UsageError, did_you_mean

SPLIT_ARGUMENT = {LABELLED: "train", UNLABELLED: "unlabeled", VALIDATION: "val", TEST: "test"}
SAMPLE = 256  # pictures whose pixels go into the fingerprint of a data set that is known by name


class Joined(Sequence[Any]):
    """Pictures of several data sets end to end, decoded when asked for: ``item[at]`` of each of their items."""

    def __init__(self, parts: Iterable[Any], at: Any) -> None:
        self.items: ConcatDataset[Any] = ConcatDataset(parts)
        self.at = at

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: Any) -> Any:
        return self.items[int(i)][self.at]


def read_torchvision(name: str, downloads: Path) -> Manifest:
    """``torchvision.datasets.NAME`` with the parts it has, downloaded where they are not in ``downloads`` yet.

    Raises:
        UsageError: no such data set, not one of classification, or it cannot be had.
    """
    from torchvision import datasets

    known = [n for n in datasets.__all__ if isinstance(getattr(datasets, n), type)]
    if name not in known:
        hint = did_you_mean(name, known, "torchvision:") or "see the names in torchvision.datasets"
        raise UsageError(f"torchvision has no data set '{name}'", fix=hint)
    kind = getattr(datasets, name)
    takes = inspect.signature(kind).parameters
    asked: dict[str, dict[str, Any]]
    if "train" in takes:
        asked = {LABELLED: {"train": True}, TEST: {"train": False}}
    elif "split" in takes:
        asked = {split: {"split": word} for split, word in SPLIT_ARGUMENT.items()}
    else:
        asked = {LABELLED: {}}
    found = {}
    for split, options in asked.items():
        part = _torchvision_part(kind, name, downloads, options, must=split == LABELLED)
        if part is not None:
            found[split] = part
    order = [
        str(c[0] if isinstance(c, tuple) else c) for c in getattr(found[LABELLED], "classes", [])
    ] or None
    words: list[str] = []
    splits: list[str] = []
    for split, part in found.items():
        words += [_word(label, order, name) for label in _targets(part)]
        splits += [split] * len(part)
    if order is None:
        order = sorted(set(words) - {""}, key=int)
    return _named(f"torchvision:{name}", name, Joined(found.values(), 0), words, order, splits)


def _torchvision_part(kind: type, name: str, downloads: Path, options: dict[str, Any], must: bool) -> Any:
    options = {"root": str(downloads), **options}
    if "download" in inspect.signature(kind).parameters:
        options["download"] = True
    try:
        return kind(**options)
    except Interrupted:
        raise
    except Exception as error:  # each data set fails in its own way: no network, damaged files, no such part
        if not must and isinstance(error, ValueError):
            return None  # it has no such part
        reason = f"torchvision cannot give '{name}' ({str(error) or type(error).__name__})"
        fix = f"download it where there is a network, and put its files into {downloads}"
        raise UsageError(reason.splitlines()[0], fix=fix) from error


def _targets(part: Any) -> list[Any]:
    for attribute in ("targets", "labels", "_labels", "y"):
        values = getattr(part, attribute, None)
        if values is not None and len(values) == len(part):
            return np.asarray(values).tolist()
    return [part[i][1] for i in range(len(part))]


def _word(label: Any, order: Sequence[str] | None, name: str) -> str:
    try:
        number = int(label)
    except (TypeError, ValueError) as error:
        raise UsageError(f"'{name}' is no data set of classification (a label is {label!r})") from error
    return "" if number < 0 else order[number] if order and number < len(order) else str(number)


def read_huggingface(name: str, downloads: Path) -> Manifest:
    """An image data set of the hub ("owner/name", or "owner/name@configuration"), or a local folder that the
    ``datasets`` library reads. No code of the data set is run.

    Raises:
        UsageError: ``datasets`` is not installed, no such data set, or it has no column of pictures or of classes.
    """
    try:
        import datasets
    except ImportError as error:
        fix = "pip install 'handful[hf]'"
        raise UsageError(
            "Hugging Face data sets need the library datasets, which is not installed", fix=fix
        ) from error
    where, _, configuration = name.partition("@")
    try:
        found = datasets.load_dataset(where, configuration or None, cache_dir=str(downloads / "huggingface"))
    except Interrupted:
        raise
    except Exception as error:  # no network, no such name, a format it does not know: each has its own error
        reason = f"'{name}' cannot be loaded ({str(error) or type(error).__name__})"
        fix = "check the name (hf:OWNER/NAME) and the network, or give a folder"
        raise UsageError(reason.splitlines()[0], fix=fix) from error
    words: list[str] = []
    splits: list[str] = []
    parts = []
    order: list[str] | None = None
    for part, table in found.items():
        if part.lower() not in SPLIT_WORDS:
            continue
        image, label, names = _hf_columns(table, datasets, name)
        if names is not None:
            order = names
        values = table[label] if label else [None] * len(table)
        words += ["" if v is None or v == -1 else names[v] if names is not None else str(v) for v in values]
        splits += [SPLIT_WORDS[part.lower()]] * len(table)
        parts.append(table)
    if not parts:
        raise UsageError(
            f"'{name}' has no train part, only {', '.join(found)}", fix="choose another data set"
        )
    return _named(f"hf:{name}", where.rstrip("/").split("/")[-1], Joined(parts, image), words, order, splits)


def _hf_columns(table: Any, datasets: Any, name: str) -> tuple[str, str, list[str] | None]:
    """Names of the picture and the class column, and the class names where the data set knows them."""
    columns = table.features
    images = [c for c, kind in columns.items() if isinstance(kind, datasets.Image)]
    if not images:
        raise UsageError(
            f"'{name}' has no column of pictures, only {', '.join(columns)}", fix="choose another"
        )
    labels = [c for c, kind in columns.items() if isinstance(kind, datasets.ClassLabel)]
    label = next((c for c in ("label", "labels", *labels) if c in columns), "")
    names = list(columns[label].names) if label in labels else None
    return images[0], label, names


def _named(
    spec: str,
    name: str,
    pictures: Joined,
    words: Sequence[str],
    order: Sequence[str] | None,
    splits: Sequence[str],
) -> Manifest:
    some = np.unique(np.linspace(0, len(pictures) - 1, min(SAMPLE, len(pictures))).astype(int))
    content = key(*(np.asarray(pictures[i]).tobytes() for i in some), len(pictures))
    return assemble(
        Path(spec), pictures=pictures, words=words, order=order, splits=splits, names=None,
        content=f"{content:016x}", name=name,
    )  # fmt: skip
