"""The façade: the command line's verbs as functions."""

from __future__ import annotations

import csv
import io
import os
import platform
import re
import shutil
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful import __version__, machine, parallel
from handful.data.images import Images, decode, open_store
from handful.data.manifest import (
    LABELLED,
    TEST,
    UNLABELLED,
    VALIDATION,
    Manifest,
    pictures_below,
    read_folder,
)
from handful.engine.interrupt import listening
from handful.export import SIDE_CAR, WEIGHTS, load_model, save_model
from handful.files import write_atomic
from handful.randomness import key
from handful.recipes.auto import Outcome, Validation, choose
from handful.recipes.choice import prior_table
from handful.recipes.compare import Grid, Source, draws_table, line_up, parse
from handful.recipes.compare import run as measure
from handful.recipes.curve import own_curve
from handful.recipes.moons import Moons, Played, entries, play, summary
from handful.recipes.table import RECIPES, changed, find, usual_space
from handful.recipes.task import Task, Workshop
from handful.recipes.train import Training
from handful.report.build import summarise
from handful.report.compare import Comparison, analyse
from handful.report.compare import write as write_comparison
from handful.report.moons import write as write_moons
from handful.report.page import write as write_page
from handful.report.record import Recorder
from handful.types import HandfulError, UsageError


