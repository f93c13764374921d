"""The recipes by name: one explicit table, which the automatic choice and the command line read.

A recipe is a plain function of a task and a workshop; a row says what it needs and what it costs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from handful.methods.distillation import Distillation
from handful.methods.jigsaw import Jigsaw
from handful.methods.label_propagation import LabelPropagation
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.patch_contrast import PatchContrast
from handful.methods.probe import ClassMean, LogisticRegression, Neighbours
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.reduced_mpl import ReducedMetaPseudoLabels
from handful.methods.self_supervised import SelfSupervised
from handful.methods.simclr import SimCLR
from handful.methods.supervised import Supervised
from handful.models.backbones import find as find_backbone
from handful.recipes.candidate import Candidate
from handful.recipes.distill import taught_by_own
from handful.recipes.feature_matching import ON_FEATURES, on_features
from handful.recipes.matching import KINDS, matching
from handful.recipes.noisy_student import NoisyStudent, noisy_student
from handful.recipes.self_training import META, meta_pseudo_labels, reduced_meta_pseudo_labels, substage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, shortened, small_training, train_network
from handful.recipes.transfer import fine_tune, probe, propagate, teacher_for, teacher_targets, tuning
from handful.types import UsageError

T = TypeVar("T")
VALUES: dict[Any, tuple[tuple[type, ...], str]] = {  # by annotation: what a value may be
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a word"),
}
TAUGHT: dict[str, Any] = {"threshold": 0.0}  # a teacher's labels are used all
PRETEXTS: dict[str, tuple[type[SelfSupervised], str]] = {
    "simclr": (SimCLR, "two views of a picture near, beside the labels"),
    "jigsaw": (Jigsaw, "tiles put in order, beside the labels"),
    "patch-contrast": (PatchContrast, "patches of a picture near, beside the labels"),
}
UNTAUGHT: dict[str, Any] = {"threshold": 0.9, "ramp_steps": 200}
ROUNDS = 2  # students of self-training


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        title: for people; "{on}" stands for the features it works on.
        uses_unlabelled: whether it looks at unlabelled pictures.
        trains: whether a network is trained (seconds to minutes) or only a head is solved for (less).
        run: (task, workshop, on, method, training, stage) -> Fitted; None for ``method`` or ``training``
            takes the defaults.
        least_seconds: a training run shorter than this is not worth starting in the automatic choice.
        method: the dataclass whose fields are ``--method.…`` on the command line.
        defaults: fields of ``method`` that this recipe sets otherwise.
        labelled_only: the recipe that does the same with the labelled pictures alone: its fair baseline.
        candidate: whether the automatic choice may try it: what it reaches must be in the prior.
        taught: it learns from the labels that label propagation gives the unlabelled pictures.
    """

    title: str
    uses_unlabelled: bool
    trains: bool
    run: Callable[..., Fitted]
    method: type
    least_seconds: float = 0.0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    labelled_only: str = ""
    taught: bool = False
    candidate: bool = True

    @property
    def cheap(self) -> bool:
        """Whether the automatic choice tries it always: it takes a second."""
        return self.candidate and not self.trains

    def make(self, **changes: Any) -> Any:
        """The recipe's method with some fields changed.

        Raises:
            UsageError: there is no such field; the nearest one is named.
        """
        return changed(self.method(**self.defaults), changes, "method")


def changed(base: T, changes: Mapping[str, Any], prefix: str) -> T:
    """A dataclass with some fields changed.

    Raises:
        UsageError: there is no such field, and the nearest one is named; or it cannot have such a value.
    """
    names = [f.name for f in fields(base)]  # type: ignore[arg-type]
    for name in changes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UsageError(f"there is no option '{prefix}.{name}'", fix=f"{hint}Known: {', '.join(names)}")
    for f in fields(base):  # type: ignore[arg-type]
        if f.name in changes and f.type in VALUES:
            value, (kinds, words) = changes[f.name], VALUES[f.type]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise UsageError(f"option '{prefix}.{f.name}' cannot be {value!r}", fix=f"give {words}")
    return replace(base, **changes)  # type: ignore[type-var]


def _head(
    kind: type, task: Task, workshop: Workshop, *, on: str, method: object = None, **_: object
) -> Fitted:
    return probe(task, workshop, on=on, method=method or kind())


def _propagate(
    task: Task, workshop: Workshop, *, on: str, method: LabelPropagation | None = None, **_: object
) -> Fitted:
    return propagate(task, workshop, on=on, method=method)


