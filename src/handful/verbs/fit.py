"""``fit``: from pictures to a run folder."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handful import __version__, machine, parallel
from handful.augment.named import with_policies
from handful.choose.auto import choose
from handful.choose.prior import prior_table
from handful.data.audit import in_order
from handful.data.manifest import Manifest, printable
from handful.data.sources import read_data
from handful.engine.interrupt import listening
from handful.inference.backends import BACKENDS
from handful.randomness import key
from handful.recipes.candidate import Candidate
from handful.recipes.table import asked
from handful.report.record import Recorder
from handful.run.file import FitOptions, Run, RunBook, resolved
from handful.run.ground import Teller, census, downloads, slug, tasks
from handful.run.opening import open_book, open_pictures, open_workshop
from handful.run.preflight import check_outside, doubted_labels, tell_issues
from handful.run.results import write_results
from handful.study.afterwards import accuracy_afterwards
from handful.study.learning_curve import own_curve
from handful.study.pseudo_labels import pseudo_labels
from handful.study.screening import screened
from handful.types import UsageError
from handful.verbs.dry_run import Planned, planned


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
    only = _asked(options)
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
        book, name = _open_book(manifest, data, options, out, command)
        if book.finished:
            teller.tell(f"this run is finished already: {book.folder}")
            if parallel.is_first():
                parallel.barrier()
            return book.result()
        images, manifest, issues = open_pictures(book, manifest, teller, side=options.side)
        if parallel.is_first():
            parallel.barrier()
        parallel.barrier()  # the others have read the plan, before the first adds to it
        task, validation, test = tasks(images, manifest, options.seed)
        teller.tell(census(manifest, images))
        with Recorder(book.folder / "metrics.jsonl") if parallel.is_first() else nullcontext() as recorder:
            workshop = open_workshop(
                book, teller, recorder, save_every=options.save_every, feature_backend=options.feature_backend,
                compile=options.compile,
            )  # fmt: skip
            doubts = doubted_labels(task, workshop, manifest, options.recipe)
            issues = in_order([*issues, *doubts])
            tell_issues(book.folder, issues, doubts, teller.tell)
            outcome = choose(
                task,
                workshop,
                seconds=options.seconds,
                validation=validation,
                only=only,
                prior=prior_table().without(options.without_priors),
                started=begin,
            )
            curve = own_curve(task, workshop, outcome)
            pseudo = pseudo_labels(task, workshop, outcome)
            test_y = torch.from_numpy(manifest.labels[test.numpy()])
            tested = accuracy_afterwards(task, workshop, outcome, test, test_y)
            screening = screened(task, workshop, outcome)
            strange = screening.issues(task) if screening else []
            issues = in_order([*issues, *strange])
            tell_issues(book.folder, issues, [], teller.tell)
        for issue in screening.overall(task.classes) if screening else ():
            teller.tell(f"{issue.file}: {issue.reason}; {issue.suggestion} ({book.folder / 'issues.csv'})")
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


def _open_book(
    manifest: Manifest, data: Any, options: FitOptions, out: str | Path | None, command: str
) -> tuple[RunBook, str]:
    """The run's book and the data's name. The first process makes the folder and decodes; the others wait until both
    are there."""
    identity, folder = _place(manifest, data, options, out)
    if not parallel.is_first():
        parallel.barrier()
    book = open_book(folder, identity, options, manifest, data, command)
    return book, printable(manifest.name)


def dry_run(data: Any, options: FitOptions | None = None, *, out: str | Path | None = None) -> Planned:
    """What ``fit`` would do, from names and headers alone; nothing is written.

    Raises:
        UsageError: the data or the options cannot be used as given.
    """
    options = options or FitOptions()
    options = replace(options, method=with_policies(options.method))
    _asked(options)
    manifest = read_data(
        data, labels_per_class=options.labels_per_class, seed=options.seed, downloads=downloads()
    )
    identity, folder = _place(manifest, data, options, out)
    return planned(manifest, options, folder, identity)


def _place(manifest: Manifest, data: Any, options: FitOptions, out: str | Path | None) -> tuple[str, Path]:
    """Identity of the run, and its folder.

    Raises:
        UsageError: it would lie among the pictures.
    """
    identity = f"{key(__version__, manifest.place, manifest.fingerprint, resolved(options)):016x}"
    folder = (
        Path(out) if out else Path("runs") / f"{slug(manifest.name)}-{slug(options.recipe)}-{identity[:8]}"
    )
    check_outside(folder, data)
    return identity, folder


def _asked(options: FitOptions) -> Candidate | None:
    """The candidate that the options name; None for "auto".

    Raises:
        UsageError: there is no such recipe or field, or options that nobody would read.
    """
    if options.feature_backend not in ("auto", *BACKENDS):
        raise UsageError(
            f"there is no backend '{options.feature_backend}'", fix=f"auto, {', '.join(BACKENDS)}"
        )
    if options.side and options.side < 8:
        raise UsageError(f"pictures of {options.side} px a side are too small", fix="give --side 8 or more")
    return asked(options.recipe, options.features, options.method, options.training)
