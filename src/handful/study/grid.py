"""A grid of cells, recipe x labels per class x label draw: what is a technique worth, measured in one way for all.

Draws are *paired* (a draw's pictures are the same for every recipe) and *nested* (those of 4 contain those of 1).
Every cell has a folder named after all that decides its figures; a cell that is there is not run again, so that a
killed sweep goes on, and a new recipe runs only its own cells. Test labels are read to score, by nothing else.

Legend: N pictures, K classes, S sizes (labels per class), R draws.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful import __version__, machine
from handful.choose.auto import choose
from handful.choose.prior import prior_table
from handful.engine.interrupt import requested
from handful.files import agree, write_atomic
from handful.randomness import key
from handful.recipes.table import find, fit_candidate
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import STEPS
from handful.stats.calibration import expected_calibration_error
from handful.stats.intervals import balanced_accuracy, macro_f1
from handful.study.contenders import Contender
from handful.study.draws import Source
from handful.types import HandfulError, Interrupted, UsageError

FORMAT = 1  # of a cell's file


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
        return product(costly, self.sizes, self.seeds)

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


def folder_of(
    folder: Path, source: Source, contender: Contender, size: int, seed: int, backend: str = "auto"
) -> Path:
    """Where a cell is kept: readable, and named after all that decides its figures."""
    mark = key(*_made_by(backend), source.fingerprint, contender.fingerprint, size, seed)
    name = f"{contender.recipe}@{contender.on}" if contender.on else contender.recipe
    return folder / "cells" / f"{name.replace(':', '_').replace('/', '_')}-{size}-{seed}-{mark:016x}"


def _made_by(backend: str) -> tuple[object, ...]:
    """What decides figures besides data, contender and draw."""
    return FORMAT, __version__, torch.__version__, backend, torch.cuda.is_available()


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
        place = folder_of(folder, source, contender, size, seed, grid.feature_backend)
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
    return [found[folder_of(folder, source, *cell, grid.feature_backend)] for cell in grid.cells()]


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
    before, others = os.environ.get("OMP_NUM_THREADS"), set(multiprocessing.active_children())
    # the processes read it as they start
    os.environ["OMP_NUM_THREADS"] = str(max(1, machine.cores() // jobs))
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
        for process in set(multiprocessing.active_children()) - others:  # the caller may have some of its own
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
        mark = key(*_made_by(self.backend), self.source.fingerprint, contender.fingerprint, size)
        plan_path = self.folder / "plans" / f"{mark:016x}.json"
        plan = agree(plan_path, {})
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
                keep_plan=lambda: plan.update(agree(plan_path, plan)),
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
    return fit_candidate(contender, task, workshop, seconds=contender.seconds), ""


def _line(cell: Cell) -> str:
    head = f"{cell.contender}, {cell.labels} per class, draw {cell.seed}: "
    if cell.failed:
        return head + f"failed ({cell.failed})"
    chosen = f", chose {cell.chosen}" if cell.chosen else ""
    assert cell.accuracy is not None
    return head + f"{100 * cell.accuracy:.1f} % right ({cell.seconds:.1f} s{chosen})"
