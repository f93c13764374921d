"""``handful distill``: a small network learns from a large one, and what that costs and gains stands in a table.

Legend: N pictures, n of them, K classes of the teacher; accuracies and agreements are fractions.
"""

from __future__ import annotations

import json
import shlex
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.augment.named import with_policies
from handful.data.images import Images, open_store
from handful.data.manifest import LABELLED, SPLITS, UNLABELLED, Issue, Manifest, read_pile
from handful.data.sources import read_data
from handful.files import write_atomic
from handful.inference.costs import Cost, costs
from handful.inference.model_file import Saved
from handful.inference.teachers import Onnx, Teacher, agreed_classes, in_order, read_teacher, reordered
from handful.methods.distillation import Distillation
from handful.models.teacher import Teachers, mean_of_logs
from handful.randomness import digest, key, permutation
from handful.recipes.distill import Lessons, ask, distilled, labels_alone
from handful.recipes.stage import Stage
from handful.recipes.table import changed
from handful.recipes.task import Fitted, Task, Validation, Workshop
from handful.recipes.training import Training, usual_training
from handful.report.record import Tried, read_typed
from handful.report.words import shortlist
from handful.run.begin import at_work, device, identity_of, is_finished, open_run, open_workshop
from handful.run.file import Run
from handful.run.finish import finish
from handful.run.pictures import Pictures, read_pictures
from handful.run.places import downloads, folder_for
from handful.run.result import HeldOutAnswers, Result, measured
from handful.run.teller import Teller
from handful.stats.calibration import fit_temperature
from handful.stats.intervals import accuracy, paired_difference
from handful.types import UsageError, did_you_mean
from handful.verbs.distill_table import TOGETHER, Figures, Row, as_section, sentence

DISTILLED, ALONE, TEACHER = "distilled", "labels-alone", "teacher"
FIGURES, AGAIN = "distill.json", "remove the run's folder and distill again"
SHARE = 0.7  # of the time that the student's training gets; its twin has the same steps, of fewer pictures
HELD_BACK, MOST_HELD = 0.1, 500  # of the unlabelled pictures, where the student has seen all others
LEARNT = "the teacher learned from the labelled pictures, so that cross-validation would flatter its student"
UNLABELLED_ALL = "no picture has a label to compare with"


