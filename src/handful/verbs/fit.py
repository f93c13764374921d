"""``fit``: from pictures to a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from handful.augment.named import with_policies
from handful.choose.auto import choose
from handful.choose.prior import prior_table
from handful.data.manifest import Manifest
from handful.data.sources import read_data
from handful.inference.backends import BACKENDS
from handful.recipes.candidate import Candidate
from handful.recipes.table import asked
from handful.run.begin import at_work, identity_of, is_finished, open_run, open_workshop
from handful.run.file import Run
from handful.run.finish import finish
from handful.run.issues import doubted_labels
from handful.run.pictures import open_pictures
from handful.run.places import downloads, folder_for
from handful.run.teller import Teller
from handful.types import UsageError
from handful.verbs.fit_result import as_result, study


@dataclass(frozen=True)
class FitOptions:
    """Everything that decides a run's result, besides the data.

    Attributes:
        recipe: auto, or one of the recipes (handful fit --recipe list).
        features: feature space of the recipe: lite0, pixels, timm:NAME (default: the best guess for the pictures).
        seconds: for the run; networks share what reading pictures and the cheap candidates leave of it.
        seed: of every random draw.
        labels_per_class: use so many labels of each class, drawn by the seed, and forget the others (0: all).
        side: pixels that pictures are stored at (default: by the pictures).
        feature_backend: auto, torch, onnxruntime or openvino.
        method: fields of the recipe's method that differ from their defaults.
        training: fields of ``recipes.train.Training`` that differ.
        without_priors: data sets whose prior knowledge is left out (for benchmarks on them).
        compile: use torch.compile for networks that train.
        save_every: steps between checkpoints; changes nothing in the result.
    """

    recipe: str = "auto"
    features: str = ""
    seconds: float = 300.0
    seed: int = 0
    labels_per_class: int = 0
    side: int = 0
    feature_backend: str = "auto"
    method: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    without_priors: tuple[str, ...] = ()
    compile: bool = False
    save_every: int = 50

    def with_policies(self) -> FitOptions:
        """With policy files read, so that what they say is part of the run's identity."""
        return replace(self, method=with_policies(self.method))

    def asked(self) -> Candidate | None:
        """The candidate that they name; None for the automatic choice.

        Raises:
            UsageError: there is no such recipe, field or backend, or options that nobody would read.
        """
        if self.feature_backend not in ("auto", *BACKENDS):
            raise UsageError(
                f"there is no backend '{self.feature_backend}'", fix=f"auto, {', '.join(BACKENDS)}"
            )
        if self.side and self.side < 8:
            raise UsageError(f"pictures of {self.side} px a side are too small", fix="give --side 8 or more")
        return asked(self.recipe, self.features, self.method, self.training)


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
    begun, options = time.perf_counter(), (options or FitOptions()).with_policies()
    only = options.asked()
    with at_work(teller, distributed=True) as teller:
        manifest = manifest_of(data, options)
        folder, identity = place_of(manifest, data, options, out)
        run_file = open_run(folder, identity, options, manifest, data, command)
        if is_finished(run_file, teller):
            return run_file.result()
        pictures = open_pictures(run_file, manifest, teller, side=options.side)
        with open_workshop(
            run_file, teller, save_every=options.save_every, feature_backend=options.feature_backend,
            compile=options.compile,
        ) as workshop:  # fmt: skip
            doubts = doubted_labels(pictures.task, pictures.manifest, workshop, options.recipe)
            pictures = pictures.with_issues(doubts, folder, teller)
            outcome = choose(
                pictures.task,
                workshop,
                seconds=options.seconds,
                validation=pictures.validation,
                only=only,
                prior=prior_table().without(options.without_priors),
                started=begun,
            )
            studies = study(outcome, pictures, workshop)
        pictures = studies.told(pictures, folder, teller)
        return finish(run_file, pictures, as_result(outcome, pictures.task, studies), teller, begun)


def manifest_of(data: Any, options: FitOptions) -> Manifest:
    """Which pictures there are, and what is known of each."""
    return read_data(
        data, labels_per_class=options.labels_per_class, seed=options.seed, downloads=downloads()
    )


def place_of(manifest: Manifest, data: Any, options: FitOptions, out: str | Path | None) -> tuple[Path, str]:
    """The run's folder, and its identity.

    Raises:
        UsageError: the folder would lie among the pictures.
    """
    identity = identity_of(manifest, options)
    return folder_for(out, data, manifest.name, options.recipe, identity[:8]), identity
