"""``extend``: new classes for a saved classifier, without its old pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from handful.augment.named import make, with_policies
from handful.data.images import open_store
from handful.data.manifest import LABELLED, TEST, UNLABELLED, VALIDATION, Manifest
from handful.data.sources import read_data, read_labelled
from handful.files import write_atomic
from handful.inference.logits import predict
from handful.inference.model_file import Saved, load_model
from handful.methods.forgetting import LearningWithoutForgetting
from handful.models.classifier import Classifier
from handful.recipes.extend import GIVEN_UP, PLAIN, TITLES, Extension, Old, add_classes, further, read
from handful.recipes.stage import Stage
from handful.recipes.table import changed
from handful.recipes.task import Validation, Workshop
from handful.report.record import Tried, read_typed
from handful.report.words import shortlist
from handful.run.begin import at_work, identity_of, is_finished, open_run, open_workshop
from handful.run.file import Run
from handful.run.finish import finish
from handful.run.pictures import Pictures, open_pictures
from handful.run.places import cache_folder, check_outside, downloads, folder_for
from handful.run.result import HeldOutAnswers, Result, measured
from handful.run.teller import Teller
from handful.types import UsageError
from handful.verbs.extend_table import Figures, Row, Side, as_section, sentence

FIGURES, AGAIN = "extension.json", "remove the run's folder and extend again"
NO_THRESHOLD = (
    "No threshold is set after an extension: it would rest on pictures of the new classes alone, and how many right "
    "answers of old classes it gives up could not be known."
)


@dataclass(frozen=True)
class ExtendOptions:
    """Everything that decides an extension, besides the old run and the new pictures.

    Attributes:
        lambda_old: weight of the old network's responses; 0 is plain fine-tuning.
        temperature: of the responses.
        freeze_old_head: the old classes' own weights stay as they are.
        responses: the old network's: "recorded" beforehand on the pictures as they are, or "live", to each view that is
            learnt.
        view: how pictures are shown in training: plain, weak, strong, weak+randaugment:n=2:m=9, or a policy file.
        seconds: for the run; the trainings share what reading pictures leaves of it.
        seed: of every random draw.
        labels_per_class: use so many labels of each new class, drawn by the seed (0: all).
        feature_backend: auto, torch, onnxruntime or openvino, for a head on frozen features.
        training: fields of ``recipes.train.Training`` that differ ("steps", "lr", …).
        save_every: steps between checkpoints; changes nothing in the result.
    """

    lambda_old: float = 1.0
    temperature: float = 2.0
    freeze_old_head: bool = False
    responses: Literal["recorded", "live"] = "recorded"
    view: str = "plain"
    seconds: float = 300.0
    seed: int = 0
    labels_per_class: int = 0
    feature_backend: str = "auto"
    training: Mapping[str, Any] = field(default_factory=dict)
    save_every: int = 50

    def method(self, n_old: int) -> LearningWithoutForgetting:
        """The method that they say."""
        return LearningWithoutForgetting(
            n_old, self.lambda_old, self.temperature, self.responses, self.freeze_old_head, self.view
        )


@dataclass(frozen=True)
class Extended:
    """A finished extension: its run, as ``fit`` leaves one, and the table."""

    run: Run
    figures: Figures

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return self.run.as_dict() | asdict(self.figures)


def extend(
    run: str | Path,
    data: Any,
    options: ExtendOptions | None = None,
    *,
    old_test: Any = None,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Extended:
    """Add the classes of ``data`` to a saved classifier, and write a run folder of its own.

    The old run is only read; none of its pictures are needed. The same call again goes on where a stopped one was, or
    returns the finished run. Classes keep their names and their order: the old ones first, then the new ones.

    Args:
        run: a run's folder, or a file of ``handful export --format safetensors``.
        data: what ``fit`` takes, with pictures of new classes alone.
        old_test: labelled pictures of old classes, only to measure what was forgotten; None: that stays unknown.
        out: the new run's folder; by default below ``runs/``.

    Raises:
        UsageError: run, data or options cannot be used as given.
        HandfulError: the run failed.
        Interrupted: told to stop; the state is saved.
    """
    begun, options = time.perf_counter(), options or ExtendOptions()
    options = replace(options, view=str(with_policies({"view": options.view})["view"]))
    make(options.view)
    with at_work(teller) as teller:
        saved = read_old(run)
        old = Old(saved.classifier, len(saved.classes), saved.sha256)
        method = options.method(old.n_classes)
        manifest = read_data(
            data, labels_per_class=options.labels_per_class, seed=options.seed, downloads=downloads()
        )
        check_new(manifest, saved.classes)
        known = None if old_test is None else old_pictures(old_test, saved.classes)
        identity = identity_of(manifest, options, "extend", saved.sha256, known.fingerprint if known else "")
        folder = folder_for(out, data, manifest.name, "extended", identity[:8])
        check_apart(folder, Path(run), known)
        run_file = open_run(folder, identity, options, manifest, data, command)
        if is_finished(run_file, teller):
            return Extended(run_file.result(), read_typed(Figures, folder / FIGURES, AGAIN))
        store = {name: saved.store[name] for name in ("side", "channels")}
        pictures = open_pictures(run_file, manifest, teller, **store)
        with open_workshop(
            run_file, teller, save_every=options.save_every, feature_backend=options.feature_backend
        ) as workshop:
            if old.trains:  # a head on frozen features is fitted, and stays, on the processor
                old.classifier.to(workshop.device)
            training = changed(further(old, pictures.task), options.training, "training")
            if not old.trains and (unused := _unused(options)):
                teller.tell(
                    f"a head on frozen features gets new rows, and nothing trains: no use for {unused}"
                )
            done = add_classes(
                old, Stage("", pictures.task, method, training), workshop,
                validation=pictures.validation, seconds=options.seconds, started=begun,
            )  # fmt: skip
        teller.tell("measuring old and new classes")
        figures = _measured(old, saved, done, pictures, known, workshop)
        write_atomic(folder / FIGURES, json.dumps(asdict(figures), indent=1, ensure_ascii=False))
        result = _result(old, done, figures, folder)
        whole = over_all_classes(pictures, figures.old_classes)
        return Extended(finish(run_file, whole, result, teller, begun), figures)


def _unused(options: ExtendOptions) -> str:
    """The options of training that differ from their defaults, as on the command line."""
    names = ("lambda_old", "temperature", "freeze_old_head", "responses", "view")
    changed_ = [name for name in names if getattr(options, name) != getattr(ExtendOptions(), name)]
    return ", ".join(f"--{name.replace('_', '-')}" for name in [*changed_, *options.training])


def read_old(run: str | Path) -> Saved:
    """The classifier that is extended.

    Raises:
        UsageError: it is none, or none that can be extended.
        HandfulError: it is damaged.
    """
    path = Path(run)
    if path.suffix.lower() == ".onnx":
        fix = "give the run's folder, or a file of 'handful export RUN --format safetensors'"
        raise UsageError("is an ONNX file: it runs, but cannot be trained further", file=path, fix=fix)
    return load_model(path)


def check_new(manifest: Manifest, old: tuple[str, ...]) -> None:
    """Raises UsageError where a class of the new pictures is an old one, up to capitals."""
    taken = {name.casefold(): name for name in old}
    clash = [name for name in manifest.classes if name.casefold() in taken]
    if not clash:
        return
    own = taken[clash[0].casefold()]
    if len(clash) == len(manifest.classes):
        reason = f"holds no new class: the classifier knows {', '.join(clash[:5])} already"
    else:
        reason = f"class '{clash[0]}' is one of the classifier's already" + (
            f" (as '{own}')" if own != clash[0] else ""
        )
    fix = (
        "give a folder of new classes alone; rename a class that only has the same name; to learn old and new pictures "
        "together, train on all of them (handful fit)"
    )
    raise UsageError(reason, file=manifest.root, fix=fix)


def old_pictures(data: Any, classes: tuple[str, ...]) -> Manifest:
    """Labelled pictures of old classes, their labels numbered as the classifier does. Those that count (the test part
    where there is one, or else the validation part, or else all that is labelled) are made its test part; no other
    picture has a label.

    Raises:
        UsageError: there are none, or of a class that the classifier does not know.
    """
    manifest = read_labelled(data, downloads=downloads())
    split = next((s for s in (TEST, VALIDATION, LABELLED) if len(manifest.ids(s))), "")
    number = {name: k for k, name in enumerate(classes)}
    strange = next((name for name in manifest.classes if name not in number), None)
    if strange is not None:
        raise UsageError(
            f"--old-test: class '{strange}' is not one of the old classifier's",
            file=manifest.root,
            fix=f"give pictures of {shortlist(classes, 8)}",
        )
    place = np.array([number[name] for name in manifest.classes] + [-1], dtype=np.int64)
    counts = manifest.splits == split
    return replace(
        manifest,
        classes=classes,
        labels=np.where(counts, place[manifest.labels], -1),
        splits=np.where(counts, TEST, UNLABELLED),
    )


def check_apart(folder: Path, run: Path, known: Manifest | None) -> None:
    """Raises UsageError where the new run's folder is the old run's, lies in it, or among the old pictures."""
    if run.is_dir() and folder.resolve().is_relative_to(run.resolve()):
        fix = "choose another folder with --out"
        raise UsageError(
            "is the run that is extended, or lies in it: that is only read", file=folder, fix=fix
        )
    if known is not None and known.pictures is None:
        check_outside(folder, known.root)


def _measured(
    old: Old, saved: Saved, done: Extension, pictures: Pictures, known: Manifest | None, workshop: Workshop
) -> Figures:
    """Every way on the old pictures, if there are any, and on the test part, or else on held-out new pictures."""
    ask: Callable[[Classifier], Tensor] | None = None
    y_old = torch.empty(0, dtype=torch.int64)
    before: Side | None = None
    if known is not None:
        theirs, known, _ = open_store(  # as the old classifier wants them, and as ``predict`` will
            known, cache_folder(), side=saved.store["side"], channels=saved.store["channels"],
            progress=partial(workshop.progress, "reading old pictures"),
        )  # fmt: skip
        rows_old = torch.from_numpy(known.ids(TEST))
        y_old = torch.from_numpy(known.labels)[rows_old]

        def ask(classifier: Classifier) -> Tensor:
            return predict(classifier, theirs, rows_old, classifier.spec, device=workshop.device)

        before = Side(len(y_old), float((ask(old.classifier).argmax(1) == y_old).double().mean()), None)
    test, y_test = pictures.test, pictures.test_y + old.n_classes
    rows = [Row("before", before)]
    for way, attempt in done.attempts.items():
        new = None
        if len(test):
            new = _side(attempt.fitted.logits(test), y_test, old.n_classes)
        elif attempt.held_out is not None:
            new = _side(attempt.held_out, done.truth, old.n_classes)
        kept = None
        if ask is not None:
            kept = _side(ask(attempt.fitted.classifier), y_old, old.n_classes)
        rows.append(Row(TITLES[way], kept, new))
    held = f"{len(done.truth):,} validation pictures"
    if done.n_folds:
        held = f"{done.n_folds}-fold cross-validation on the {len(done.truth):,} labelled pictures"
    return Figures(
        old_classes=saved.classes,
        new_classes=pictures.manifest.classes,
        rows=tuple(rows),
        old_on=f"{len(y_old):,} pictures of {known.root.name}" if known is not None else "",
        new_on=f"a test part of {len(test):,} pictures" if len(test) else held if rows[1].new else "",
        heads=_heads(old, done, held),
        steps=done.steps,
    )


def _side(logits: Tensor, y: Tensor, n_old: int) -> Side:
    found = read(logits, y, n_old)
    return Side(len(y), float(found.task_aware.double().mean()), float(found.joint.double().mean()))


def _heads(old: Old, done: Extension, held: str) -> str:
    """How the heads were set side by side, in words."""
    if old.comparable:
        return "Old and new classes are measured alike (means or stored pictures), so nothing had to be calibrated."
    first = next(iter(done.attempts.values()))
    on = (
        held
        if first.held_out is not None
        else "the very pictures that were learnt, as a class has a single one"
    )
    return (
        f"Between the heads decides how like the new pictures a picture is, set so that at most {100 * GIVEN_UP:.0f} "
        f"in 100 new pictures go to an old class, going by {on}. How many old pictures go to a new class cannot be "
        "known from new pictures."
    )


def over_all_classes(pictures: Pictures, old: tuple[str, ...]) -> Pictures:
    """The pictures with their classes numbered as the new classifier does: the old ones first."""
    manifest, task, validation = pictures.manifest, pictures.task, pictures.validation
    classes, n = old + manifest.classes, len(old)
    labels = np.where(manifest.labels < 0, -1, manifest.labels + n)
    return replace(
        pictures,
        manifest=replace(manifest, classes=classes, labels=labels),
        task=replace(task, classes=classes, y=task.y + n),
        validation=Validation(validation.rows, validation.y + n) if validation else None,
    )


def _result(old: Old, done: Extension, figures: Figures, folder: Path) -> Result:
    """What ships is the first of the ways; plain fine-tuning is the baseline."""
    network = old.classifier.backbone_config["name"]
    held = {
        way: HeldOutAnswers.of(attempt.held_out, done.truth, done.n_folds)
        for way, attempt in done.attempts.items()
        if attempt.held_out is not None
    }
    right = {way: found.right for way, found in held.items()}
    shipped = next(iter(done.attempts))
    rows = []
    for way, attempt in done.attempts.items():
        row = Tried(f"{TITLES[way]} ({network})", seconds=attempt.seconds or None)
        row.chosen, row.baseline = way == shipped, way == PLAIN
        rows.append(measured(row, right.get(way), None if row.baseline else right.get(PLAIN)))
    fitted = done.attempts[shipped].fitted
    return Result(
        shipped, fitted, rows, held.get(shipped),
        rule="The classes were added as asked. Accuracies are of new pictures, joint: one answer out of all classes.",
        temperature=float(fitted.classifier.temperature),
        unmeasured="with a single picture in a class there is nothing to measure on, and no old picture was given",
        verdict=sentence(figures),
        next_steps=_next_steps(folder, figures),
        extras=[as_section(figures)],
        reject={"threshold": 0.0, "why": NO_THRESHOLD},
    )  # fmt: skip


def _next_steps(folder: Path, figures: Figures) -> list[str]:
    see = "See what was forgotten: give the command again with `--old-test` and pictures of old classes."
    return [
        *([] if figures.old_on else [see]),
        "If you still have the old pictures, train on all of them: `handful fit DATA`. Nothing else keeps as much.",
        f"Add further classes: `handful extend {folder} DATA`",
        f"Classify new pictures with: `handful predict {folder} PICTURES…`",
    ]