@dataclass(frozen=True)
class DistillOptions:
    """Everything that decides the result, besides teachers and data.

    Attributes:
        student: network: small-resnet, conv-4, lenet, wrn-28-2, lite0, timm:NAME …
        method: the loss, its weights and temperature; ``patient`` teachers see the student's crops.
        training: fields of ``recipes.train.Training`` that differ.
        seconds: for the student and its twin on the labels alone; ignored where ``training`` says steps.
        label_free: use no labels to train; the classes of the data may be others than the teacher's.
        onnx: how to use a teacher's ONNX file that handful did not make.
        seed: of every random draw.
        labels_per_class: as in ``FitOptions``; where the data are those of the teacher's run, as they were there.
        side: pixels that pictures are stored at (default: as the teacher's).
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
        return self.run.as_dict() | asdict(self.figures)


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
    begun, options = time.perf_counter(), options or DistillOptions()
    views = with_policies({"view": options.method.view, "taught_view": options.method.taught_view})
    options = replace(options, method=replace(options.method, **views))
    words = [teachers] if isinstance(teachers, (str, Path)) else list(teachers)
    with at_work(teller) as teller:
        known = [read_teacher(word, options.onnx, device()) for word in words]
        classes = agreed_classes(known)
        seed = options.seed
        if data is None:
            data, options, seed = run_data(known[0], options)
        manifest = of_classes(_read(data, options, seed), classes, options.label_free)
        options = options_for(manifest, options)
        prints = [teacher.fingerprint for teacher in known]
        identity = identity_of(manifest, options, "distill", manifest.classes, prints)
        folder = folder_for(out, data, manifest.name, "distill", options.student, identity[:8])
        run_file = open_run(folder, identity, options, manifest, data, command)
        if is_finished(run_file, teller):
            return Distilled(run_file.result(), read_typed(Figures, folder / FIGURES, AGAIN))
        images, manifest, issues = read_pictures(
            run_file, manifest, teller,
            side=options.side or max(teacher.side for teacher in known),
            passed_by="name" if options.label_free else "",  # the class names are the teacher's affair
        )  # fmt: skip
        parts = Parts.of(images, manifest, options, issues)
        teller.tell(parts.pictures.census())
        with open_workshop(run_file, teller, save_every=options.save_every) as workshop:
            lessons = _lessons(known, parts, options.method, workshop)
            students = _train(parts.pictures.task, lessons, options, workshop)
        result = _result(students, parts.pictures, options)
        teller.tell("measuring sizes and speed")
        figures = _measured(known, lessons, students, parts, teller.tell)
        write_atomic(folder / FIGURES, json.dumps(asdict(figures), indent=1))
        result = _with_words(result, figures, known, options, parts, folder)
        return Distilled(finish(run_file, parts.pictures, result, teller, begun), figures)


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
        raise UsageError(
            f"class '{strange[0]}' is not one of the teacher's {len(classes)} ({shortlist(classes, 8)})",
            file=manifest.root,
            fix=(
                f"{did_you_mean(strange[0], classes)} give --label-free to imitate the teacher's own classes, or a "
                "teacher that was trained on yours (handful fit)"
            ).strip(),
        )
    place = np.array([number.get(name, -1) for name in manifest.classes] + [-1], dtype=np.int64)
    labels, splits = place[manifest.labels], manifest.splits
    if label_free:
        splits = np.where(splits == LABELLED, UNLABELLED, splits)
        labels = np.where(splits == UNLABELLED, -1, labels)
    return replace(manifest, classes=tuple(classes), labels=labels, splits=splits)


def options_for(manifest: Manifest, options: DistillOptions) -> DistillOptions:
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
        pictures: of its test and validation parts those with a known class alone.
        unseen: those that agreement is measured on: the student does not learn from them. In words: ``unseen_words``.
    """

    pictures: Pictures
    unseen: Tensor
    unseen_words: str

    @classmethod
    def of(
        cls, images: Images, manifest: Manifest, options: DistillOptions, issues: Sequence[Issue] = ()
    ) -> Parts:
        """Test pictures are unseen; without any, validation pictures; without those, some unlabelled ones are held
        back from the student."""
        labelled, unlabelled, val, test = (torch.from_numpy(manifest.ids(split)) for split in SPLITS)
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
        validation = Validation(val, labels[val]) if len(val) else None
        return cls(Pictures(manifest, task, validation, test, issues), unseen, words)

    def asked(self) -> Tensor:
        """Row numbers of all pictures that the teachers are asked about."""
        task, test = self.pictures.task, self.pictures.test
        val = self.pictures.validation.rows if self.pictures.validation else test[:0]
        return torch.cat([task.labelled, task.unlabelled, val, test, self.unseen]).unique()

    def scored(self) -> tuple[Tensor, str]:
        """Labelled pictures that the student did not learn from, and what they are."""
        test, validation = self.pictures.test, self.pictures.validation
        if validation and not len(test):
            words = f"{len(validation.rows):,} validation pictures, by which the teacher may have been chosen"
            return validation.rows, words
        return test, f"{len(test):,} test pictures" if len(test) else ""


def _lessons(known: Sequence[Teacher], parts: Parts, method: Distillation, workshop: Workshop) -> Lessons:
    """The teachers' answers for pictures as ``handful predict`` would show them; kept in the cache."""
    rows, images, classes = parts.asked(), parts.pictures.task.images, parts.pictures.task.classes
    answers, log_ps, features = [], [], torch.empty(len(rows), 0)
    for number, teacher in enumerate(known):
        wanted = method.feature_weight > 0 and number == 0
        if teacher.stored is not None:
            log_p = teacher.stored.of([images.names[int(row)] for row in rows])
        else:
            assert teacher.answer is not None
            theirs = images
            if teacher.side and teacher.side != images.side:
                theirs, _, _ = open_store(parts.pictures.manifest, workshop.cache, side=teacher.side)
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


