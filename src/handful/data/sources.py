"""Every kind of input as one ``Manifest``: ``read_data`` is the only door to a user's data.

========================  ==========================================================================
a folder                  class folders, parts, piles of unlabelled pictures (``data.manifest``)
``table.csv``, ``.tsv``,  columns ``path,label[,split][,domain]``; an empty label means unlabelled; paths are
``.parquet``              relative to the table's folder (``data.tables``)
``arrays.npz``            ``x``, ``y``, if wanted ``splits``, ``names``, ``classes``; or ``x_train``, ``y_train`` …
``torchvision:NAME``      a data set of torchvision (``data.hubs``)
``hf:NAME``               an image data set of the Hugging Face hub, or a folder that it reads (``data.hubs``)
``(x, y)``, ``Arrays``    pictures in memory; -1, None, NaN or "" in ``y`` mean unlabelled
========================  ==========================================================================

Legend: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from handful.data.manifest import (
    LABELLED,
    SPLIT_WORDS,
    SPLITS,
    UNLABELLED,
    Issue,
    Manifest,
    assemble,
    printable,
    read_folder,
    split_of,
)
from handful.data.split import draw
from handful.randomness import digest, key
from handful.types import UsageError

TABLES = (".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True)
class Arrays:
    """Pictures in memory, as NumPy arrays, torch tensors or lists.

    Attributes:
        x: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]; floats are taken as fractions of white in [0, 1].
        y: N labels, numbers or words; -1, None, NaN or "" mean unlabelled.
        splits: N of train, val, test, unlabeled (and their other names); None: all are to learn from.
        names: N names for messages and tables; None: "000012".
        classes: names of the classes 0, 1, … where ``y`` holds numbers.
        name: of the data.
    """

    x: Any
    y: Any
    splits: Sequence[str] | None = None
    names: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    name: str = "pictures"


def read_data(
    spec: Any, *, labels_per_class: int = 0, seed: int = 0, downloads: Path | None = None
) -> Manifest:
    """The manifest of any kind of input (see the top of this file).

    Args:
        spec: a path, "torchvision:NAME", "hf:NAME", ``(x, y)``, an ``Arrays`` or a ``Manifest``.
        labels_per_class: keep so many labels of each class, drawn by ``seed``, and forget the others; 0: all. A class
            that has fewer is among the manifest's notes.
        downloads: where data sets that are known by name are kept.

    Raises:
        UsageError: the input cannot be used as given; the message names the file, the reason and the fix.
    """
    manifest = _read(spec, downloads or Path("datasets"))
    if labels_per_class < 0:
        raise UsageError(f"{labels_per_class} labels per class cannot be kept", fix="--labels-per-class 4")
    return _fewer_labels(manifest, labels_per_class, seed) if labels_per_class else manifest


def read_labelled(spec: Any, *, downloads: Path | None = None) -> Manifest:
    """The same, to measure by and not to learn from: a folder may hold a test part alone, or a single class."""
    if isinstance(spec, (str, Path)) and os.path.isdir(spec):
        return read_folder(spec, to_learn=False)
    return read_data(spec, downloads=downloads)


def _read(spec: Any, downloads: Path) -> Manifest:
    if isinstance(spec, Manifest):
        return spec
    if isinstance(spec, Arrays):
        return from_arrays(spec)
    if isinstance(spec, tuple) and len(spec) == 2:
        return from_arrays(Arrays(*spec))
    if not isinstance(spec, (str, Path)):
        raise UsageError(
            f"data of type {type(spec).__name__} cannot be read",
            fix="give a path, (x, y), or Arrays(x, y, …)",
        )
    scheme, colon, name = str(spec).partition(":")
    if colon and scheme in ("torchvision", "hf"):
        from handful.data.hubs import read_huggingface, read_torchvision

        read = read_torchvision if scheme == "torchvision" else read_huggingface
        return read(name, downloads)
    path = Path(spec)
    ending = path.suffix.lower()
    if not os.path.isfile(path):
        return read_folder(path)
    if ending in TABLES:
        from handful.data.tables import read_table

        return read_table(path)
    if ending == ".npz":
        return read_npz(path)
    fix = (
        "unpack it, and give the folder"
        if ending in ARCHIVES
        else "give a folder, a .csv, .parquet or .npz file"
    )
    raise UsageError("is not a kind of data that is read", file=path, fix=fix)


def _fewer_labels(manifest: Manifest, per_class: int, seed: int) -> Manifest:
    """Keep ``per_class`` labels of each class; the other pictures of the training part become unlabelled. A class that
    has fewer keeps those, and is noted."""
    rows = manifest.ids(LABELLED)
    there = np.bincount(manifest.labels[rows], minlength=len(manifest.classes))
    reason, suggestion = "has {} of the {} labels that were asked for", "label more, or ask for fewer"
    few = [
        Issue(name, reason.format(n, per_class), suggestion, "few")
        for name, n in zip(manifest.classes, there.tolist())
        if n < per_class
    ]
    forget = np.setdiff1d(rows, rows[draw(manifest.labels[rows], per_class, seed)])
    labels, splits = manifest.labels.copy(), manifest.splits.astype(object)
    labels[forget], splits[forget] = -1, UNLABELLED
    mark = f"{key(manifest.fingerprint, per_class, seed):016x}"
    notes = (*manifest.notes, *few)
    return replace(manifest, labels=labels, splits=splits.astype(str), fingerprint=mark, notes=notes)


def from_arrays(arrays: Arrays) -> Manifest:
    """Pictures in memory as a manifest; nothing is copied that is uint8 already.

    Raises:
        UsageError: shapes, lengths, labels or splits that do not fit.
    """
    x = pixels(arrays.x)
    words, order = label_words(arrays.y, arrays.classes)
    if len(words) != len(x):
        raise UsageError(
            f"{len(x)} pictures have {len(words)} labels", fix="give a label (or -1) for each picture"
        )
    for what, values in (("splits", arrays.splits), ("names", arrays.names)):
        if values is not None and len(values) != len(x):
            raise UsageError(
                f"{len(x)} pictures have {len(values)} {what}", fix=f"give one of {what} for each picture"
            )
    return assemble(
        Path(arrays.name),
        pictures=cast(Sequence[Any], x),
        words=words,
        order=order,
        splits=[split_of(word) for word in arrays.splits] if arrays.splits is not None else None,
        names=[str(name) for name in arrays.names] if arrays.names is not None else None,
        content=_hash(x),
        name=arrays.name,
    )


def pixels(x: Any) -> np.ndarray:
    """Pictures as uint8 [N, H, W] or [N, H, W, C].

    Raises:
        UsageError: another shape or kind of number.
    """
    array = _array(x)
    if array.ndim not in (3, 4) or array.dtype.kind not in "buif" or not array.size:
        raise UsageError(
            f"pictures must be numbers [N, H, W], [N, H, W, C] or [N, C, H, W], got {array.dtype} {list(array.shape)}",
            fix="give all pictures as one array of equal sizes",
        )
    if array.ndim == 4:
        if array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
            array = array.transpose(0, 2, 3, 1)
        if array.shape[3] not in (1, 3, 4):
            raise UsageError(
                f"pictures of shape {list(array.shape)} have no axis of 1, 3 or 4 channels",
                fix="give gray or RGB",
            )
        array = array[..., 0] if array.shape[3] == 1 else array
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind in "ui"
    if not (low >= 0 and high <= (255 if whole else 1)):  # also where one is NaN
        kind = "whole numbers from 0 to 255" if whole else "fractions from 0 to 1"
        raise UsageError(
            f"pictures of {array.dtype} must be {kind}, got {low:g} to {high:g}",
            fix="scale them, or give uint8",
        )
    return array.astype(np.uint8) if whole else np.round(array.astype(np.float32) * 255).astype(np.uint8)


def label_words(y: Any, classes: Sequence[str] | None = None) -> tuple[list[str], list[str] | None]:
    """Labels as words ("" where unlabelled), and the classes in the order of their numbers where they are numbers.

    Raises:
        UsageError: labels that are neither whole numbers nor words, or a number without a name.
    """
    array = np.asarray(y, dtype=object) if isinstance(y, (list, tuple)) else _array(y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UsageError(
            f"labels must be one a picture, got shape {list(array.shape)}", fix="give class numbers"
        )
    numbers: set[int] = set()
    words: list[str] = []
    for given in array.tolist():
        value = given.item() if hasattr(given, "item") else given  # a number of NumPy's, or a tensor
        if value is None or (isinstance(value, float) and value != value):
            words.append("")
        elif isinstance(value, (str, bytes)):
            words.append(
                (value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value).strip()
            )
        elif isinstance(value, (bool, int, float)) and math.isfinite(value) and value == int(value):
            number = int(value)
            if number < -1 or (classes is not None and number >= len(classes)):
                raise UsageError(
                    f"label {number} is not a class", fix="use 0, 1, … and -1 for unlabelled pictures"
                )
            if number >= 0:
                numbers.add(number)
            words.append("" if number < 0 else str(classes[number]) if classes is not None else str(number))
        else:
            raise UsageError(
                f"label {value!r} is neither a whole number nor a word", fix="give class numbers or names"
            )
    if classes is not None:
        return words, [str(c) for c in classes]
    order = [str(n) for n in sorted(numbers)]
    return words, order if set(words) <= {"", *order} else None


def read_npz(path: Path) -> Manifest:
    """Arrays of a ``.npz`` file: ``x`` and ``y`` with ``splits``, ``names``, ``classes``, or ``x_train``, ``y_train``,
    ``x_val``, ``x_test``, ``x_unlabeled`` … (``train_images`` and ``train_labels`` are understood too).

    Raises:
        UsageError: damaged, or other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            table = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, MemoryError, NotImplementedError, SyntaxError, TypeError,
            RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        fix = "write it again with numpy.savez(path, x=…, y=…), with numbers or text, not objects"
        raise UsageError(f"cannot be read ({error})", file=path, fix=fix) from error
    parts = _npz_parts(path, table)
    try:
        x = [pixels(part["x"]) for part in parts]
        if len({a.shape[1:] for a in x}) > 1:
            raise UsageError("its parts have pictures of different sizes", fix="make them equal")
        labels = [label_words(part["y"], part["classes"]) for part in parts]
        for part, a, (words, _) in zip(parts, x, labels):
            for what, values in (("labels", words), ("splits", part["splits"]), ("names", part["names"])):
                if values is not None and len(values) != len(a):
                    raise UsageError(
                        f"{len(a)} pictures have {len(values)} {what}", fix="make them equally many"
                    )
        joined = np.concatenate(x) if len(x) > 1 else x[0]
        return assemble(
            path,
            pictures=cast(Sequence[Any], joined),
            words=[word for words, _ in labels for word in words],
            order=parts[0]["classes"] or _by_number([order for _, order in labels]),
            splits=[
                split_of(word)
                for part, a in zip(parts, x)
                for word in part["splits"] or [part["split"]] * len(a)
            ],
            names=parts[0]["names"],
            content=_hash(joined),
            name=printable(path.stem),
        )
    except UsageError as error:
        raise UsageError(error.reason, file=path, fix=error.fix) from error