def scratch(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Supervised | None = None,
    training: Training | None = None,
    stage: str = "supervised",
) -> Fitted:
    """A small network from random weights on the labelled pictures, strongly augmented."""
    return train_network(
        task, workshop, method or Supervised(), training or small_training(task), stage=stage
    )


def beside(
    name: str,
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: SelfSupervised | None = None,
    training: Training | None = None,
    stage: str = "",
) -> Fitted:
    """A small network that learns labels and, beside them, a task that the unlabelled pictures set themselves."""
    method, training = method or PRETEXTS[name][0](), training or small_training(task)
    return train_network(task, workshop, method, training, stage=stage or name)


def self_training(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: PseudoLabel | None = None,
    training: Training | None = None,
    stage: str = "pseudo-label",
) -> Fitted:
    """Label propagation labels the unlabelled pictures and a small network learns them under strong augmentation;
    then that network labels them and a second one learns its answers (self-training). The ``ROUNDS`` students
    share the time and the steps."""
    method = method or PseudoLabel(**TAUGHT)
    training = training or small_training(task)
    training = shortened(training, 1 / ROUNDS)
    targets = teacher_targets(task, workshop, on=on, method=teacher_for(on))
    for number in range(1, ROUNDS + 1):
        student = train_network(
            task, workshop, method, training, stage=substage(stage, str(number)), teacher=targets
        )
        targets = student.logits(task.unlabelled).softmax(1)
    return student


def own_labels(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: PseudoLabel | None = None,
    training: Training | None = None,
    stage: str = "pseudo-label-self",
) -> Fitted:
    """Pseudo-labels by the network itself (Lee 2013), from random weights."""
    method = method or PseudoLabel(**UNTAUGHT)
    return train_network(task, workshop, method, training or small_training(task), stage=stage)


def tune(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Supervised | None = None,
    training: Training | None = None,
    stage: str = "fine-tune",
) -> Fitted:
    """Everything fine-tuned on the labelled pictures."""
    return fine_tune(task, workshop, on=on, method=method, training=training, stage=stage)


def tune_self_training(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: PseudoLabel | None = None,
    training: Training | None = None,
    stage: str = "fine-tune-pseudo",
) -> Fitted:
    """Label propagation labels the unlabelled pictures; everything is fine-tuned on them too."""
    teacher: Tensor = teacher_targets(task, workshop, on=on)
    method = method or PseudoLabel(**TAUGHT)
    return fine_tune(task, workshop, on=on, method=method, training=training, teacher=teacher, stage=stage)


RECIPES: dict[str, Recipe] = {
    "logistic": Recipe(
        "logistic regression", False, False, partial(_head, LogisticRegression), LogisticRegression
    ),
    "nearest-mean": Recipe("nearest class mean", False, False, partial(_head, ClassMean), ClassMean),
    "knn": Recipe("nearest neighbours", False, False, partial(_head, Neighbours), Neighbours),
    "propagation": Recipe(
        "label propagation + regression",
        True,
        False,
        _propagate,
        LabelPropagation,
        labelled_only="logistic",
        taught=True,
    ),
    **{
        f"{name}-features": Recipe(
            f"head on features, {kind.title}",
            True,
            False,
            partial(on_features, name),
            kind.method,
            defaults=kind.defaults,
            labelled_only="logistic",
            candidate=False,
        )
        for name, kind in ON_FEATURES.items()
    },
    "supervised": Recipe("small network from scratch", False, True, scratch, Supervised, 3),
    "pseudo-label": Recipe(
        "small network, propagated pseudo-labels",
        True,
        True,
        self_training,
        PseudoLabel,
        3,
        TAUGHT,
        "supervised",
        taught=True,
    ),
    "pseudo-label-self": Recipe(
        "small network, its own pseudo-labels", True, True, own_labels, PseudoLabel, 3, UNTAUGHT, "supervised"
    ),
    **{
        name: Recipe(
            f"small network, {kind.title}",
            True,
            True,
            partial(matching, name),
            kind.method,
            3,
            kind.defaults,
            "supervised",
        )
        for name, kind in KINDS.items()
    },
    **{
        name: Recipe(
            f"small network, {title}", True, True, partial(beside, name), kind, 3, labelled_only="supervised"
        )
        for name, (kind, title) in PRETEXTS.items()
    },
    "mpl": Recipe(
        "small network, Meta Pseudo Labels",
        True,
        True,
        meta_pseudo_labels,
        MetaPseudoLabels,
        3,
        META,
        "supervised",
    ),
    "mpl-reduced": Recipe(
        "small network, Meta Pseudo Labels from a stored teacher",
        True,
        True,
        reduced_meta_pseudo_labels,
        ReducedMetaPseudoLabels,
        3,
        labelled_only="supervised",
    ),
    "noisy-student": Recipe(
        "small networks, Noisy Student",
        True,
        True,
        noisy_student,
        NoisyStudent,
        3,
        labelled_only="supervised",
    ),
    "distill": Recipe(
        "small network, taught by a larger one",
        True,
        True,
        taught_by_own,
        Distillation,
        6,
        labelled_only="supervised",
        candidate=False,
    ),
    "fine-tune": Recipe("fine-tuning", False, True, tune, Supervised, 20),
    "fine-tune-pseudo": Recipe(
        "fine-tuning, propagated pseudo-labels",
        True,
        True,
        tune_self_training,
        PseudoLabel,
        20,
        TAUGHT,
        "fine-tune",
        taught=True,
    ),
}


