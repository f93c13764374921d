"""How a verb that trains begins: its pictures, looked through, and its workshop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from handful import parallel
from handful.data.audit import audit
from handful.data.images import Images, open_store
from handful.data.manifest import Issue, Manifest, printable
from handful.recipes.task import Workshop
from handful.report.record import Recorder
from handful.run.file import Options, RunBook
from handful.run.ground import Teller, cache_folder
from handful.run.preflight import tell_issues
from handful.run.splits import differences, obey_splits, save_splits


def open_book(
    folder: Path, identity: str, options: Options, manifest: Manifest, data: Any, command: str
) -> RunBook:
    """The book of a run on ``data`` in this folder, which says what changed where it belongs to another run."""
    return RunBook(
        folder,
        identity,
        options,
        data=printable(str(data if isinstance(data, (str, Path)) else manifest.root)),
        command=printable(command),
        changes=differences(manifest, folder / "splits.csv"),
    )


def open_pictures(
    book: RunBook,
    manifest: Manifest,
    teller: Teller,
    *,
    side: int = 0,
    channels: int | None = None,
    passed_by: str = "",
) -> tuple[Images, Manifest, list[Issue]]:
    """Pictures in the splits that the run began with, decoded and audited; without those that cannot be read.

    Args:
        side: that they are stored at; 0 decides by the pictures, as ``channels`` None does.
        passed_by: a kind of problem that does not matter here.
    """
    splits = book.folder / "splits.csv"
    if book.resumed and splits.exists():
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
    tell_issues(book.folder, issues, issues, teller.tell)
    return images, manifest, issues


def open_workshop(
    book: RunBook,
    teller: Teller,
    recorder: Recorder | None,
    *,
    save_every: int,
    feature_backend: str = "auto",
    compile: bool = False,
) -> Workshop:
    """The workshop of a run, whose plan and log lie in its folder."""
    return Workshop(
        cache=cache_folder(),
        folder=book.folder,
        device="cuda" if torch.cuda.is_available() else "cpu",
        feature_backend=feature_backend,
        log=_log_to(recorder),
        tell=teller.tell,
        progress=teller.progress,
        plan=book.plan,
        keep_plan=book.save,
        compile=compile,
        save_every=save_every,
    )


def _log_to(recorder: Recorder | None) -> Callable[[str, int, dict[str, float]], None]:
    """Writes a stage's scalars; what an earlier, killed process wrote beyond its checkpoint is cut off first."""
    seen: set[str] = set()

    def log(stage: str, step: int, scalars: dict[str, float]) -> None:
        if recorder is None:  # only the first process writes
            return
        if stage not in seen:
            seen.add(stage)
            recorder.truncate_after(stage, step - 1)
        recorder.write(stage, step, scalars)

    return log
