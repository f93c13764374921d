"""A grid of cells, recipe x labels per class x label draw: what is a technique worth, measured in one way for all.

Draws are *paired* (a draw's pictures are the same for every recipe) and *nested* (those of 4 contain those of 1).
Every cell has a folder named after all that decides its figures; a cell that is there is not run again, so that a
killed sweep goes on, and a new recipe runs only its own cells. Test labels are read to score, by nothing else.

Legend: N pictures, K classes, S sizes (labels per class), R draws.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful import __version__, machine
from handful.augment.named import with_policies
from handful.data.images import Images
from handful.data.split import draw, folds
from handful.engine.interrupt import requested
from handful.files import write_atomic
from handful.randomness import key, permutation
from handful.recipes.auto import choose, recipe_options, started_by
from handful.recipes.choice import prior_table
from handful.recipes.table import RECIPES, changed, find, spaces_for, usual_space
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import STEPS, Training, digest
from handful.statistics import balanced_accuracy, expected_calibration_error, macro_f1
from handful.types import HandfulError, Interrupted, UsageError

FORMAT = 1  # of a cell's file
MOST_FOLDS = 4  # of the cross-validation where there is no test part
CHEAP_BASELINES = ("logistic", "nearest-mean", "knn")  # always in the table


@dataclass(frozen=True)
class Source:
    """Pictures to draw labels from, and those to score on.

    Attributes:
        y: int64 [N], -1 where the class is not known.
        pool: row numbers that are learnt from; labels are drawn among those with a known class.
        test: row numbers to score on; without any, cross-validation on the labelled part of the pool.
        name: for messages, and so that the automatic choice leaves out what it knows of this set.
    """

    images: Images
    y: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    name: str = "data"

    def limited(self, most: int) -> Source:
        """The same with a pool of at most ``most`` pictures, sampled once for all draws and recipes."""
        if not most or len(self.pool) <= most:
            return self
        some = np.sort(self.pool[permutation(len(self.pool), "pool")[:most]])
        return Source(self.images, self.y, some, self.test, self.classes, self.name)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies pictures, labels and parts."""
        parts = (digest(torch.from_numpy(a)) for a in (self.y, self.pool, self.test))
        return f"{key(self.images.fingerprint, *parts, self.classes):016x}"

    @property
    def known(self) -> np.ndarray:
        """Row numbers of the pool whose class is known."""
        return self.pool[self.y[self.pool] >= 0]

    def n_folds(self) -> int:
        """Of the cross-validation where there is no test part."""
        rarest = int(np.bincount(self.y[self.known], minlength=len(self.classes)).min())
        return min(MOST_FOLDS, rarest)

    def most_labels(self) -> int:
        """The largest number of labels per class that every class can give."""
        counts = np.bincount(self.y[self.known], minlength=len(self.classes))
        if len(self.test):
            return int(counts.min())
        return int(counts.min() - math.ceil(counts.min() / max(self.n_folds(), 1)))

    def drawn(self, per_class: int, seed: int, among: np.ndarray | None = None) -> np.ndarray:
        """Row numbers of one draw, sorted: ``per_class`` of each class (all where a class has fewer)."""
        rows = self.known if among is None else among
        return rows[draw(self.y[rows], per_class, seed)]

    def tasks(self, per_class: int, seed: int) -> Iterator[tuple[Task, Tensor]]:
        """The tasks of one draw with the rows to score on: one with a test part, otherwise one a fold."""
        if len(self.test):
            yield self._task(self.drawn(per_class, seed), np.empty(0, np.int64), seed), _rows(self.test)
            return
        known = self.known
        fold_of = folds(self.y[known], self.n_folds(), 1, seed)[0]
        for fold in range(self.n_folds()):
            held = known[fold_of == fold]
            labelled = self.drawn(per_class, seed, known[fold_of != fold])
            yield self._task(labelled, held, seed), _rows(held)

    def _task(self, labelled: np.ndarray, held: np.ndarray, seed: int) -> Task:
        rest = np.setdiff1d(self.pool, np.concatenate([labelled, held]))
        y = _rows(self.y[labelled])
        return Task(self.images, _rows(labelled), y, _rows(rest), self.classes, _rows(held), seed)