class Teller:
    """What the person who waits is told; the command line gives a better one."""

    def tell(self, line: str) -> None:
        """One line of news."""

    def progress(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``what``."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: report.html, model.safetensors, predictions.csv and the rest.
        chosen: the candidate that ships.
        accuracy: the headline figure, as a fraction, or None where nothing could be measured.
        interval: its 95 % interval.
        measured_on: what it was measured on.
    """

    folder: Path
    chosen: str
    accuracy: float | None
    interval: tuple[float, float] | None
    measured_on: str


@dataclass(frozen=True)
class FitOptions:
    """Everything that decides a run's result, besides the data.

    Attributes:
        recipe: "auto", or a name of ``recipes.table``.
        features: feature space of the recipe ("lite0", "pixels"); "" takes the best guess for the pictures.
        seconds: for the run; networks share what reading pictures and the cheap candidates leave of it.
        seed: of every random draw.
        side: pixels that pictures are stored at; 0 decides by the pictures.
        feature_backend: "auto", "torch", "onnxruntime", "openvino".
        method: fields of the recipe's method that differ from their defaults.
        training: fields of ``recipes.train.Training`` that differ.
        without_priors: data sets whose prior knowledge is left out (for benchmarks on them).
        compile: use torch.compile.
        save_every: steps between checkpoints; changes nothing in the result.
    """

    recipe: str = "auto"
    features: str = ""
    seconds: float = 300.0
    seed: int = 0
    side: int = 0
    feature_backend: str = "auto"
    method: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    without_priors: tuple[str, ...] = ()
    compile: bool = False
    save_every: int = 50


def fit(
    data: str | Path,
    options: FitOptions | None = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Run:
    """Train a classifier on a folder of pictures, choose honestly, write the report.

    The same call again goes on where a stopped one was, or returns the finished run.

    Args:
        data: the folder (layouts: ``data.manifest``); it is only read.
        out: the run's folder; by default below ``runs/``, named after data and options.

    Raises:
        UsageError: the data or the options cannot be used as given.
        HandfulError: the run failed; the message says what to do.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    options, teller = options or FitOptions(), teller or Teller()
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
        manifest = read_folder(data)
        name = _slug(Path(data).resolve().name)
        identity = (
            f"{key(__version__, manifest.root.resolve(), manifest.fingerprint, _resolved(options)):016x}"
        )
        folder = Path(out) if out else Path("runs") / f"{name}-{_slug(options.recipe)}-{identity[:8]}"
        if folder.resolve().is_relative_to(manifest.root.resolve()):
            raise UsageError(
                "lies in the folder of pictures, which is only read",
                file=folder,
                fix="choose another folder with --out",
            )
        if (
            not parallel.is_first()
        ):  # the first process makes the run's folder and decodes; the others find both
            parallel.barrier()
        book = RunBook(folder, identity, options, data=str(data), command=command)
        if book.finished:
            teller.tell(f"this run is finished already: {folder}")
            if parallel.is_first():
                parallel.barrier()
            return book.result()
        cache = cache_folder()
        images, manifest, unreadable = open_store(
            manifest,
            cache,
            side=options.side or None,
            progress=lambda d, t: teller.progress("reading pictures", d, t),
        )
        if parallel.is_first():
            parallel.barrier()
        task, validation, test = tasks(images, manifest, options.seed)
        teller.tell(_census(manifest, images))
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
        if curve:
            teller.tell(curve.advice())
        book.seconds = time.perf_counter() - begin
        if parallel.is_first():
            teller.tell("writing model, predictions and report")
            _write_results(book, outcome, task, manifest, validation, test, unreadable, name)
        parallel.barrier()
        return book.result()


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


def _write_results(
    book: RunBook,
    outcome: Outcome,
    task: Task,
    manifest: Manifest,
    validation: Validation | None,
    test: Tensor,
    unreadable: list[tuple[str, str]],
    name: str,
) -> None:
    """Model, predictions, summary, report; ``run.toml`` last, so that a run counts as finished only with all."""
    folder = book.path.parent
    digest = save_model(
        folder, outcome.fitted.classifier, task.classes, task.images.channels, task.images.side
    )
    write_atomic(folder / "predictions.csv", _predictions(outcome, manifest, task, test))
    summary = summarise(
        task,
        outcome,
        name=name,
        validation=validation,
        test=test,
        test_y=torch.from_numpy(manifest.labels[test.numpy()]),
        unreadable=unreadable,
        folder=folder,
        plan=book.plan,
        seconds=book.seconds,
        digest=digest,
        command=book.command,
        counts=manifest.counts(),
        versions=versions(),
        seed=book.options.seed,
    )
    summary.save(folder / "summary.json")
    write_page(summary, folder / "report.html")
    shutil.rmtree(folder / "stages", ignore_errors=True)
    interval = summary.headline_interval
    book.finish(Run(folder, outcome.chosen, summary.headline_accuracy, interval, summary.measured_on))


def predict(
    run: str | Path, pictures: Sequence[str | Path], *, batch: int = 64
) -> tuple[list[tuple[str, str, float]], list[tuple[str, str]]]:
    """Class and probability of pictures (files, or folders that are searched).

    Returns:
        (file, class, probability) in the order given, and (file, reason) of those that cannot be read.

    Raises:
        UsageError: no such run or no pictures.
    """
    saved = load_model(run)
    files: list[Path] = []
    for item in map(Path, pictures):
        if item.is_dir():
            files += [item / name for name in pictures_below(item)]
        elif item.exists():
            files.append(item)
        else:
            raise UsageError("there is no such file", file=item, fix="check the path")
    if not files:
        raise UsageError("no pictures were given", fix="handful predict RUN picture.jpg folder/ …")
    from handful.augment.views import to_input
    from handful.engine.evaluate import evaluating

    good: list[tuple[str, str, float]] = []
    bad: list[tuple[str, str]] = []
    with evaluating(saved.classifier) as model:
        for first in range(0, len(files), batch):
            names, arrays = [], []
            for file in files[first : first + batch]:
                try:
                    arrays.append(decode(file, saved.store["channels"], saved.store["side"]))
                    names.append(str(file))
                except ValueError as error:
                    bad.append((str(file), str(error)))
            if arrays:
                p = model(to_input(torch.from_numpy(np.stack(arrays)), saved.classifier.spec)).logits.softmax(
                    1
                )
                confidence, label = p.max(1)
                good += [
                    (n, saved.classes[k], float(c)) for n, k, c in zip(names, label.tolist(), confidence)
                ]
    return good, bad


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
    data: str | Path | Callable[[], Source],
    options: CompareOptions | None = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Compared:
    """What is each technique worth in labels saved? A grid of recipes x labels per class x label draws.

    The same call again runs what is missing, or nothing.

    Args:
        data: pictures, most of them labelled, best with a test part; or a module's function that gives them.
        out: the sweep's folder; by default ``runs/NAME-compare``.

    Raises:
        UsageError: the data or the options cannot be used as given.
        Interrupted: told to stop; finished cells are kept.
    """
    options, teller = options or CompareOptions(), teller or Teller()
    begin, cache = time.perf_counter(), cache_folder()
    rest = {"seconds": options.seconds, "without_priors": options.without_priors}
    wanted = [parse(text, **rest) for text in options.recipes]
    open_source = data if callable(data) else partial(source_of, data, cache, options.side, options.pool)
    with listening():
        source = open_source()
        folder = Path(out) if out else Path("runs") / f"{_slug(source.name)}-compare"
        if not callable(data) and folder.resolve().is_relative_to(Path(data).resolve()):
            fix = "choose another folder with --out"
            raise UsageError("lies in the folder of pictures, which is only read", file=folder, fix=fix)
        most = source.most_labels()
        sizes = options.labels or tuple(4**i for i in range(8) if 4**i <= most) or (1,)
        cheap = [name for name, recipe in RECIPES.items() if not recipe.trains]
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


def source_of(data: str | Path, cache: Path, side: int = 0, pool: int = 0) -> Source:
    """Pictures on disk as a comparison takes them: scored on the test part, or on the validation part where that
    is the only one, or else by cross-validation."""
    manifest = read_folder(data)
    images, manifest, _ = open_store(manifest, cache, side=side or None)
    rows = [manifest.ids(split) for split in (LABELLED, UNLABELLED, TEST, VALIDATION)]
    scored = rows[2] if len(rows[2]) else rows[3]
    pool_rows = np.sort(np.concatenate(rows[:2]))
    name = Path(data).resolve().name
    return Source(images, manifest.labels, pool_rows, scored, manifest.classes, name).limited(pool)


def demo(
    folder: str | Path = "runs/demo-digits", *, seed: int = 0, teller: Teller | None = None, **options: Any
) -> Run:
    """The main job on handwritten digits that ship with scikit-learn: 4 labels per class, the rest unlabelled,
    450 pictures held out. The pictures are written to ``folder/pictures`` as PNG files first."""
    pictures = Path(folder) / "pictures"
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


class RunBook:
    """``run.toml``: what was asked for, what was planned (a resumed run obeys it), and how it ended."""

    def __init__(self, folder: Path, identity: str, options: FitOptions, *, data: str, command: str) -> None:
        self.path, self.identity, self.options = folder / "run.toml", identity, options
        self.data, self.command, self.seconds = data, command, 0.0
        self.plan: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}
        if self.path.exists():
            try:
                found = tomllib.loads(self.path.read_text())
            except tomllib.TOMLDecodeError as error:
                fix = "remove the folder, or choose another with --out"
                raise HandfulError(f"is damaged ({error})", file=self.path, fix=fix) from error
            started = (folder / "stages").exists() or (folder / WEIGHTS).exists()
            if found.get("identity") == identity:
                self.plan, self.ended = found.get("plan", {}), found.get("result", {})
            elif started:  # a run that failed before any work was done is simply replaced
                raise UsageError(
                    "belongs to a run on other data, with other options, or of another version",
                    file=folder,
                    fix="choose another folder with --out, or remove this one",
                )
        elif folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir()):
            raise UsageError(
                "is not empty and not a run", file=folder, fix="choose another folder with --out"
            )
        self.save()

    @property
    def finished(self) -> bool:
        """Whether the run has ended and its model is there."""
        return bool(self.ended) and all((self.path.parent / name).exists() for name in (WEIGHTS, SIDE_CAR))

    def save(self) -> None:
        """Write the file, whole or not at all."""
        import tomli_w

        if not parallel.is_first():
            return
        content = {
            "identity": self.identity,
            "version": __version__,
            "data": self.data,
            "command": self.command,
            "options": _resolved(self.options),
            "plan": self.plan,
            "versions": versions(),
        }
        if self.ended:
            content["result"] = self.ended
        write_atomic(self.path, tomli_w.dumps(content))

    def finish(self, run: Run) -> None:
        """Write down how the run ended."""
        self.ended = {"chosen": run.chosen, "measured_on": run.measured_on, "seconds": round(self.seconds, 1)}
        if run.accuracy is not None:
            self.ended["accuracy"] = run.accuracy
        if run.interval is not None:
            self.ended["interval"] = list(run.interval)
        self.save()

    def result(self) -> Run:
        """The finished run, as the first process wrote it down."""
        if not self.ended:
            self.ended = tomllib.loads(self.path.read_text())["result"]
        interval = self.ended.get("interval")
        return Run(
            self.path.parent,
            self.ended["chosen"],
            self.ended.get("accuracy"),
            (interval[0], interval[1]) if interval else None,
            self.ended["measured_on"],
        )