def find(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        UsageError: there is none; the nearest one is named.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, [*RECIPES, "auto"], n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(f"there is no recipe '{name}'", fix=f"{hint}Known: auto, {', '.join(RECIPES)}")
    return RECIPES[name]


def spaces_for(task: Task) -> tuple[str, ...]:
    """Feature spaces worth trying, best guess first: photographs suit pretrained features, and so do small pictures
    in colour; gray ones may suit their own pixels better."""
    by_kind = {"photo": ("lite0",), "small colour": ("lite0", "pixels"), "small": ("pixels", "lite0")}
    return by_kind[task.kind]


def usual_space(name: str, task: Task) -> str:
    """The space of a recipe where none is asked for; there is nothing to fine-tune in pixels, and a network that only
    labels teach looks at nothing else."""
    if name == "supervised":
        return "pixels"
    return "lite0" if name.startswith("fine-tune") else spaces_for(task)[0]


def check_space(recipe: str, on: str) -> None:
    """Raises UsageError where a recipe cannot work on the features named ``on`` ("": its usual ones)."""
    if not on:
        return
    if recipe == "auto":
        raise UsageError(
            "features need a recipe of their own: auto looks at several", fix="give --recipe NAME too"
        )
    if on != "pixels" and ":" not in on:
        find_backbone(on)
    if recipe == "supervised" and on != "pixels":
        raise UsageError(
            "supervised training looks at the pictures alone, and at no features", fix="leave them out"
        )


def candidates(task: Task) -> list[Candidate]:
    """What the automatic choice tries, cheapest first."""
    cheap = [Candidate(name, on) for on in spaces_for(task) for name, r in RECIPES.items() if r.cheap]
    costly = ["fine-tune", "fine-tune-pseudo"] if task.photographs else ["supervised", "fixmatch"]
    return cheap + [Candidate(name, usual_space(name, task)) for name in costly]


def asked(
    recipe: str, on: str, method: Mapping[str, Any] | None, training: Mapping[str, Any] | None
) -> Candidate | None:
    """What a user asks for by name, with the fields that he changes; None for "auto".

    Raises:
        UsageError: there is no such recipe, space or field, or these are settings that nobody would read.
    """
    check_space(recipe, on)
    if recipe == "auto":
        if method or training:
            raise UsageError(
                "method and training options need a recipe of their own", fix="give --recipe NAME too"
            )
        return None
    row = find(recipe)
    made = row.make(**method) if method else None
    changed(Training(), training or {}, "training")
    if training and not row.trains:
        raise UsageError(
            f"recipe '{recipe}' trains no network: training options mean nothing to it",
            fix="leave them out, or choose another --recipe",
        )
    return Candidate(recipe, on, made, training or {})


def fit_candidate(
    candidate: Candidate, task: Task, workshop: Workshop, *, stage: str = "", seconds: float | None = None
) -> Fitted:
    """Train a candidate.

    Args:
        stage: names its stages in the log and the plan; by default after the recipe.
        seconds: of training, where the candidate's own settings say nothing of time or steps.
    """
    row, training = find(candidate.recipe), None
    if row.trains:
        base = tuning(candidate.on) if candidate.recipe.startswith("fine-tune") else small_training(task)
        given = {} if seconds is None else {"seconds": seconds}
        training = changed(base, {**given, **candidate.training}, "training")
    return row.run(
        task, workshop, on=candidate.on, method=candidate.method, training=training,
        stage=stage or candidate.recipe,
    )  # fmt: skip