@dataclass(frozen=True)
class Contender:
    """A recipe with its settings: one line of the table.

    Attributes:
        recipe: a name of ``recipes.table``, or "auto".
        on: feature space.
        method, training: fields that differ from the recipe's own.
        seconds: of training a run (of the whole choice for "auto"); steps that are given leave it unused.
        without_priors: data sets that the automatic choice must not know.
    """

    recipe: str
    on: str = ""
    method: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 60.0
    without_priors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``fine-tune@lite0:training.steps=40``: what the command line takes."""
        changes = [f"method.{k}={v}" for k, v in self.method.items()]
        changes += [f"training.{k}={v}" for k, v in self.training.items()]
        where = f"@{self.on}" if self.on and self.recipe != "auto" else ""
        return f"{self.recipe}{where}" + (f":{','.join(changes)}" if changes else "")

    @property
    def uses_unlabelled(self) -> bool:
        return self.recipe == "auto" or find(self.recipe).uses_unlabelled or bool(started_by(self.training))

    @property
    def fingerprint(self) -> str:
        """Identifies everything that decides this contender's figures, besides the data."""
        timed = self.recipe == "auto" or (find(self.recipe).trains and not self.training.get("steps"))
        return f"{key(self.name, self.seconds if timed else 0, self.without_priors):016x}"

    def checked(self) -> Contender:
        """Itself.

        Raises:
            UsageError: an unknown recipe or field, or settings that nobody would read.
        """
        if self.recipe == "auto":
            if self.method or self.training:
                raise UsageError("'auto' takes no settings of a recipe", fix="name a recipe instead")
            return self
        recipe = find(self.recipe)
        recipe.make(**self.method)
        changed(Training(), self.training, "training")
        if self.training and not recipe.trains:
            raise UsageError(f"recipe '{self.recipe}' trains no network", fix="leave training.… out")
        return self


def parse(text: str, **rest: Any) -> Contender:
    """``NAME[@SPACE][:method.field=value,training.field=value,…]`` as a contender.

    Raises:
        UsageError: it cannot be read, or names what is not there.
    """
    head, _, tail = (
        text.partition(":") if not text.partition("@")[2].startswith("timm:") else _after_timm(text)
    )
    recipe, _, on = head.partition("@")
    changes: dict[str, Any] = {"method": {}, "training": {}}
    for item in filter(None, tail.split(",")):
        path, equals, value = item.partition("=")
        part, dot, name = path.strip().partition(".")
        if not (equals and dot and part in changes):
            fix = "write it as RECIPE:training.steps=40,method.threshold=0.9"
            raise UsageError(f"'{item}' in '{text}' is not a setting", fix=fix)
        changes[part][name.replace("-", "_")] = _value(value.strip())
    changes["method"] = with_policies(changes["method"])
    return Contender(recipe.strip(), on.strip(), **changes, **rest).checked()


def _after_timm(text: str) -> tuple[str, str, str]:
    """ "fine-tune@timm:resnet18:training.steps=4": the first colon belongs to the network's name."""
    before, _, after = text.partition("@timm:")
    network, colon, tail = after.partition(":")
    return f"{before}@timm:{network}", colon, tail


def _value(text: str) -> Any:
    """A number, true or false as such; anything else as text."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def line_up(contenders: Sequence[Contender], source: Source) -> list[Contender]:
    """The contenders, their feature spaces filled in, and the labelled-only baselines that they are measured by:
    the cheap ones on every space in use, and each recipe's own labelled-only twin with the same training."""
    some = next(iter(source.tasks(1, 0)))[0]
    found: dict[str, Contender] = {}

    def add(c: Contender) -> None:
        if c.recipe != "auto":
            on = c.on or usual_space(c.recipe, some)
            c = Contender(c.recipe, on, c.method, c.training, c.seconds, c.without_priors)
        found.setdefault(c.name, c)

    for c in contenders:
        add(c)
    for c in list(found.values()):
        on = c.on or spaces_for(some)[0]
        twin = "" if c.recipe == "auto" else find(c.recipe).labelled_only
        if not twin and started_by(c.training):
            twin = c.recipe
        for name in filter(None, (*CHEAP_BASELINES, twin)):
            training = {k: v for k, v in c.training.items() if not k.startswith("init")}
            training = training if find(name).trains else {}
            here = usual_space(name, some) if name == "supervised" else on  # which looks at pixels alone
            add(Contender(name, here, {}, training, c.seconds))
    order = {name: i for i, name in enumerate([*RECIPES, "auto"])}
    return sorted(found.values(), key=lambda c: (c.uses_unlabelled, order[c.recipe], c.on))


