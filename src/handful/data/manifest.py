"""Which pictures there are, and what is known of each: the first step of every run.

Two layouts are read::

    DIR/rose/*.jpg  DIR/tulip/*.jpg  DIR/unlabeled/*.jpg     class folders beside the unlabelled pile
        (and, if wanted, DIR/val/rose/*.jpg and DIR/test/rose/*.jpg)
    DIR/train/rose/*.jpg  DIR/val/…  DIR/test/…  DIR/unlabeled/…
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.types import UsageError

LABELLED, UNLABELLED, VALIDATION, TEST = "labelled", "unlabelled", "validation", "test"
SPLITS = (LABELLED, UNLABELLED, VALIDATION, TEST)
FOLDER_NAMES = {
    "train": LABELLED,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "unlabeled": UNLABELLED,
    "unlabelled": UNLABELLED,
}
ENDINGS = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)


@dataclass(frozen=True)
class Manifest:
    """N pictures in a fixed order.

    Attributes:
        root: the folder that ``paths`` are relative to.
        classes: class names, from the training part only, sorted; their order travels with the model.
        paths: N relative paths with forward slashes.
        labels: int64 [N], index into ``classes``, -1 where unknown.
        splits: N words of ``SPLITS``.
        fingerprint: hash over names, sizes and modification times: changes when the data do.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.paths)

    def ids(self, split: str) -> np.ndarray:
        """Row numbers of one split, int64."""
        return np.flatnonzero(self.splits == split)

    def keep(self, mask: np.ndarray) -> Manifest:
        """Only the rows where ``mask`` (bool [N]) is true; classes stay as they are."""
        paths = tuple(p for p, kept in zip(self.paths, mask) if kept)
        return Manifest(
            self.root, self.classes, paths, self.labels[mask], self.splits[mask], self.fingerprint
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures per class and split; unlabelled ones are counted under ``""``."""
        table: dict[str, dict[str, int]] = {name: dict.fromkeys(SPLITS, 0) for name in (*self.classes, "")}
        for label, split in zip(self.labels, self.splits):
            table[self.classes[label] if label >= 0 else ""][str(split)] += 1
        return table


def read_folder(folder: str | Path) -> Manifest:
    """The manifest of a folder in one of the two layouts.

    Raises:
        UsageError: the folder is missing or empty, has fewer than two classes or one without pictures, or a
            validation or test class that training does not have (the nearest training class is named).
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError("there is no such folder", file=root, fix="give the folder that holds your pictures")
    top = sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")
    )
    parts = {name: FOLDER_NAMES[name.lower()] for name in top if name.lower() in FOLDER_NAMES}
    has_train = LABELLED in parts.values()
    plain = [name for name in top if name not in parts]
    if has_train and plain:
        raise UsageError(
            f"has both train/ and class folders beside it ({', '.join(plain[:3])})",
            file=root,
            fix="move the class folders into train/, or remove train/",
        )

    rows: list[tuple[str, str, str]] = []  # (path, class name or "", split)
    folders = [] if has_train else [(name, name) for name in plain]  # of labelled classes: (path, name)
    rows += [(path, name, LABELLED) for where, name in folders for path in pictures_below(root, where)]
    for part, split in parts.items():
        if split == UNLABELLED:
            rows += [(path, "", UNLABELLED) for path in pictures_below(root, part)]
            continue
        classes_here = sorted(
            e.name for e in os.scandir(root / part) if e.is_dir() and not e.name.startswith(".")
        )
        rows += [
            (path, name, split) for name in classes_here for path in pictures_below(root, f"{part}/{name}")
        ]
        folders += [(f"{part}/{name}", name) for name in classes_here if split == LABELLED]

    classes = tuple(sorted({name for _, name, split in rows if split == LABELLED}))
    _check(root, classes, folders, rows)
    index = {name: i for i, name in enumerate(classes)}
    return Manifest(
        root=root,
        classes=classes,
        paths=tuple(path for path, _, _ in rows),
        labels=np.array([index.get(name, -1) for _, name, _ in rows], dtype=np.int64),
        splits=np.array([split for _, _, split in rows]),
        fingerprint=fingerprint(root, [row[0] for row in rows], [f"{row[1]}/{row[2]}" for row in rows]),
    )


def fingerprint(root: Path, paths: Sequence[str], notes: Sequence[str]) -> str:
    """Hash of names, notes (class and split), sizes and modification times; 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for path, note in zip(paths, notes):
        stat = (root / path).stat()
        line = f"{path}\x1f{note}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def pictures_below(root: Path, part: str = "") -> Iterator[str]:
    """Picture files below ``root/part``, sorted, relative to root. Links to folders are not followed."""
    for folder, inner, files in os.walk(root / part):
        inner.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in ENDINGS and not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _check(
    root: Path, classes: tuple[str, ...], folders: list[tuple[str, str]], rows: list[tuple[str, str, str]]
) -> None:
    layout = "lay it out as DIR/<class>/picture.jpg with DIR/unlabeled/ beside the classes"
    if not rows:
        raise UsageError("holds no pictures", file=root, fix=layout)
    if not classes:
        raise UsageError("has no class folders with pictures: nothing is labelled", file=root, fix=layout)
    for where, name in folders:
        if name not in classes:
            fix = "put pictures of the class into it, or remove the folder"
            raise UsageError(f"class '{name}' holds no pictures", file=root / where, fix=fix)
    if len(classes) == 1:
        raise UsageError(
            f"has only one class ({classes[0]})", file=root, fix="add a folder for a second class"
        )
    for path, name, _ in rows:
        if name and name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = (
                f"did you mean '{near[0]}'?" if near else "add labelled pictures of it, or remove the folder"
            )
            raise UsageError(f"class '{name}' is not among the training classes", file=root / path, fix=hint)
