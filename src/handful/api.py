"""The façade: the command line's verbs as functions."""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful import __version__, machine, parallel
from handful.augment.named import with_policies
from handful.data.audit import audit, in_order
from handful.data.images import Images, open_store
from handful.data.manifest import (
    LABELLED,
    TEST,
    UNLABELLED,
    VALIDATION,
    Manifest,
    printable,
)
from handful.data.saved import differences, obey_splits, save_splits
from handful.data.sources import read_data
from handful.deliver.augmenting import Augmented, AugmentOptions
from handful.deliver.augmenting import augment as augment_pictures
from handful.deliver.book import FitOptions, Run, RunBook, resolved, versions
from handful.deliver.evaluate import Evaluation
from handful.deliver.evaluate import evaluate as measure_run
from handful.deliver.exported import Exported, export
from handful.deliver.inspection import Inspected, read_any
from handful.deliver.inspection import inspect as look_at
from handful.deliver.plan import Planned, planned
from handful.deliver.predict import predict
from handful.deliver.preflight import check_outside, doubted_labels, tell_issues
from handful.deliver.results import write_results
from handful.engine.interrupt import listening
from handful.files import write_atomic
from handful.randomness import key
from handful.recipes.afterwards import accuracy_afterwards
from handful.recipes.auto import Validation, choose
from handful.recipes.choice import prior_table
from handful.recipes.compare import Grid, Source, draws_table, line_up, parse
from handful.recipes.compare import run as measure
from handful.recipes.curve import own_curve
from handful.recipes.moons import Moons, Played, entries, play, summary
from handful.recipes.pseudo_audit import pseudo_labels
from handful.recipes.screen import screened
from handful.recipes.table import RECIPES, changed, find, usual_space
from handful.recipes.task import Task, Workshop
from handful.recipes.train import Training
from handful.report.compare import Comparison, analyse
from handful.report.compare import write as write_comparison
from handful.report.moons import write as write_moons
from handful.report.record import Recorder
from handful.types import UsageError

__all__ = [
    "CompareOptions", "Compared", "Evaluation", "Exported", "FitOptions", "Inspected", "Planned", "Run", "Teller",
    "compare", "demo", "dry_run", "evaluate", "export", "fit", "inspect", "predict",
]  # fmt: skip