@dataclass
class Cell:
    """What came out for one contender, size and draw. Accuracies are fractions, None where the cell failed.

    Attributes:
        labels: per class; ``n_labels``: in all.
        calibration_error: expected calibration error of the answers as they are given (``auto`` scales them).
        seconds: feature tables and graphs that earlier cells left are not counted again.
        peak_memory: bytes of the process while the cell ran; None where the system does not say.
        learned_bytes: of what was learned from the labels (``Classifier.learned_bytes``), in the last fold.
        steps: of training, where a network was trained.
        chosen: what ``auto`` chose (in its last fold).
        failed: why there are no figures; empty where there are.
        macro_f1: None also in cells of older versions.
    """

    contender: str
    labels: int
    seed: int
    n_labels: int = 0
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    calibration_error: float | None = None
    n_scored: int = 0
    seconds: float = 0.0
    peak_memory: int | None = None
    learned_bytes: int = 0
    steps: int = 0
    chosen: str = ""
    failed: str = ""
    macro_f1: float | None = None


@dataclass(frozen=True)
class Grid:
    """What is to be measured.

    Attributes:
        sizes: labels per class, ascending.
        seeds: numbers of the label draws.
        feature_backend: as in ``FitOptions``.
    """

    contenders: tuple[Contender, ...]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    feature_backend: str = "auto"

    def cells(self) -> Iterator[tuple[Contender, int, int]]:
        """Cheap contenders first; the first draw of each before the others, since it decides on the steps."""
        costly = sorted(self.contenders, key=lambda c: c.recipe == "auto" or find(c.recipe).trains)
        for contender in costly:
            for size in self.sizes:
                for seed in self.seeds:
                    yield contender, size, seed

    def check(self, source: Source) -> None:
        """Raises UsageError where the data cannot give such a grid."""
        most = source.most_labels()
        if not len(source.test) and source.n_folds() < 2:
            raise UsageError(
                "a class has a single labelled picture, and there is no test part: nothing can be measured",
                fix="label more pictures, or add test/<class>/",
            )
        if not self.sizes or min(self.sizes) < 1 or not self.seeds:
            raise UsageError(
                "a grid needs sizes of at least 1 and at least one draw", fix="--labels 1,4,16 --seeds 5"
            )
        if max(self.sizes) > most:
            where = "beside the test part" if len(source.test) else "once a fold is held out"
            raise UsageError(
                f"{max(self.sizes)} labels per class were asked for, and the rarest class has {most} {where}",
                fix=f"--labels up to {most}, or label more pictures",
            )


def folder_of(folder: Path, source: Source, contender: Contender, size: int, seed: int) -> Path:
    """Where a cell is kept: readable, and named after all that decides its figures."""
    mark = key(FORMAT, __version__, torch.__version__, source.fingerprint, contender.fingerprint, size, seed)
    name = f"{contender.recipe}@{contender.on}" if contender.on else contender.recipe
    return folder / "cells" / f"{name.replace(':', '_').replace('/', '_')}-{size}-{seed}-{mark:016x}"


def read_cell(folder: Path) -> Cell | None:
    """A cell that was measured (or failed) before."""
    path = folder / "cell.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return Cell(**{f.name: content[f.name] for f in fields(Cell) if f.name in content})
    except (ValueError, KeyError, TypeError):
        return None  # of another version, or damaged: it is measured again


