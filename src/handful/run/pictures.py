"""The pictures of a run by their use: what is learned from, what is measured on, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from handful import parallel
from handful.data.audit import audit, in_order
from handful.data.images import Images, open_store
from handful.data.manifest import LABELLED, SPLITS, TEST, UNLABELLED, VALIDATION, Issue, Manifest
from handful.recipes.task import Task, Validation
from handful.run.file import RunFile
from handful.run.issues import tell_issues
from handful.run.places import cache_folder
from handful.run.splits import obey_splits, save_splits
from handful.run.teller import Teller
from handful.types import UsageError


@dataclass(frozen=True)
class Pictures:
    """What a run works on.

    Attributes:
        manifest: the pictures that can be read, in the splits that the run began with.
        task: what recipes may see.
        test: row numbers of the test part, int64 [n], with classes ``test_y``; only ever measured on.
        issues: what is wrong with the data, gravest first.
    """

    manifest: Manifest
    task: Task
    validation: Validation | None
    test: Tensor
    issues: Sequence[Issue] = ()

    @classmethod
    def of(cls, images: Images, manifest: Manifest, seed: int, issues: Sequence[Issue] = ()) -> Pictures:
        """Decoded pictures in the splits of a manifest.

        Raises:
            UsageError: a class has no readable labelled picture.
        """
        labelled, unlabelled, val, test = (torch.from_numpy(manifest.ids(split)) for split in SPLITS)
        labels = torch.from_numpy(manifest.labels)
        missing = sorted(set(range(len(manifest.classes))) - set(labels[labelled].tolist()))
        if missing:
            name = manifest.classes[missing[0]]
            raise UsageError(
                f"class '{name}' has no readable picture", file=manifest.root, fix="add one, or remove it"
            )
        task = Task(images, labelled, labels[labelled], unlabelled, manifest.classes, seed=seed)
        return cls(manifest, task, Validation(val, labels[val]) if len(val) else None, test, issues)

    @property
    def test_y(self) -> Tensor:
        return torch.from_numpy(self.manifest.labels)[self.test]

    def census(self) -> str:
        """How many pictures there are, in words."""
        splits, images = self.manifest.splits, self.task.images
        n = {split: int((splits == split).sum()) for split in SPLITS}
        kind = "colour" if images.channels == 3 else "gray"
        return (
            f"{len(self.manifest.classes)} classes, {n[LABELLED]} labelled, {n[UNLABELLED]} unlabelled, "
            f"{n[VALIDATION]} validation, {n[TEST]} test pictures ({kind}, kept at {images.side} px)"
        )

    def with_issues(self, new: Sequence[Issue], folder: Path, teller: Teller | None = None) -> Pictures:
        """With further problems, which are written to the run's folder, and told in short where ``teller`` is given."""
        issues = in_order([*self.issues, *new])
        tell_issues(folder, issues, new, teller or Teller())
        return replace(self, issues=issues)


def open_pictures(
    run_file: RunFile, manifest: Manifest, teller: Teller, *, side: int = 0, channels: int | None = None
) -> Pictures:
    """The pictures of a run, as ``read_pictures`` reads them, by their use; the person who waits is told how many.

    Raises:
        UsageError: a class has no readable labelled picture.
    """
    images, manifest, issues = read_pictures(run_file, manifest, teller, side=side, channels=channels)
    pictures = Pictures.of(images, manifest, run_file.options.seed, issues)
    teller.tell(pictures.census())
    return pictures


def read_pictures(
    run_file: RunFile,
    manifest: Manifest,
    teller: Teller,
    *,
    side: int = 0,
    channels: int | None = None,
    passed_by: str = "",
) -> tuple[Images, Manifest, list[Issue]]:
    """Pictures in the splits that the run began with, decoded and audited; without those that cannot be read.

    The other processes wait (in ``begin.open_run``) until the first one is through.

    Args:
        side: that they are stored at; 0 decides by the pictures, as ``channels`` None does.
        passed_by: a kind of problem that does not matter here.
    """
    splits = run_file.folder / "splits.csv"
    if run_file.resumed and splits.exists():
        manifest = obey_splits(manifest, splits)
    elif parallel.is_first():
        save_splits(manifest, splits)
    images, manifest, unreadable = open_store(
        manifest,
        cache_folder(),
        side=side or None,
        channels=channels,
        progress=lambda d, t: teller.progress("reading pictures", d, t),
    )
    found = audit(manifest, images, unreadable, lambda d, t: teller.progress("looking for copies", d, t))
    issues = [issue for issue in found if issue.kind != passed_by]
    tell_issues(run_file.folder, issues, issues, teller)
    if parallel.is_first():
        parallel.barrier()
    parallel.barrier()  # the others have read the plan, before the first adds to it
    return images, manifest, issues