def cache_folder() -> Path:
    """Where decoded pictures and features are kept: HANDFUL_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("HANDFUL_CACHE") or platformdirs.user_cache_dir("handful"))


def versions() -> dict[str, str]:
    """Versions of what decides the result."""
    names = ("torch", "timm", "numpy", "scikit-learn", "pillow", "safetensors")
    return {
        "handful": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _resolved(options: FitOptions) -> dict[str, Any]:
    names = (name for name in options.__dataclass_fields__ if name != "save_every")
    return {name: _plain(getattr(options, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "pictures"


def _census(manifest: Manifest, images: Images) -> str:
    n = {split: int((manifest.splits == split).sum()) for split in (LABELLED, UNLABELLED, VALIDATION, TEST)}
    kind = "colour" if images.channels == 3 else "gray"
    return (
        f"{len(manifest.classes)} classes, {n[LABELLED]} labelled, {n[UNLABELLED]} unlabelled, "
        f"{n[VALIDATION]} validation, {n[TEST]} test pictures ({kind}, kept at {images.side} px)"
    )


def _predictions(outcome: Outcome, manifest: Manifest, task: Task, test: Tensor) -> str:
    """CSV of the unlabelled and the test pictures: path, split, label, probability."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["path", "split", "label", "probability"])
    rows = torch.cat([task.unlabelled, test])
    if len(rows):
        p = outcome.probabilities(rows)
        confidence, label = p.max(1)
        for row, k, c in zip(rows.tolist(), label.tolist(), confidence.tolist()):
            table.writerow([manifest.paths[row], manifest.splits[row], manifest.classes[k], f"{c:.4f}"])
    return text.getvalue()