def run(
    grid: Grid,
    open_source: Callable[[], Source],
    folder: Path,
    cache: Path,
    *,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Cell]:
    """Measure what is missing of the grid; returns all its cells in the grid's order.

    A cell that fails is written down with its reason and does not stop the rest; the next call tries it again.

    Args:
        open_source: gives the data; called once in every process, so it must be a module's function (or a
            ``functools.partial`` of one) where ``jobs`` is above 1.
        folder: of the sweep; cells live below it.
        jobs: processes; they share the cores.

    Raises:
        Interrupted: told to stop; finished cells are kept, and the running one's checkpoints too.
    """
    source = open_source()
    grid.check(source)
    todo, found = [], {}
    for contender, size, seed in grid.cells():
        place = folder_of(folder, source, contender, size, seed)
        cell = read_cell(place)
        if cell is None or cell.failed:
            todo.append((contender, size, seed, place))
        else:
            found[place] = cell
    total = len(todo) + len(found)
    if found:
        tell(f"{len(found)} of {total} cells are there already")

    def take(place: Path, cell: Cell) -> None:
        found[place] = cell
        tell(f"[{len(found)}/{total}] {_line(cell)}")
        progress("cells", len(found), total)

    if jobs <= 1 or len(todo) < 2:
        bench = _Bench(source, cache, grid.feature_backend, folder)
        for contender, size, seed, place in todo:
            take(place, bench.cell(contender, size, seed, place))
    else:
        _run_many(todo, open_source, cache, grid.feature_backend, folder, jobs, take)
    return [found[folder_of(folder, source, *cell)] for cell in grid.cells()]


def _run_many(
    todo: list[tuple[Contender, int, int, Path]],
    open_source: Callable[[], Source],
    cache: Path,
    backend: str,
    folder: Path,
    jobs: int,
    take: Callable[[Path, Cell], None],
) -> None:
    """Several processes. The first draw of a contender and size goes before the others, which take its steps."""
    import multiprocessing

    waiting: dict[tuple[str, int], list[tuple[Contender, int, int, Path]]] = {}
    for item in todo:
        waiting.setdefault((item[0].name, item[1]), []).append(item)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(
        max(1, machine.cores() // jobs)
    )  # the processes read it as they start
    pool = ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),
        initializer=_open_bench,
        initargs=(open_source, cache, backend, folder),
    )
    try:
        flying: dict[Future[Cell], tuple[Contender, int, int, Path]] = {
            pool.submit(_cell_there, *group[0]): group.pop(0) for group in waiting.values()
        }
        while flying:
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                item = flying.pop(future)
                take(item[3], future.result())
                for other in waiting.pop((item[0].name, item[1]), []):
                    flying[pool.submit(_cell_there, *other)] = other
    except BrokenProcessPool as error:
        fix = "give the same command again, with fewer --jobs if memory is short; finished cells are kept"
        raise HandfulError("a process of the sweep was ended from outside", fix=fix) from error
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


_bench: _Bench | None = None  # of a worker process


def _open_bench(open_source: Callable[[], Source], cache: Path, backend: str, folder: Path) -> None:
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's business: it ends the others
    _bench = _Bench(open_source(), cache, backend, folder)


def _cell_there(contender: Contender, size: int, seed: int, place: Path) -> Cell:
    assert _bench is not None
    return _bench.cell(contender, size, seed, place)


