"""What every verb stands on: the person who waits, the places for what is kept, pictures as a task."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import torch
from torch import Tensor

from handful.data.images import Images
from handful.data.manifest import LABELLED, TEST, UNLABELLED, VALIDATION, Manifest
from handful.recipes.task import Task, Validation
from handful.types import UsageError


class Teller:
    """What the person who waits is told; the command line gives a better one."""

    def tell(self, line: str) -> None:
        """One line of news."""

    def progress(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``what``."""


def tasks(images: Images, manifest: Manifest, seed: int) -> tuple[Task, Validation | None, Tensor]:
    """What recipes may see, the validation part, and the row numbers of the test part.

    Raises:
        UsageError: a class has no readable labelled picture.
    """
    labelled, unlabelled, val, test = (
        torch.from_numpy(manifest.ids(split)) for split in (LABELLED, UNLABELLED, VALIDATION, TEST)
    )
    labels = torch.from_numpy(manifest.labels)
    missing = sorted(set(range(len(manifest.classes))) - set(labels[labelled].tolist()))
    if missing:
        name = manifest.classes[missing[0]]
        raise UsageError(
            f"class '{name}' has no readable picture", file=manifest.root, fix="add one, or remove it"
        )
    task = Task(images, labelled, labels[labelled], unlabelled, manifest.classes, seed=seed)
    return task, (Validation(val, labels[val]) if len(val) else None), test


def census(manifest: Manifest, images: Images) -> str:
    """How many pictures there are, in words."""
    n = {split: int((manifest.splits == split).sum()) for split in (LABELLED, UNLABELLED, VALIDATION, TEST)}
    kind = "colour" if images.channels == 3 else "gray"
    return (
        f"{len(manifest.classes)} classes, {n[LABELLED]} labelled, {n[UNLABELLED]} unlabelled, "
        f"{n[VALIDATION]} validation, {n[TEST]} test pictures ({kind}, kept at {images.side} px)"
    )


def cache_folder() -> Path:
    """Where decoded pictures and features are kept: HANDFUL_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("HANDFUL_CACHE") or platformdirs.user_cache_dir("handful"))


def downloads() -> Path:
    """Where data sets that are known by name are kept."""
    return cache_folder() / "datasets"


def slug(text: str) -> str:
    """A name as part of a path: small letters, numbers and hyphens; accents are taken off."""
    text = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "pictures"
