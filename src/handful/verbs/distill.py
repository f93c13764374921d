"""``handful distill``: a small network learns from a large one, and what that costs and gains stands in a table.

Legend: N pictures, n of them, K classes of the teacher; accuracies and agreements are fractions.
"""

from __future__ import annotations

import difflib
import json
import shlex
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful import __version__, machine
from handful.augment.named import with_policies
from handful.choose.auto import Outcome, Trial
from handful.data.images import Images, open_store
from handful.data.manifest import LABELLED, TEST, UNLABELLED, VALIDATION, Manifest, read_pile
from handful.data.sources import read_data
from handful.engine.interrupt import listening
from handful.files import write_atomic
from handful.inference.costs import Cost, costs
from handful.inference.model_file import Saved
from handful.inference.teachers import Onnx, Teacher, agreed_classes, in_order, read_teacher, reordered
from handful.methods.distillation import Distillation
from handful.methods.supervised import Supervised
from handful.models.teacher import Teachers, mean_of_logs
from handful.randomness import digest, key, permutation
from handful.recipes.distill import Lessons, ask, distilled, labels_alone
from handful.recipes.stage import Stage
from handful.recipes.table import Recipe, changed
from handful.recipes.task import Fitted, Task, Validation, Workshop
from handful.recipes.training import Training, usual_training
from handful.report.build import Words
from handful.report.record import Recorder
from handful.run.file import Run, RunBook, resolved
from handful.run.ground import Teller, census, downloads, slug
from handful.run.opening import open_book, open_pictures, open_workshop
from handful.run.preflight import check_outside
from handful.run.results import write_results
from handful.stats.calibration import fit_temperature
from handful.stats.intervals import accuracy, paired_difference
from handful.types import UsageError
from handful.verbs.distill_table import TOGETHER, Figures, Row, as_section, read_figures, sentence

DISTILLED, ALONE, TEACHER = "distilled", "labels-alone", "teacher"
FIGURES = "distill.json"
SHARE = 0.7  # of the time that the student's training gets; its twin has the same steps, of fewer pictures
HELD_BACK, MOST_HELD = (
    0.1,
    500,
)  # of the unlabelled pictures, where there is no other that the student has not seen
LEARNT = "the teacher learned from the labelled pictures, so that cross-validation would flatter its student"
UNLABELLED_ALL = "no picture has a label to compare with"


@dataclass(frozen=True)
class DistillOptions:
    """Everything that decides the result, besides teachers and data.

    Attributes:
        student: a name of ``models.backbones``.
        method: the loss, its weights and temperature; ``patient`` teachers see the student's crops.
        training: fields of ``recipes.train.Training`` that differ.
        seconds: for the student and its twin; ignored where ``training`` says steps.
        label_free: labels are not used to train; the classes of the data may be others than the teacher's.
        onnx: how to use a teacher's ONNX file that handful did not make.
        seed: of every random draw.
        labels_per_class: as in ``FitOptions``; where the data are those of the teacher's run, as they were there.
        side: pixels that pictures are stored at; 0 takes the teacher's.
        save_every: steps between checkpoints; changes nothing in the result.
    """

    student: str = "small-resnet"
    method: Distillation = field(default_factory=Distillation)
    training: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 300.0
    label_free: bool = False
    onnx: Onnx = field(default_factory=Onnx)
    seed: int = 0
    labels_per_class: int = 0
    side: int = 0
    save_every: int = 50


@dataclass(frozen=True)
class Distilled:
    """A finished distillation: the student's run, as ``fit`` leaves one, and the table."""

    run: Run
    figures: Figures

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {**asdict(self.run), "folder": str(self.run.folder), **asdict(self.figures)}