class _Bench:
    """Measures cells one after the other; feature tables and graphs are shared between them."""

    def __init__(self, source: Source, cache: Path, backend: str, folder: Path) -> None:
        machine.tune_allocator()
        machine.set_threads()
        self.source, self.cache, self.backend, self.folder = source, cache, backend, folder
        self.spaces: dict[Any, Any] = {}

    def cell(self, contender: Contender, size: int, seed: int, place: Path) -> Cell:
        """Measure one cell and write it down."""
        cell = Cell(contender.name, size, seed)
        try:
            self._measure(cell, contender, size, seed, place)
        except Interrupted:
            raise
        except (HandfulError, RuntimeError, ValueError, MemoryError) as error:
            if requested():
                raise
            cell.failed = str(error).partition("\n")[0] or type(error).__name__
        write_atomic(place / "cell.json", json.dumps(asdict(cell) | {"format": FORMAT}, indent=1))
        shutil.rmtree(place / "stages", ignore_errors=True)
        return cell

    def _measure(self, cell: Cell, contender: Contender, size: int, seed: int, place: Path) -> None:
        plan_path = (
            self.folder / "plans" / f"{contender.fingerprint}-{self.source.fingerprint[:8]}-{size}.json"
        )
        plan = json.loads(plan_path.read_text()) if plan_path.exists() else {}
        begin = time.perf_counter()
        machine.forget_peak_memory()
        logits, truth = [], []
        for number, (task, rows) in enumerate(self.source.tasks(size, seed)):
            workshop = Workshop(
                cache=self.cache,
                folder=place / "stages" / str(number),
                device="cuda" if torch.cuda.is_available() else "cpu",
                feature_backend=self.backend,
                plan=plan,
                keep_plan=lambda: write_atomic(plan_path, json.dumps(plan, indent=1)),
                spaces=self.spaces,
            )
            fitted, cell.chosen = _fit(contender, task, workshop, self.source.name)
            logits.append(fitted.logits(rows) / fitted.classifier.temperature.cpu())
            truth.append(self.source.y[rows.numpy()])
            cell.n_labels = len(task.labelled)
            cell.learned_bytes = fitted.classifier.learned_bytes
        p, y = torch.cat(logits).softmax(1).numpy(), np.concatenate(truth)
        right = p.argmax(1) == y
        cell.accuracy = float(right.mean())
        cell.balanced_accuracy = balanced_accuracy(y, p.argmax(1), len(self.source.classes))
        cell.macro_f1 = macro_f1(y, p.argmax(1), len(self.source.classes))
        cell.calibration_error = expected_calibration_error(p.max(1), right)
        cell.n_scored = len(y)
        cell.seconds = round(time.perf_counter() - begin, 3)
        cell.peak_memory = machine.peak_memory()
        given = int(contender.training.get("steps", 0))
        cell.steps = given or sum(v for k, v in plan.items() if k.startswith(STEPS))


def _fit(contender: Contender, task: Task, workshop: Workshop, name: str) -> tuple[Fitted, str]:
    """Train one contender; what ``auto`` chose is told too."""
    if contender.recipe == "auto":
        prior = prior_table().without((name, *contender.without_priors))
        outcome = choose(task, workshop, seconds=contender.seconds, prior=prior)
        return outcome.fitted, outcome.chosen
    recipe = find(contender.recipe)
    method = recipe.make(**contender.method) if contender.method else None
    training = {"seconds": contender.seconds, **contender.training}
    options = recipe_options(task, contender.recipe, contender.on, training, method)
    return recipe.run(task, workshop, on=contender.on, **options, stage=contender.recipe), ""


def draws_table(
    source: Source, sizes: Sequence[int], seeds: Sequence[int]
) -> list[tuple[int, str, int, str]]:
    """(draw, class, rank, picture) of every labelled picture; at size n those of rank below n are labelled.

    Without a test part the labelled pictures of a fold are drawn among the others, so there is no single list.
    """
    if not len(source.test):
        return []
    rows = []
    for seed in seeds:
        taken: set[int] = set()
        rank = dict.fromkeys(range(len(source.classes)), 0)
        for size in sorted(set(range(1, max(sizes) + 1))):
            for row in source.drawn(size, seed).tolist():
                if row not in taken:
                    taken.add(row)
                    k = int(source.y[row])
                    rows.append((seed, source.classes[k], rank[k], source.images.names[row]))
                    rank[k] += 1
    return rows


def _line(cell: Cell) -> str:
    head = f"{cell.contender}, {cell.labels} per class, draw {cell.seed}: "
    if cell.failed:
        return head + f"failed ({cell.failed})"
    chosen = f", chose {cell.chosen}" if cell.chosen else ""
    assert cell.accuracy is not None
    return head + f"{100 * cell.accuracy:.1f} % right ({cell.seconds:.1f} s{chosen})"


def _rows(a: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.int64))