class Teller:
    """What the person who waits is told; the command line gives a better one."""

    def tell(self, line: str) -> None:
        """One line of news."""

    def progress(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``what``."""


def fit(
    data: Any,
    options: FitOptions | None = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Run:
    """Train a classifier on pictures, few of them labelled, choose honestly, write the report.

    The same call again goes on where a stopped one was, or returns the finished run.

    Args:
        data: a folder, a table, an archive, "torchvision:NAME", "hf:NAME", ``(x, y)`` … (``data.sources``); only read.
        out: the run's folder; by default below ``runs/``, named after data and options.

    Raises:
        UsageError: the data or the options cannot be used as given.
        HandfulError: the run failed; the message says what to do.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    options, teller = options or FitOptions(), teller or Teller()
    options = replace(options, method=with_policies(options.method))
    method = _method(options)
    if options.side and options.side < 8:
        raise UsageError(f"pictures of {options.side} px a side are too small", fix="give --side 8 or more")
    begin = time.perf_counter()
    machine.tune_allocator()
    machine.set_threads()
    parallel.start()
    if not parallel.is_first():
        teller = Teller()
    with listening():
        manifest = read_data(
            data, labels_per_class=options.labels_per_class, seed=options.seed, downloads=downloads()
        )
        name, identity, folder = _place(manifest, data, options, out)
        if (
            not parallel.is_first()
        ):  # the first process makes the run's folder and decodes; the others find both
            parallel.barrier()
        splits = folder / "splits.csv"
        book = RunBook(
            folder,
            identity,
            options,
            data=printable(str(data if isinstance(data, (str, Path)) else manifest.root)),
            command=printable(command),
            changes=differences(manifest, splits),
        )
        if book.finished:
            teller.tell(f"this run is finished already: {folder}")
            if parallel.is_first():
                parallel.barrier()
            return book.result()
        if book.resumed and splits.exists():
            manifest = obey_splits(manifest, splits)
        elif parallel.is_first():
            save_splits(manifest, splits)
        cache = cache_folder()
        images, manifest, unreadable = open_store(
            manifest,
            cache,
            side=options.side or None,
            progress=lambda d, t: teller.progress("reading pictures", d, t),
        )
        issues = audit(manifest, images, unreadable, lambda d, t: teller.progress("looking for copies", d, t))
        tell_issues(folder, issues, issues, teller.tell)
        if parallel.is_first():
            parallel.barrier()
        task, validation, test = tasks(images, manifest, options.seed)
        teller.tell(census(manifest, images))
        with Recorder(folder / "metrics.jsonl") if parallel.is_first() else nullcontext() as recorder:
            workshop = Workshop(
                cache=cache,
                folder=folder,
                device="cuda" if torch.cuda.is_available() else "cpu",
                feature_backend=options.feature_backend,
                log=_log_to(recorder),
                tell=teller.tell,
                progress=teller.progress,
                plan=book.plan,
                keep_plan=book.save,
                compile=options.compile,
                save_every=options.save_every,
            )
            doubts = doubted_labels(task, workshop, manifest, options.recipe)
            issues = in_order([*issues, *doubts])
            tell_issues(folder, issues, doubts, teller.tell)
            outcome = choose(
                task,
                workshop,
                seconds=options.seconds,
                validation=validation,
                only=None
                if options.recipe == "auto"
                else (options.recipe, options.features or usual_space(options.recipe, task)),
                method=method,
                training=options.training,
                prior=prior_table().without(options.without_priors),
                started=begin,
            )
            curve = own_curve(task, workshop, outcome)
            pseudo = pseudo_labels(task, workshop, outcome, method)
            test_y = torch.from_numpy(manifest.labels[test.numpy()])
            tested = accuracy_afterwards(task, workshop, outcome, test, test_y)
            screening = screened(task, workshop, outcome)
            strange = screening.issues(task) if screening else []
            issues = in_order([*issues, *strange])
            tell_issues(folder, issues, strange, teller.tell)
        for issue in screening.overall(task.classes) if screening else ():
            teller.tell(f"{issue.file}: {issue.reason}; {issue.suggestion}")
        if curve:
            teller.tell(curve.advice())
        book.seconds = time.perf_counter() - begin
        if parallel.is_first():
            teller.tell("writing model, predictions and report")
            write_results(
                book, outcome, task, manifest, validation, test, issues, name,
                curve=curve, pseudo=pseudo, tested=tested,
            )  # fmt: skip
        parallel.barrier()
        return book.result()


def dry_run(data: Any, options: FitOptions | None = None, *, out: str | Path | None = None) -> Planned:
    """What ``fit`` would do, from names and headers alone; nothing is written.

    Raises:
        UsageError: the data or the options cannot be used as given.
    """
    options = options or FitOptions()
    options = replace(options, method=with_policies(options.method))
    _method(options)
    manifest = read_data(
        data, labels_per_class=options.labels_per_class, seed=options.seed, downloads=downloads()
    )
    _, identity, folder = _place(manifest, data, options, out)
    return planned(manifest, options, folder, identity)


def _place(
    manifest: Manifest, data: Any, options: FitOptions, out: str | Path | None
) -> tuple[str, str, Path]:
    """Name of the data, identity of the run, and its folder.

    Raises:
        UsageError: it would lie among the pictures.
    """
    name = slug(manifest.name)
    identity = f"{key(__version__, manifest.place, manifest.fingerprint, resolved(options)):016x}"
    folder = Path(out) if out else Path("runs") / f"{name}-{slug(options.recipe)}-{identity[:8]}"
    check_outside(folder, data)
    return name, identity, folder


def _method(options: FitOptions) -> Any:
    """The recipe's method where fields of it were given, else None.

    Raises:
        UsageError: there is no such recipe or field, or options that nobody would read.
    """
    if options.recipe == "auto":
        if options.method or options.training:
            raise UsageError(
                "method and training options need a recipe of their own", fix="give --recipe NAME too"
            )
        return None
    recipe = find(options.recipe)
    changed(Training(), options.training, "training")
    if options.training and not recipe.trains:
        raise UsageError(
            f"recipe '{options.recipe}' trains no network: training options mean nothing to it",
            fix="leave them out, or choose another --recipe",
        )
    method = recipe.make(**options.method)
    return method if options.method else None


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


def evaluate(run: str | Path, data: str | Path, *, teller: Teller | None = None) -> Evaluation:
    """How right is a finished run on the labelled pictures of ``data`` (its test part, where there is one)?

    Raises:
        UsageError: no such run or data, or a class that the model does not know.
    """
    told = teller or Teller()
    manifest = read_data(data, downloads=downloads())
    return measure_run(run, manifest, progress=lambda d, t: told.progress("classifying", d, t))


@dataclass(frozen=True)
class CompareOptions:
    """What a comparison measures.

    Attributes:
        recipes: contenders as ``recipes.compare.parse`` reads them; () takes every recipe that needs seconds.
        labels: sizes, labels per class; () takes 1, 4, 16, 64, … as far as the data reach.
        seeds: number of label draws; ``first_seed`` is the number of the first.
        seconds: of training a network (of the whole choice for "auto").
        jobs: processes.
        pool: at most so many pictures to learn from; 0: all.
        labels_per_class: so many labels of each class to draw from, the others are forgotten; 0: all.
        side, feature_backend: as in ``FitOptions``.
        without_priors: data sets that "auto" must not know.
    """

    recipes: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    seeds: int = 5
    first_seed: int = 0
    seconds: float = 60.0
    jobs: int = 1
    pool: int = 0
    labels_per_class: int = 0
    side: int = 0
    feature_backend: str = "auto"
    without_priors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """A finished comparison.

    Attributes:
        folder: compare.json, compare.csv, draws.csv, report.html, and a folder for every cell.
        comparison: the tables.
        sentences: what each technique is worth in labels, in words.
        failed: how many cells have no figures.
    """

    folder: Path
    comparison: Comparison
    sentences: tuple[str, ...]
    failed: int


def compare(
    data: Any,
    options: CompareOptions | None = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Compared:
    """What is each technique worth in labels saved? A grid of recipes x labels per class x label draws.

    The same call again runs what is missing, or nothing.

    Args:
        data: what ``fit`` takes, most of it labelled, best with a test part; or a module's function that gives a
            ``Source``.
        out: the sweep's folder; by default ``runs/NAME-compare``.

    Raises:
        UsageError: the data or the options cannot be used as given.
        Interrupted: told to stop; finished cells are kept.
    """
    options, teller = options or CompareOptions(), teller or Teller()
    begin, cache = time.perf_counter(), cache_folder()
    rest = {"seconds": options.seconds, "without_priors": options.without_priors}
    wanted = [parse(text, **rest) for text in options.recipes]
    open_source = (
        data
        if callable(data)
        else partial(source_of, data, cache, options.side, options.pool, options.labels_per_class)
    )
    with listening():
        source = open_source()
        folder = Path(out) if out else Path("runs") / f"{slug(source.name)}-compare"
        check_outside(folder, data)
        most = source.most_labels()
        sizes = options.labels or tuple(4**i for i in range(8) if 4**i <= most) or (1,)
        cheap = [name for name, recipe in RECIPES.items() if recipe.cheap]
        contenders = line_up(wanted or [parse(name, **rest) for name in cheap], source)
        seeds = tuple(range(options.first_seed, options.first_seed + options.seeds))
        grid = Grid(tuple(contenders), sizes, seeds, options.feature_backend)
        teller.tell(
            f"{source.name}: {len(contenders)} recipes, {sizes} labels per class, {options.seeds} draws"
        )
        cells = measure(
            grid, open_source, folder, cache, jobs=options.jobs, tell=teller.tell, progress=teller.progress
        )
    comparison = analyse(
        cells,
        contenders,
        {name: recipe.title for name, recipe in RECIPES.items()} | {"auto": "automatic choice"},
        data=source.name,
        scored_on=_scored_on(source),
        classes=len(source.classes),
        caution="" if len(source.test) else CAUTION,
        about={
            "command": command,
            "seconds in all": round(time.perf_counter() - begin),
            "threads": f"{machine.cores()} cores, {options.jobs} process{'es' if options.jobs > 1 else ''}",
            **versions(),
        },
    )
    write_comparison(comparison, folder)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["draw", "class", "rank", "path"])
    lines.writerows(draws_table(source, sizes, grid.seeds))
    write_atomic(folder / "draws.csv", table.getvalue())
    return Compared(folder, comparison, tuple(comparison.sentences), len(comparison.failed))


CAUTION = (
    "There is no test part, so every figure is a cross-validation on the labelled pictures. The draws share most of "
    "those few pictures: the intervals speak of which of them were labelled, not of other pictures of the same kind, "
    "and are too narrow for that. Differences of less than a few points mean nothing here."
)


def _scored_on(source: Source) -> str:
    if len(source.test):
        return f"{len(source.test):,} test pictures that no recipe was trained on"
    return f"cross-validation, {source.n_folds()} folds of {len(source.known):,} labelled pictures"


def source_of(data: Any, cache: Path, side: int = 0, pool: int = 0, labels_per_class: int = 0) -> Source:
    """Pictures as a comparison takes them: scored on the test part, or on the validation part where that is the
    only one, or else by cross-validation."""
    manifest = read_data(data, labels_per_class=labels_per_class, downloads=downloads())
    images, manifest, _ = open_store(manifest, cache, side=side or None)
    rows = [manifest.ids(split) for split in (LABELLED, UNLABELLED, TEST, VALIDATION)]
    scored = rows[2] if len(rows[2]) else rows[3]
    pool_rows = np.sort(np.concatenate(rows[:2]))
    return Source(images, manifest.labels, pool_rows, scored, manifest.classes, manifest.name).limited(pool)


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


def demo(
    folder: str | Path = "runs/demo-digits", *, seed: int = 0, teller: Teller | None = None, **options: Any
) -> Run:
    """The main job on handwritten digits that ship with scikit-learn: 4 labels per class, the rest unlabelled,
    450 pictures held out. The pictures are written to ``folder/digits`` as PNG files first."""
    pictures = Path(folder) / "digits"
    write_digits(pictures, per_class=4, seed=seed)
    choices = FitOptions(seconds=90, seed=seed, without_priors=("digits",))
    return fit(
        pictures, replace(choices, **options), out=Path(folder) / "run", teller=teller, command="handful demo"
    )


def moons_methods() -> list[str]:
    """What ``moons`` can show."""
    return list(entries())


def moons(
    methods: Sequence[str] = (),
    setting: Moons | None = None,
    *,
    seeds: int = 1,
    out: str | Path = "runs/moons",
    teller: Teller | None = None,
) -> Path:
    """Every semi-supervised method on two moons; a page with its decision regions and a table over the draws.

    Args:
        methods: names of ``moons_methods()``; by default all.
        seeds: draws 0, 1, …; the first is drawn.

    Raises:
        UsageError: there is no such method, or no draw is asked for.
    """
    setting, teller = setting or Moons(), teller or Teller()
    names = list(methods) or moons_methods()
    if seeds < 1:
        raise UsageError("at least one draw is needed", fix="--seeds 1")
    shown: list[Played] = []
    right: dict[str, list[float]] = {}
    with listening():
        for name in names:
            for seed in range(seeds):
                played = play(
                    name,
                    setting,
                    seed,
                    partial(_tell_step, teller, name, seed * setting.steps, seeds * setting.steps),
                )
                right.setdefault(name, []).append(played.right)
                shown += [played] if seed == 0 else []
            teller.tell(f"{name}: {100 * sum(right[name]) / seeds:.1f} % of the points right")
    about = {
        "set": f"{setting.points} points, {setting.labels} + {setting.labels} labelled, {seeds} draws",
        "setting": str(setting),
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
    }
    return write_moons(Path(out), summary(right), shown, about)


def _tell_step(teller: Teller, name: str, before: int, total: int, step: int) -> None:
    teller.progress(name, before + step, total)


def write_digits(folder: Path, *, per_class: int, seed: int) -> None:
    """The digits as a folder: <class>/ with ``per_class`` pictures each, unlabeled/, test/<class>/ (450)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    from handful.data.split import draw
    from handful.randomness import permutation

    x, y = load_digits(return_X_y=True)
    pictures = np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    order = permutation(len(y), "digits")
    test, pool = np.sort(order[:450]), np.sort(order[450:])
    labelled = set(pool[draw(y[pool].astype(np.int64), per_class, seed)].tolist())
    in_test = set(test.tolist())
    for row in range(len(y)):
        if row in in_test:
            place = folder / "test" / str(y[row])
        else:
            place = folder / (str(y[row]) if row in labelled else "unlabeled")
        path = place / f"{row:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[row]).save(path)


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


def cache_folder() -> Path:
    """Where decoded pictures and features are kept: HANDFUL_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("HANDFUL_CACHE") or platformdirs.user_cache_dir("handful"))


def downloads() -> Path:
    """Where data sets that are known by name are kept."""
    return cache_folder() / "datasets"


def slug(text: str) -> str:
    """A name as part of a path: small letters, numbers and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "pictures"


def census(manifest: Manifest, images: Images) -> str:
    """How many pictures there are, in words."""
    n = {split: int((manifest.splits == split).sum()) for split in (LABELLED, UNLABELLED, VALIDATION, TEST)}
    kind = "colour" if images.channels == 3 else "gray"
    return (
        f"{len(manifest.classes)} classes, {n[LABELLED]} labelled, {n[UNLABELLED]} unlabelled, "
        f"{n[VALIDATION]} validation, {n[TEST]} test pictures ({kind}, kept at {images.side} px)"
    )