def distill(
    teachers: str | Path | Sequence[str | Path],
    data: Any = None,
    options: DistillOptions | None = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Distilled:
    """Train a student on what teachers say of pictures; write a run folder with the table of what it costs and gains.

    The same call again goes on where a stopped one was, or returns the finished run.

    Args:
        teachers: one or several of ``inference.teachers``; several answer together, by the mean of their probabilities.
        data: what ``fit`` takes; by default the pictures of the first teacher's run.
        out: the run's folder; by default below ``runs/``.

    Raises:
        UsageError: teachers, data or options cannot be used as given.
        HandfulError: the run failed.
        Interrupted: told to stop; the state is saved.
    """
    options, told = options or DistillOptions(), teller or Teller()
    views = {name: getattr(options.method, name) for name in ("view", "taught_view")}
    options = replace(options, method=replace(options.method, **with_policies(views)))
    begin = time.perf_counter()
    machine.tune_allocator()
    machine.set_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = [teachers] if isinstance(teachers, (str, Path)) else list(teachers)
    with listening():
        known = [read_teacher(word, options.onnx, device) for word in words]
        classes = agreed_classes(known)
        seed = options.seed
        if data is None:
            data, options, seed = run_data(known[0], options)
        manifest = of_classes(_read(data, options, seed), classes, options.label_free)
        options = fitting(options, manifest)
        book = _open_book(manifest, data, known, options, out, command)
        if book.finished:
            told.tell(f"this run is finished already: {book.folder}")
            return Distilled(book.result(), read_figures(book.folder / FIGURES))
        images, manifest, issues = open_pictures(
            book, manifest, told,
            side=options.side or max(teacher.side for teacher in known),
            passed_by="name" if options.label_free else "",  # the class names are the teacher's affair
        )  # fmt: skip
        parts = Parts.of(images, manifest, options)
        told.tell(census(manifest, images))
        with Recorder(book.folder / "metrics.jsonl") as recorder:
            workshop = open_workshop(book, told, recorder, save_every=options.save_every)
            lessons = _lessons(known, classes, manifest, images, parts.asked(), options.method, workshop)
            stage = Stage(DISTILLED, parts.task, options.method, student_training(parts.task, options))
            student = distilled(stage, lessons, workshop)
            twin = None
            if len(parts.task.labelled):
                told.tell(f"training the same {options.student} on the labels alone")
                twin = labels_alone(stage, workshop, name=ALONE)
        outcome = _outcome(student, twin, parts, options)
        told.tell("measuring sizes and speed")
        figures = _measured(known, lessons, outcome, twin, parts, torch.from_numpy(manifest.labels), told)
        write_atomic(book.folder / FIGURES, json.dumps(asdict(figures), indent=1))
        book.seconds = time.perf_counter() - begin
        told.tell("writing model, predictions and report")
        write_results(
            book, outcome, parts.task, manifest, parts.validation, parts.test, issues, slug(manifest.name),
            tested=_tested(figures, outcome.twin, parts),
            words=_words(figures, known, options, len(parts.task.labelled) > 0, book.folder),
        )  # fmt: skip
        return Distilled(book.result(), figures)


def run_data(teacher: Teacher, options: DistillOptions) -> tuple[str, DistillOptions, int]:
    """Where the pictures of a teacher's run are, the options with its number of labels, and the seed that drew them.

    Raises:
        UsageError: it is no run, or its pictures are gone.
    """
    path = Path(teacher.name) / "run.toml"
    fix = "give the pictures: handful distill RUN DATA --student NAME"
    if not path.is_file():
        raise UsageError("has no pictures of its own", file=teacher.name, fix=fix)
    book = tomllib.loads(path.read_text())
    place, had = str(book.get("data", "")), book.get("options", {})
    if not place or (":" not in place and not Path(place).exists()):
        raise UsageError(f"its pictures are no longer at '{place}'", file=teacher.name, fix=fix)
    if had.get("labels_per_class"):
        return place, replace(options, labels_per_class=int(had["labels_per_class"])), int(had.get("seed", 0))
    return place, options, options.seed


def _read(data: Any, options: DistillOptions, seed: int) -> Manifest:
    """The manifest, its labels drawn by ``seed``; without labels, a folder of pictures in no classes will do."""
    try:
        return read_data(data, labels_per_class=options.labels_per_class, seed=seed, downloads=downloads())
    except UsageError as error:
        if options.label_free and isinstance(data, (str, Path)) and Path(data).is_dir():
            return read_pile(data)
        if isinstance(data, (str, Path)) and Path(data).is_dir():
            raise UsageError(
                error.reason, file=error.file, fix=f"{error.fix}; or give --label-free, to use no labels"
            ) from error
        raise


def of_classes(manifest: Manifest, classes: Sequence[str], label_free: bool) -> Manifest:
    """The manifest with its labels as numbers of the teacher's classes.

    Without labels what it calls labelled becomes unlabelled, and pictures of classes that the teacher does not know
    are of no known class.

    Raises:
        UsageError: the pictures are of other classes, and labels are to be used.
    """
    number = {name: k for k, name in enumerate(classes)}
    strange = [name for name in manifest.classes if name not in number]
    if strange and not label_free:
        near = difflib.get_close_matches(strange[0], classes, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        some = f"{', '.join(list(classes)[:8])}{' …' if len(classes) > 8 else ''}"
        raise UsageError(
            f"class '{strange[0]}' is not one of the teacher's {len(classes)} ({some})",
            file=manifest.root,
            fix=f"{hint}give --label-free to imitate the teacher's own classes, or a teacher that was trained on "
            "yours (handful fit)",
        )
    place = np.array([number.get(name, -1) for name in manifest.classes] + [-1], dtype=np.int64)
    labels, splits = place[manifest.labels], manifest.splits
    if label_free:
        splits = np.where(splits == LABELLED, UNLABELLED, splits)
        labels = np.where(splits == UNLABELLED, -1, labels)
    return replace(manifest, classes=tuple(classes), labels=labels, splits=splits)


def fitting(options: DistillOptions, manifest: Manifest) -> DistillOptions:
    """The options as the data allow them: without labelled pictures no weight is on labels.

    Raises:
        UsageError: options that cannot be used together.
    """
    if "backbone" in options.training:
        raise UsageError(
            "the student is named by --student, not by --training.backbone", fix="leave that out"
        )
    if options.side and options.side < 8:
        raise UsageError(f"pictures of {options.side} px a side are too small", fix="give --side 8 or more")
    if not len(manifest.ids(LABELLED)):
        soft = options.method.soft_weight or float(not options.method.feature_weight)
        options = replace(options, method=replace(options.method, hard_weight=0.0, soft_weight=soft))
    if not len(manifest.ids(LABELLED)) + len(manifest.ids(UNLABELLED)):
        raise UsageError("holds nothing to learn from", file=manifest.root, fix="add pictures, or other data")
    changed(Training(), options.training, "training")
    return options


def student_training(task: Task, options: DistillOptions) -> Training:
    """How the student is trained: small networks from random weights, others as fine-tuning does."""
    usual = usual_training(task, options.student)
    return changed(replace(usual, max_steps=0, seconds=options.seconds * SHARE), options.training, "training")


@dataclass(frozen=True)
class Parts:
    """Which pictures are learned from, and which are looked at afterwards.

    Attributes:
        test: test pictures with a known class.
        unseen: those that agreement is measured on: the student does not learn from them. In words: ``unseen_words``.
    """

    task: Task
    validation: Validation | None
    test: Tensor
    unseen: Tensor
    unseen_words: str

    @classmethod
    def of(cls, images: Images, manifest: Manifest, options: DistillOptions) -> Parts:
        """Test pictures are unseen; without any, validation pictures; without those, some unlabelled ones are held
        back from the student."""
        labelled, unlabelled, val, test = (
            torch.from_numpy(manifest.ids(split)) for split in (LABELLED, UNLABELLED, VALIDATION, TEST)
        )
        labels = torch.from_numpy(manifest.labels)
        unseen, words = test, f"{len(test):,} test pictures"
        if not len(test):
            unseen, words = val, f"{len(val):,} validation pictures"
        if not len(unseen):
            n = min(int(HELD_BACK * len(unlabelled)), MOST_HELD)
            order = torch.from_numpy(permutation(len(unlabelled), options.seed, "held back"))
            unseen = unlabelled[order[:n].sort().values]
            unlabelled = unlabelled[order[n:].sort().values]
            words = f"{n:,} unlabelled pictures held back from the student"
        test, val = test[labels[test] >= 0], val[labels[val] >= 0]
        task = Task(images, labelled, labels[labelled], unlabelled, manifest.classes, seed=options.seed)
        return cls(task, Validation(val, labels[val]) if len(val) else None, test, unseen, words)

    def asked(self) -> Tensor:
        """Row numbers of all pictures that the teachers are asked about."""
        val = self.validation.rows if self.validation else self.test[:0]
        task = self.task
        return torch.cat([task.labelled, task.unlabelled, val, self.test, self.unseen]).unique()

    def scored(self) -> tuple[Tensor, str]:
        """Labelled pictures that the student did not learn from, and what they are."""
        if len(self.test):
            return self.test, f"{len(self.test):,} test pictures"
        if self.validation:
            words = f"{len(self.validation.rows):,} validation pictures, by which the teacher may have been chosen"
            return self.validation.rows, words
        return self.test, ""


def _open_book(
    manifest: Manifest,
    data: Any,
    known: Sequence[Teacher],
    options: DistillOptions,
    out: str | Path | None,
    command: str,
) -> RunBook:
    prints = [teacher.fingerprint for teacher in known]
    parts = (manifest.place, manifest.fingerprint, manifest.classes, prints, resolved(options))
    identity = f"{key(__version__, 'distill', *parts):016x}"
    name = f"{slug(manifest.name)}-distill-{slug(options.student)}-{identity[:8]}"
    folder = Path(out) if out else Path("runs") / name
    check_outside(folder, data)
    return open_book(folder, identity, options, manifest, data, command)


def _lessons(
    known: Sequence[Teacher],
    classes: tuple[str, ...],
    manifest: Manifest,
    images: Images,
    rows: Tensor,
    method: Distillation,
    workshop: Workshop,
) -> Lessons:
    """The teachers' answers for pictures as ``handful predict`` would show them; kept in the cache."""
    answers, log_ps, features = [], [], torch.empty(len(rows), 0)
    for number, teacher in enumerate(known):
        wanted = method.feature_weight > 0 and number == 0
        if teacher.stored is not None:
            log_p = teacher.stored.of([images.names[int(row)] for row in rows])
        else:
            assert teacher.answer is not None
            theirs = images
            if teacher.side and teacher.side != images.side:
                theirs, _, _ = open_store(manifest, workshop.cache, side=teacher.side)
            name = f"{key(teacher.fingerprint, theirs.fingerprint, digest(rows), wanted):016x}.safetensors"
            log_p, found = ask(
                teacher.answer, theirs, rows, features=wanted, file=workshop.cache / "teachers" / name,
                device=workshop.device, progress=partial(workshop.progress, f"answers of {teacher.name}"),
            )  # fmt: skip
            features = found if wanted else features
            answers.append(in_order(teacher.answer, teacher.classes, classes))
        log_ps.append(reordered(log_p, teacher.classes, classes))
    live = Teachers(answers) if len(answers) == len(known) else None
    prints = f"{key(*(teacher.fingerprint for teacher in known)):016x}"
    return Lessons(rows, mean_of_logs(log_ps), features, live, prints)


def _outcome(student: Fitted, twin: Fitted | None, parts: Parts, options: DistillOptions) -> Outcome:
    """The student as what a run ships; where there are validation pictures they set its temperature."""
    recipe = Recipe("distilled network", "", distilled, Distillation)  # type: ignore[arg-type]
    trial = Trial(DISTILLED, options.student, recipe)
    outcome = Outcome(student, f"{DISTILLED}@{options.student}", {f"{DISTILLED}@{options.student}": trial})
    if twin:
        plain = Recipe(
            "the same network on the labels alone",
            "",
            labels_alone,  # type: ignore[arg-type]
            Supervised,
            uses_unlabelled=False,
        )
        outcome.twin = f"{ALONE}@{options.student}"
        outcome.trials[outcome.twin] = Trial(ALONE, options.student, plain)
    if parts.validation:
        y = parts.validation.y
        for fitted, one in zip((student, twin), outcome.trials.values()):
            assert fitted is not None
            one.logits, one.truth = fitted.logits(parts.validation.rows), y
            one.right = (one.logits.argmax(1) == y).double().unsqueeze(0).numpy()
        outcome.n_folds = 1
        if trial.logits is not None and trial.right is not None and not trial.right.all():
            outcome.temperature = fit_temperature(trial.logits, y)
            student.classifier.temperature.fill_(outcome.temperature)
    return outcome


def _measured(
    known: Sequence[Teacher],
    lessons: Lessons,
    outcome: Outcome,
    twin: Fitted | None,
    parts: Parts,
    labels: Tensor,
    told: Teller,
) -> Figures:
    """Costs of all networks; accuracies and agreements on pictures that the student did not learn from."""
    images = parts.task.images
    rows, measured_on = parts.scored()
    store = {"channels": images.channels, "side": images.side}
    networks = {teacher.name: teacher.saved for teacher in known if teacher.saved is not None}
    networks[outcome.chosen] = Saved(outcome.fitted.classifier, parts.task.classes, store, "")
    files = {t.name: replace(t, side=t.side or images.side) for t in known if t.onnx is not None}
    cost = costs(networks, files, check=outcome.chosen, tell=told.tell)
    students = {outcome.chosen: outcome.fitted} | ({outcome.twin: twin} if twin else {})

    def guesses(rows: Tensor) -> dict[str, Tensor]:
        """Best classes [n] by name; that of the teachers is of all together."""
        taught = {TEACHER: lessons.log_p[lessons.places(rows)].argmax(1)}
        return taught | {name: one.logits(rows).argmax(1) for name, one in students.items()}

    unseen = guesses(parts.unseen) if len(parts.unseen) else {}
    right = (
        {name: (guess == labels[rows]).numpy() for name, guess in guesses(rows).items()} if len(rows) else {}
    )

    def row(name: str, who: str, cost: Cost) -> Row:
        estimate = accuracy(right[who]) if who in right else None
        same = unseen[who] == unseen[TEACHER] if who in unseen and who != TEACHER else None
        return Row(
            name,
            cost,
            estimate.value if estimate else None,
            estimate.interval if estimate else None,
            None if same is None else float(same.double().mean()),
        )

    alone = len(known) == 1
    table = [row(t.name, TEACHER if alone else "", cost.get(t.name, Cost())) for t in known]
    table += [] if alone else [row(TOGETHER, TEACHER, Cost())]
    table += [row(name, name, cost[outcome.chosen]) for name in students]
    gain = paired_difference(right[outcome.chosen], right[outcome.twin]) if twin and right else None
    agreed_on = parts.unseen_words if len(parts.unseen) else ""
    return Figures(tuple(table), (gain.value, gain.low, gain.high) if gain else None, measured_on, agreed_on)


def _tested(figures: Figures, twin: str, parts: Parts) -> dict[str, float]:
    """Accuracy of the twin on the test part, for the report's table of what was tried."""
    if not len(parts.test):
        return {}
    return {row.name: row.accuracy for row in figures.rows if row.name == twin and row.accuracy is not None}


def _words(
    figures: Figures, known: Sequence[Teacher], options: DistillOptions, labelled: bool, out: Path
) -> Words:
    """What the report says in this verb's own way."""
    names = " and ".join(Path(teacher.name).name for teacher in known)
    m = options.method
    weights = f"{m.hard_weight:g} on labels, {m.soft_weight:g} on the teacher's answers"
    weights += f", {m.feature_weight:g} on its features" if m.feature_weight else ""
    where = shlex.quote(str(out))
    return Words(
        rule=f"No choice was made: {options.student} was taught by {names}, at temperature {m.temperature:g} with "
        f"weights of {weights}{', from the very crops that it saw itself' if m.patient else ''}.",
        unmeasured=(LEARNT if labelled else UNLABELLED_ALL) + ". Put labelled pictures into test/<class>/",
        verdict=sentence(figures, options.student, names),
        next_steps=[
            f"One file to deploy: `handful export {where}`.",
            f"Classify new pictures with: `handful predict {where} PICTURES…`",
        ],
        extras=[as_section(figures)],
    )