def _by_number(orders: list[list[str] | None]) -> list[str] | None:
    """The classes of several parts in the order of their numbers, unless one of them has words."""
    found = {c for order in orders for c in order or ()}
    return sorted(found, key=int) if found and None not in orders else None


def _npz_parts(path: Path, table: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """One part for ``x``, ``y``; otherwise one for each ``x_PART`` (or ``PART_images``)."""
    classes = (
        [str(c) for c in table["classes"]] if "classes" in table and table["classes"].ndim == 1 else None
    )
    blank: dict[str, Any] = {"splits": None, "names": None, "classes": classes, "split": "train"}
    if "x" in table and "y" in table:
        more = {
            n: [str(v) for v in table[n]] for n in ("splits", "names") if n in table and table[n].ndim == 1
        }
        return [{**blank, "x": table["x"], "y": table["y"], **more}]
    parts = []
    for name in table:
        match = re.fullmatch(r"x_(\w+)|(\w+)_images", name)
        stem = match[1] or match[2] if match else ""
        part = stem.lower()
        if part not in SPLIT_WORDS:
            continue
        labels = next((table[n] for n in (f"y_{stem}", f"{stem}_labels") if n in table), None)
        if labels is None:
            if SPLIT_WORDS[part] != UNLABELLED:
                raise UsageError(f"has {name} but no labels for it", file=path, fix=f"add y_{stem}")
            labels = np.full(len(table[name]) if table[name].ndim else 0, -1)
        parts.append({**blank, "x": table[name], "y": labels, "split": part})
    if not parts:
        known = ", ".join(sorted(table)[:8]) or "nothing"
        raise UsageError(
            f"holds {known}, and no pictures", file=path, fix="save x and y, or x_train and y_train"
        )
    return sorted(parts, key=lambda part: SPLITS.index(SPLIT_WORDS[part["split"]]))


def _array(values: Any) -> np.ndarray:
    """A NumPy array of a torch tensor, an array or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the values do not form one array ({error})", fix="give arrays of equal shapes"
        ) from error


def _hash(x: np.ndarray) -> str:
    return f"{x.shape}{digest(x)}"
