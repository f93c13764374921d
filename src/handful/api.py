"""The façade: the command line's verbs as functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from handful import machine
from handful.data.images import open_store
from handful.data.manifest import printable
from handful.data.sources import read_data, read_labelled
from handful.engine.interrupt import listening
from handful.run.file import FitOptions, Run, versions
from handful.run.ground import Teller, cache_folder, census, downloads, slug, tasks
from handful.run.preflight import check_outside
from handful.verbs.augment import Augmented, AugmentOptions
from handful.verbs.augment import augment as augment_pictures
from handful.verbs.compare import Compared, CompareOptions, compare
from handful.verbs.demo import demo, moons, moons_methods, write_digits
from handful.verbs.distill import Distilled, DistillOptions, distill
from handful.verbs.dry_run import Planned
from handful.verbs.evaluate import Evaluation
from handful.verbs.evaluate import evaluate as measure_run
from handful.verbs.export import Exported, export
from handful.verbs.extend import Extended, ExtendOptions, extend
from handful.verbs.fit import dry_run, fit
from handful.verbs.inspect import Inspected, read_any
from handful.verbs.inspect import inspect as look_at
from handful.verbs.inspect_model import ModelInspected, inspect_model
from handful.verbs.predict import predict

__all__ = [
    "AugmentOptions", "Augmented", "CompareOptions", "Compared", "DistillOptions", "Distilled", "Evaluation",
    "Exported", "ExtendOptions", "Extended", "FitOptions", "Inspected", "ModelInspected", "Planned", "Run",
    "Teller", "augment", "cache_folder", "compare", "demo", "distill", "dry_run", "evaluate", "export", "extend",
    "fit", "inspect", "inspect_model", "moons", "moons_methods", "predict", "write_digits",
]  # fmt: skip


def evaluate(run: str | Path, data: str | Path, *, teller: Teller | None = None) -> Evaluation:
    """How right is a finished run on the labelled pictures of ``data`` (its test part, where there is one)?

    Raises:
        UsageError: no such run or data, or a class that the model does not know.
    """
    told = teller or Teller()
    manifest = read_labelled(data, downloads=downloads())
    return measure_run(run, manifest, progress=lambda d, t: told.progress("classifying", d, t))


def inspect(
    data: Any,
    against: Any = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Inspected:
    """Look at data before anything is trained: a page, ``issues.csv``, and the distance to another set.

    Args:
        data: what ``fit`` takes, or a folder of pictures without classes.
        against: another set.
        out: folder of the page; by default ``runs/NAME-inspect``.

    Raises:
        UsageError: there are no pictures, or too few to compare.
    """
    teller = teller or Teller()
    machine.tune_allocator()
    machine.set_threads()
    with listening():
        manifest, issues = read_any(data, downloads())
        other = None if against is None else read_any(against, downloads())[0]
        folder = Path(out) if out else Path("runs") / f"{slug(manifest.name)}-inspect"
        for one in (data, against):
            check_outside(folder, one)
        return look_at(
            manifest,
            issues,
            other,
            folder,
            cache=cache_folder(),
            progress=teller.progress,
            command=printable(command),
            about=versions(),
        )


def augment(
    data: Any,
    options: AugmentOptions | None = None,
    *,
    out: str | Path | None = None,
    apply: str | Path | None = None,
    teller: Teller | None = None,
) -> Augmented:
    """A gallery of augmentations on the user's own pictures; where asked for, the policy that suits them (a killed
    search goes on), and augmented copies of the labelled and unlabelled pictures.

    Args:
        data: what ``fit`` takes; only read.
        out: for the gallery and the search; by default ``runs/NAME-augment``.
        apply: folder for the copies.

    Raises:
        UsageError: the data or the options cannot be used as given.
        Interrupted: told to stop; what was measured is kept.
    """
    options, teller = options or AugmentOptions(), teller or Teller()
    machine.tune_allocator()
    machine.set_threads()
    with listening():
        manifest = read_data(data, seed=options.seed, downloads=downloads())
        folder = Path(out) if out else Path("runs") / f"{slug(manifest.name)}-augment"
        copies = Path(apply) if apply else None
        for place in filter(None, (folder, copies)):
            check_outside(place, data)
        images, manifest, _ = open_store(
            manifest,
            cache_folder(),
            side=options.side or None,
            progress=lambda d, t: teller.progress("reading pictures", d, t),
        )
        task, _, _ = tasks(images, manifest, options.seed)
        teller.tell(census(manifest, images))
        return augment_pictures(
            task,
            manifest,
            options,
            folder,
            copies,
            cache=cache_folder(),
            tell=teller.tell,
            progress=teller.progress,
        )