def _train(task: Task, lessons: Lessons, options: DistillOptions, workshop: Workshop) -> dict[str, Fitted]:
    """The student and, where there are labels, its twin that learns them alone; by their names, in this order."""
    stage = Stage(DISTILLED, task, options.method, student_training(task, options))
    student = distilled(stage, lessons, workshop)
    if not len(task.labelled):
        return {f"{DISTILLED}@{options.student}": student}
    workshop.tell(f"training the same {options.student} on the labels alone")
    twin = labels_alone(stage, workshop, name=ALONE)
    return {f"{DISTILLED}@{options.student}": student, f"{ALONE}@{options.student}": twin}


def _measured(
    known: Sequence[Teacher],
    lessons: Lessons,
    students: Mapping[str, Fitted],
    parts: Parts,
    tell: Callable[[str], None],
) -> Figures:
    """Costs of all networks; accuracies and agreements on pictures that the student did not learn from."""
    task, labels = parts.pictures.task, torch.from_numpy(parts.pictures.manifest.labels)
    rows, measured_on = parts.scored()
    store = {"channels": task.images.channels, "side": task.images.side}
    chosen, *alone = students
    networks = {teacher.name: teacher.saved for teacher in known if teacher.saved is not None}
    networks[chosen] = Saved(students[chosen].classifier, task.classes, store, "")
    files = {t.name: replace(t, side=t.side or task.images.side) for t in known if t.onnx is not None}
    cost = costs(networks, files, check=chosen, tell=tell)

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

    together = len(known) > 1
    table = [row(t.name, "" if together else TEACHER, cost.get(t.name, Cost())) for t in known]
    table += [row(TOGETHER, TEACHER, Cost())] if together else []
    table += [row(name, name, cost[chosen]) for name in students]
    gain = paired_difference(right[chosen], right[alone[0]]) if alone and right else None
    agreed_on = parts.unseen_words if len(parts.unseen) else ""
    return Figures(tuple(table), (gain.value, gain.low, gain.high) if gain else None, measured_on, agreed_on)


def _result(students: Mapping[str, Fitted], pictures: Pictures, options: DistillOptions) -> Result:
    """The student as what a run ships; where there are validation pictures they set its temperature."""
    chosen, held, temperature = next(iter(students)), dict[str, HeldOutAnswers](), 1.0
    if val := pictures.validation:
        held = {name: HeldOutAnswers.of(one.logits(val.rows), val.y) for name, one in students.items()}
        if not held[chosen].right.all():
            temperature = fit_temperature(held[chosen].logits, val.y)
            students[chosen].classifier.temperature.fill_(temperature)
    own, *twin = (held[name].right if held else None for name in students)
    row = Tried(f"distilled network ({options.student})", uses_unlabelled=True, chosen=True)
    rows = [measured(row, own, twin[0] if twin else None)]
    for right in twin:
        row = Tried(f"the same network on the labels alone ({options.student})", baseline=True)
        rows.append(measured(row, right))
    return Result(chosen, students[chosen], rows, held.get(chosen), rule="", temperature=temperature)


def _with_words(
    result: Result,
    figures: Figures,
    known: Sequence[Teacher],
    options: DistillOptions,
    parts: Parts,
    folder: Path,
) -> Result:
    """What the report says in this verb's own way; beside it the twin's accuracy on the test part."""
    names = " and ".join(Path(teacher.name).name for teacher in known)
    m, labelled, where = options.method, len(parts.pictures.task.labelled), shlex.quote(str(folder))
    weights = f"{m.hard_weight:g} on labels, {m.soft_weight:g} on the teacher's answers"
    weights += f", {m.feature_weight:g} on its features" if m.feature_weight else ""
    twin = figures.rows[-1].accuracy if len(parts.pictures.test) else None
    return replace(
        result,
        tried=[replace(row, test_accuracy=twin) if row.baseline else row for row in result.tried],
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
