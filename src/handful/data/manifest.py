"""Which pictures there are, and what is known of each: the first step of every run.

Two layouts of folders are read here (other kinds of input: ``data.sources``)::

    DIR/rose/*.jpg  DIR/tulip/*.jpg  DIR/*.jpg  DIR/unlabeled/*.jpg     class folders beside the unlabelled ones
        (and, if wanted, DIR/val/rose/*.jpg and DIR/test/rose/*.jpg)
    DIR/train/rose/*.jpg  DIR/val/…  DIR/test/…  DIR/unlabeled/…
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.randomness import digest, key
from handful.types import UsageError, did_you_mean

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
SPLIT_WORDS = {**FOLDER_NAMES, "training": LABELLED, **{name: name for name in SPLITS}}
ENDINGS = frozenset(
    [".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)
NOT_OURS = frozenset(["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"])
OTHER_PICTURES = frozenset(
    [".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".dng", ".cr2", ".nef", ".arw"]
)


@dataclass(frozen=True)
class Issue:
    """Something about a file (or a class folder) that a person should look at.

    Attributes:
        kind: a key of ``audit.WORDS``.
        other: another file that it is about (the original of a copy).
    """

    file: str
    reason: str
    suggestion: str
    kind: str = "left out"
    other: str = ""


@dataclass(frozen=True)
class Manifest:
    """N pictures in a fixed order.

    Attributes:
        root: the folder that ``paths`` are relative to, or where pictures without files come from.
        classes: class names, from the training part only, sorted; their order travels with the model.
        paths: N relative paths with forward slashes, or names of pictures without files.
        labels: int64 [N], index into ``classes``, -1 where unknown.
        splits: N words of ``SPLITS``.
        fingerprint: hash over names, sizes and modification times (or pixels): changes when the data do.
        name: of the data, for titles and folders.
        domains: N words, where the input tells the domain (camera, site …) of each picture.
        pictures: N pictures that are not files, by number: PIL pictures, or uint8 arrays [H, W] or [H, W, C].
        notes: what the reader left out, and why.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray
    fingerprint: str
    name: str = "pictures"
    domains: np.ndarray | None = None
    pictures: Sequence[Any] | None = None
    notes: tuple[Issue, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def place(self) -> str:
        """What tells these pictures from others with the same fingerprint: where the files are."""
        return "" if self.pictures is not None else str(self.root.resolve())

    def picture(self, row: int) -> Any:
        """The file of a row, or the picture itself where there are no files."""
        return self.root / self.paths[row] if self.pictures is None else self.pictures[row]

    def ids(self, split: str) -> np.ndarray:
        """Row numbers of one split, int64."""
        return np.flatnonzero(self.splits == split)

    def keep(self, mask: np.ndarray) -> Manifest:
        """Only the rows where ``mask`` (bool [N]) is true; classes stay as they are. Fewer rows are other data, with a
        fingerprint of their own, so that no store of all of them is taken for theirs."""
        rows = np.flatnonzero(mask)
        mark = f"{key(self.fingerprint, rows.tobytes().hex()):016x}"
        return replace(
            self,
            fingerprint=self.fingerprint if len(rows) == len(self) else mark,
            paths=tuple(self.paths[row] for row in rows),
            labels=self.labels[rows],
            splits=self.splits[rows],
            domains=None if self.domains is None else self.domains[rows],
            pictures=None if self.pictures is None else Some(self.pictures, rows),
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures per class and split; unlabelled ones are counted under ``""``."""
        table: dict[str, dict[str, int]] = {name: dict.fromkeys(SPLITS, 0) for name in (*self.classes, "")}
        for label, split in zip(self.labels, self.splits):
            table[self.classes[label] if label >= 0 else ""][str(split)] += 1
        return table


class Some(Sequence[Any]):
    """Some items of a sequence, in the order of ``rows``, fetched when asked for."""

    def __init__(self, whole: Sequence[Any], rows: np.ndarray) -> None:
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return self.whole[int(self.rows[i])]


def read_folder(folder: str | Path, *, to_learn: bool = True) -> Manifest:
    """The manifest of a folder in one of the two layouts.

    Args:
        to_learn: a network shall learn from it; otherwise a test part alone, or a single class, will do.

    Raises:
        UsageError: the folder is missing or empty; or (to learn) has fewer than two classes or one without pictures,
            or a validation or test class that training does not have (the nearest training class is named).
    """
    walk = _walk(folder)
    root, top = walk.root, walk.folders_in("")
    parts = {name: FOLDER_NAMES[name.lower()] for name in top if name.lower() in FOLDER_NAMES}
    has_train = LABELLED in parts.values()
    plain = [name for name in top if name not in parts]
    if has_train and plain:
        raise UsageError(
            f"has both train/ and class folders beside it ({', '.join(map(printable, plain[:3]))})",
            file=root,
            fix="move the class folders into train/, or remove train/",
        )

    rows: list[tuple[str, str, str]] = []  # (path, class name or "", split)
    folders = [(name, printable(name)) for name in plain]  # of labelled classes: (path, name)
    rows += [(path, name, LABELLED) for where, name in folders for path in walk.pictures(where)]
    for part, split in parts.items():
        if split == UNLABELLED:
            rows += [(path, "", UNLABELLED) for path in walk.pictures(part)]
            continue
        here = [(f"{part}/{name}", printable(name)) for name in walk.folders_in(part)]
        rows += [(path, name, split) for where, name in here for path in walk.pictures(where)]
        loose = walk.loose(part)
        if split == LABELLED:
            folders += here
            rows += [(path, "", UNLABELLED) for path in loose]
        else:
            walk.leave_out(loose, f"lies in {part}/ but in no class folder", f"move it to {part}/<class>/")
    rows += [(path, "", UNLABELLED) for path in walk.loose("")]

    classes = tuple(sorted({name for _, name, split in rows if name and (split == LABELLED or not to_learn)}))
    if to_learn or not rows:
        _check(root, classes, folders, rows)
    return _of_folder(walk, classes, rows)


def read_pile(folder: str | Path) -> Manifest:
    """All pictures below a folder, none of them labelled: enough to look at, not to learn from.

    Raises:
        UsageError: the folder is missing, or holds no pictures.
    """
    walk = _walk(folder)
    rows = [(path, "", UNLABELLED) for path in walk.pictures("")]
    if not rows:
        raise UsageError("holds no pictures", file=walk.root, fix="give the folder that holds your pictures")
    return _of_folder(walk, (), rows)


def _walk(folder: str | Path) -> Walk:
    root = Path(folder)
    if not os.path.isdir(root):  # false, not an error, for a name that no system takes
        raise UsageError("there is no such folder", file=root, fix="give the folder that holds your pictures")
    return Walk(root)


def _of_folder(walk: Walk, classes: tuple[str, ...], rows: list[tuple[str, str, str]]) -> Manifest:
    """The manifest of files that were found, as (path, class name or "", split)."""
    index = {name: i for i, name in enumerate(classes)}
    paths = [path for path, _, _ in rows]
    return Manifest(
        root=walk.root,
        classes=classes,
        paths=tuple(paths),
        labels=np.array([index.get(name, -1) for _, name, _ in rows], dtype=np.int64),
        splits=np.array([split for _, _, split in rows]),
        fingerprint=fingerprint(walk.root, paths, [f"{name}/{split}" for _, name, split in rows]),
        name=printable(walk.root.resolve().name),
        notes=tuple(walk.notes),
    )


def assemble(
    root: Path,
    *,
    pictures: Sequence[Any],
    words: Sequence[str],
    order: Sequence[str] | None,
    splits: Sequence[str] | None,
    names: Sequence[str] | None,
    content: str,
    name: str,
) -> Manifest:
    """The manifest of pictures that are no files.

    Args:
        root: what messages name.
        words: N class names, "" where unlabelled.
        order: class names in the order they should have, where the input knows one; otherwise sorted.
        splits: N of ``SPLITS``; pictures to learn from without a label become unlabelled.
        content: hash of the pixels.

    Raises:
        UsageError: see ``checked``.
    """
    found = list(splits) if splits is not None else [LABELLED] * len(words)
    named = list(names) if names is not None else [f"{number:06d}" for number in range(len(words))]
    if len(set(named)) != len(named):
        twice = Counter(named).most_common(1)[0][0]
        raise UsageError(f"two pictures are called '{twice}'", file=root, fix="give each a name of its own")
    classes, labels, found = checked(root, named, words, found, order)
    text = "\x1f".join(f"{a}\x1e{b}\x1e{c}" for a, b, c in zip(named, words, found))
    mark = f"{key(content, text, classes):016x}"
    return Manifest(root, classes, tuple(named), labels, np.array(found), mark, name, pictures=pictures)


def checked(
    root: Path,
    names: Sequence[str],
    words: Sequence[str],
    splits: Sequence[str],
    order: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Classes (of the training part only), labels int64 [N] and splits of N rows.

    Raises:
        UsageError: nothing there, nothing labelled, one class, a validation or test picture without a label or
            of a class that training does not have.
    """
    if not len(names):
        raise UsageError("holds no pictures", file=root, fix="check what the file holds")
    found = [UNLABELLED if s == UNLABELLED or (s == LABELLED and not w) else s for w, s in zip(words, splits)]
    present = {w for w, s in zip(words, found) if s == LABELLED}
    classes = tuple(c for c in order if c in present) if order is not None else tuple(sorted(present))
    if not classes:
        raise UsageError("nothing is labelled", file=root, fix="label a few pictures of each class")
    if len(classes) == 1:
        raise UsageError(
            f"has only one class ({classes[0]})", file=root, fix="label pictures of a second class"
        )
    index = {c: i for i, c in enumerate(classes)}
    labels = np.full(len(words), -1, dtype=np.int64)
    for row, (where, word, split) in enumerate(zip(names, words, found)):
        if split == UNLABELLED:
            continue
        if not word:
            fix = f"give its label, or put it into split 'unlabeled' instead of {split}"
            raise UsageError(f"'{printable(where)}' is a {split} picture without a label", file=root, fix=fix)
        if word not in index:
            reason = f"class '{word}' of '{printable(where)}' is not among the training classes"
            raise UsageError(reason, file=root, fix=nearest(word, classes))
        labels[row] = index[word]
    return classes, labels, found


def split_of(word: object) -> str:
    """One of ``SPLITS`` from any of its names ("" is the training part).

    Raises:
        UsageError: another word.
    """
    text = str(word).strip().lower()
    if text not in SPLIT_WORDS and text:
        raise UsageError(f"'{word}' is not a split", fix=f"use one of {', '.join(FOLDER_NAMES)}")
    return SPLIT_WORDS.get(text, LABELLED)


def fingerprint(root: Path, paths: Sequence[str], notes: Sequence[str]) -> str:
    """Hash of names, notes (class and split), sizes and modification times; 16 hex digits.

    A file that has gone since it was listed counts as such; reading it gives the reason.
    """
    lines = []
    for path, note in zip(paths, notes):
        try:
            stat = (root / path).stat()
            state = f"{stat.st_size}\x1f{stat.st_mtime_ns}"
        except OSError:
            state = "gone"
        lines.append(f"{path}\x1f{note}\x1f{state}\n")
    return digest(*lines)


def pictures_below(root: Path, part: str = "") -> list[str]:
    """Picture files below ``root/part``, sorted, relative to root. Links to folders are not followed."""
    return Walk(root).pictures(part)


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are not UTF-8 become ``\\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Walk:
    """Finds the pictures below a folder, and notes what it passes by. Only reads.

    Attributes:
        notes: what was left out: links back into the folder, links to nothing, folders that may not be opened,
            kinds of pictures that are not read.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.notes = root, list[Issue]()

    def leave_out(self, paths: Sequence[str], reason: str, suggestion: str) -> None:
        """Note files that are not used."""
        self.notes += [Issue(path, reason, suggestion) for path in paths]

    def folders_in(self, part: str) -> list[str]:
        """Names of the folders in ``root/part``, sorted. Links to folders elsewhere count, links back do not."""
        found, above = [], self.root.resolve()
        for entry in sorted(self._scan(part), key=lambda e: e.name):
            if entry.name.startswith(".") or entry.name in NOT_OURS or not self._is_folder(entry):
                continue
            if entry.is_symlink():
                aim = Path(entry.path).resolve()
                if above.is_relative_to(aim) or aim.is_relative_to(above):
                    reason = "is a link back into the folder of pictures"
                    self.leave_out([_join(part, entry.name)], reason, "remove the link")
                    continue
            found.append(entry.name)
        return found

    def loose(self, part: str) -> list[str]:
        """Picture files in ``root/part`` itself, sorted, relative to root."""
        names = sorted(entry.name for entry in self._scan(part) if not self._is_folder(entry))
        return self._usable(part, names)

    def pictures(self, part: str) -> list[str]:
        """Picture files in ``root/part`` and below, folder by folder, each sorted, relative to root."""
        found: list[str] = []
        for folder, inner, files in os.walk(self.root / part, onerror=self._closed):
            inner[:] = sorted(name for name in inner if name not in NOT_OURS and not name.startswith("."))
            where = Path(folder).relative_to(self.root).as_posix()
            found += self._usable("" if where == "." else where, sorted(files))
        return found

    def _usable(self, part: str, names: Sequence[str]) -> list[str]:
        found, other = [], Counter[str]()
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if ending in OTHER_PICTURES:
                other[ending] += 1
            elif ending in ENDINGS:
                if os.path.isfile(self.root / part / name):
                    found.append(_join(part, name))
                else:
                    reason = "is no file: a link to nothing, a pipe, or closed to you"
                    self.leave_out([_join(part, name)], reason, "remove it, or mend the link")
        for ending, n in sorted(other.items()):
            reason = f"holds {n} {ending} {'file' if n == 1 else 'files'}, a format that is not read"
            self.leave_out([part or "."], reason, "convert to JPEG or PNG")
        return found

    def _scan(self, part: str) -> list[os.DirEntry[str]]:
        try:
            return list(os.scandir(self.root / part))
        except OSError as error:
            self._closed(error)
            return []

    def _closed(self, error: OSError) -> None:
        where = Path(os.fspath(error.filename)).relative_to(self.root).as_posix()
        self.leave_out([where], f"cannot be opened ({error.strerror})", "give yourself the right to read it")

    @staticmethod
    def _is_folder(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a link that leads to itself
            return False


def _join(part: str, name: str) -> str:
    return f"{part}/{name}" if part else name


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
        inside = root / folders[0][0]
        table = next(iter(sorted(root.glob("*.csv"))), None)
        fix = "add a folder for a second class"
        if len(Walk(inside).folders_in("")) > 1:
            fix = f"did you mean {inside}?"
        elif table:
            fix = f"did you mean {table}? Otherwise {fix}"
        raise UsageError(f"has only one class ({classes[0]})", file=root, fix=fix)
    for path, name, _ in rows:
        if name and name not in classes:
            raise UsageError(
                f"class '{name}' is not among the training classes",
                file=root / path,
                fix=nearest(name, classes),
            )


def nearest(name: str, known: Sequence[str]) -> str:
    """The fix for a class that training does not have."""
    return did_you_mean(name, known) or "add labelled pictures of it, or remove it"
