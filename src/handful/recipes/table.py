"""The recipes by name: one explicit table, which the automatic choice and the command line read.

A recipe is a plain function of a ``Stage`` and a workshop; a row says what it needs and what it costs. The recipes of
single methods follow from the registry of methods (``methods.table``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from handful.methods.base import Settings
from handful.methods.label_propagation import LabelPropagation
from handful.methods.probe import ClassMean, LogisticRegression, Neighbours
from handful.methods.table import CONSISTENCY, PRETEXT, REGISTRY
from handful.models.backbones import find as find_backbone
from handful.recipes.candidate import Candidate
from handful.recipes.consistency import from_first_student
from handful.recipes.distill import taught_by_own
from handful.recipes.fine_tune import fine_tune, fine_tune_pseudo
from handful.recipes.heads import head_alone
from handful.recipes.label_propagation import propagation, propagation_for
from handful.recipes.meta_pseudo_labels import meta_pseudo_labels, reduced_meta_pseudo_labels
from handful.recipes.noisy_student import NoisyStudent, noisy_student
from handful.recipes.on_features import on_features
from handful.recipes.self_training import self_training
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import Training, small_training, tuning
from handful.types import UsageError, did_you_mean

T = TypeVar("T")
VALUES: dict[Any, tuple[tuple[type, ...], str]] = {  # by annotation: what a value may be
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a word"),
}
TAUGHT: dict[str, Any] = {"threshold": 0.0}  # a teacher's labels are used all
EVERY = ("photo", "small colour", "small")  # kinds of pictures (``Task.kind``)
SMALL = EVERY[1:]


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        title: the field's name for it; ``words``: the same in plain words, to stand beside it.
        algorithm: what it does, a stage at a time.
        method: the dataclass whose fields are ``--method.…`` on the command line.
        defaults: fields of ``method`` that this recipe sets otherwise.
        uses_unlabelled: whether it looks at unlabelled pictures.
        trains: whether a network is trained (seconds to minutes) or only a head is solved for (less).
        pretrained: whether that network starts from published weights: those of the features that it works on.
        on: the feature space that it works on where none is asked for; "" takes the best guess for the pictures.
        least_seconds: a training run shorter than this is not worth starting in the automatic choice.
        labelled_only: the recipe that does the same with the labelled pictures alone: its fair baseline.
        tried_on: kinds of pictures on which the automatic choice tries it: what it reaches there is in the prior.
        taught: it learns from the labels that label propagation gives the unlabelled pictures.
    """

    title: str
    words: str
    algorithm: Callable[[Stage, Workshop], Fitted]
    method: type[Settings]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    uses_unlabelled: bool = True
    trains: bool = True
    pretrained: bool = False
    on: str = ""
    least_seconds: float = 3.0
    labelled_only: str = "supervised"
    tried_on: tuple[str, ...] = ()
    taught: bool = False

    @property
    def cheap(self) -> bool:
        """Whether it takes a second, and the automatic choice tries it always."""
        return not self.trains and self.tried_on == EVERY

    def make(self, **changes: Any) -> Any:
        """The recipe's method with some fields changed.

        Raises:
            UsageError: there is no such field; the nearest one is named.
        """
        return changed(self.method(**self.defaults), changes, "method")

    def method_for(self, task: Task, changes: Any = None) -> Any:
        """The same for a task, on which defaults may depend: label propagation has others on photographs.

        Args:
            changes: fields that differ, or the whole method.
        """
        if isinstance(changes, Settings):
            return changes
        own = propagation_for(task) if self.method is LabelPropagation else self.make()
        return changed(own, changes or {}, "method")

    def space(self, task: Task) -> str:
        """The feature space where none is asked for."""
        return self.on or spaces_for(task)[0]

    def run(
        self, task: Task, workshop: Workshop, *, on: str, stage: str, method: Any = None, training: Any = None
    ) -> Fitted:
        """The classifier that it makes of a task.

        Args:
            on: the feature space.
            stage: names its stages.
            method: its method, or the fields in which that differs.
            training: how its network is trained, or the fields in which that differs.
        """
        method = self.method_for(task, method)
        if not isinstance(training, Training):
            usual = tuning(on) if self.pretrained else small_training(task)
            training = changed(usual, training or {}, "training")
        return self.algorithm(Stage(stage, task, method, training, on), workshop)


def changed(base: T, changes: Mapping[str, Any], prefix: str) -> T:
    """A dataclass with some fields changed.

    Raises:
        UsageError: there is no such field, and the nearest one is named; or it cannot have such a value.
    """
    names = [f.name for f in fields(base)]  # type: ignore[arg-type]
    for name in changes:
        if name not in names:
            fix = f"{did_you_mean(name, names)} Known: {', '.join(names)}".strip()
            raise UsageError(f"there is no option '{prefix}.{name}'", fix=fix)
    for f in fields(base):  # type: ignore[arg-type]
        if f.name in changes and f.type in VALUES:
            value, (kinds, words) = changes[f.name], VALUES[f.type]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise UsageError(f"option '{prefix}.{f.name}' cannot be {value!r}", fix=f"give {words}")
    return replace(base, **changes)  # type: ignore[type-var]


def head(title: str, words: str, method: type[Settings]) -> Recipe:
    """A head that only labels teach."""
    return Recipe(
        title,
        words,
        head_alone,
        method,
        uses_unlabelled=False,
        trains=False,
        labelled_only="",
        tried_on=EVERY,
    )


NAMES = {"meta-pseudo-labels": "mpl"}  # of recipes, where the method's is another one
SMALL_NETWORK, PRETRAINED, FROZEN = "(small network)", "(pretrained network)", "(frozen features)"
SELF = REGISTRY["pseudo-label"]

RECIPES: dict[str, Recipe] = {
    "logistic": head("logistic regression", "a linear classifier on frozen features", LogisticRegression),
    "nearest-mean": head("nearest class mean", "the class whose average feature is nearest", ClassMean),
    "knn": head("k nearest neighbours", "the labels of the most similar labelled pictures", Neighbours),
    "propagation": Recipe(
        "label propagation", "labels spread over a graph of similar pictures; then a linear classifier", propagation,
        LabelPropagation, trains=False, labelled_only="logistic", tried_on=EVERY, taught=True,
    ),
    **{
        f"{NAMES.get(name, name)}-features": Recipe(
            f"{row.title} {FROZEN}", row.words, on_features, row.method, row.features, trains=False,
            labelled_only="logistic",
        )
        for name, row in REGISTRY.items() if row.features is not None
    },
    "supervised": Recipe(
        f"supervised {SMALL_NETWORK}", REGISTRY["supervised"].words, train_network, REGISTRY["supervised"].method,
        uses_unlabelled=False, on="pixels", labelled_only="", tried_on=SMALL,
    ),
    "pseudo-label": Recipe(
        f"self-training {SMALL_NETWORK}", "pseudo-labels by label propagation, then by the network itself",
        self_training, SELF.method, TAUGHT, taught=True,
    ),
    "pseudo-label-self": Recipe(
        f"{SELF.title} {SMALL_NETWORK}", SELF.words, train_network, SELF.method, SELF.small
    ),
    **{
        name: Recipe(
            f"{row.title} {SMALL_NETWORK}", row.words, from_first_student, row.method, row.small,
            tried_on=SMALL if name == "fixmatch" else (),
        )
        for name, row in REGISTRY.items() if row.family == CONSISTENCY
    },
    **{
        name: Recipe(
            f"{row.title} as an auxiliary task {SMALL_NETWORK}", f"{row.words}, beside the labels", train_network,
            row.method, row.small,
        )
        for name, row in REGISTRY.items() if row.family == PRETEXT
    },
    "mpl": Recipe(
        f"{REGISTRY['meta-pseudo-labels'].title} {SMALL_NETWORK}", REGISTRY["meta-pseudo-labels"].words,
        meta_pseudo_labels, REGISTRY["meta-pseudo-labels"].method, REGISTRY["meta-pseudo-labels"].small,
    ),
    "mpl-reduced": Recipe(
        f"{REGISTRY['reduced-mpl'].title} {SMALL_NETWORK}", REGISTRY["reduced-mpl"].words,
        reduced_meta_pseudo_labels, REGISTRY["reduced-mpl"].method,
    ),
    "noisy-student": Recipe(
        f"Noisy Student {SMALL_NETWORK}", "each student, under noise, learns the labels of the one before",
        noisy_student, NoisyStudent,
    ),
    "distill": Recipe(
        f"{REGISTRY['distillation'].title} {SMALL_NETWORK}", REGISTRY["distillation"].words, taught_by_own,
        REGISTRY["distillation"].method, least_seconds=6.0,
    ),
    "fine-tune": Recipe(
        f"fine-tuning {PRETRAINED}", "every layer, on the labelled pictures alone", fine_tune,
        REGISTRY["supervised"].method, uses_unlabelled=False, pretrained=True, on="lite0", least_seconds=20.0,
        labelled_only="", tried_on=("photo",),
    ),
    "fine-tune-pseudo": Recipe(
        f"fine-tuning with pseudo-labels {PRETRAINED}", "label propagation labels the unlabelled pictures first",
        fine_tune_pseudo, SELF.method, TAUGHT, pretrained=True, on="lite0", least_seconds=20.0,
        labelled_only="fine-tune", tried_on=("photo",), taught=True,
    ),
}  # fmt: skip


def find(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        UsageError: there is none; the nearest one is named.
    """
    if name not in RECIPES:
        fix = f"{did_you_mean(name, [*RECIPES, 'auto'])} Known: auto, {', '.join(RECIPES)}".strip()
        raise UsageError(f"there is no recipe '{name}'", fix=fix)
    return RECIPES[name]


def spaces_for(task: Task) -> tuple[str, ...]:
    """Feature spaces worth trying, best guess first: photographs suit pretrained features, and so do small pictures
    in colour; gray ones may suit their own pixels better."""
    by_kind = {"photo": ("lite0",), "small colour": ("lite0", "pixels"), "small": ("pixels", "lite0")}
    return by_kind[task.kind]


def check_space(recipe: str, on: str) -> None:
    """Raises UsageError where a recipe cannot work on the features named ``on``."""
    if recipe == "auto":
        raise UsageError(
            "features need a recipe of their own: auto looks at several", fix="give --recipe NAME too"
        )
    if on != "pixels" and ":" not in on:
        find_backbone(on)
    if find(recipe).on == "pixels" != on:
        raise UsageError(
            f"{recipe} training looks at the pictures alone, and at no features", fix="leave them out"
        )


def candidates(task: Task) -> list[Candidate]:
    """What the automatic choice tries, cheapest first."""
    tried = {name: recipe for name, recipe in RECIPES.items() if task.kind in recipe.tried_on}
    cheap = [Candidate(name, on) for on in spaces_for(task) for name, row in tried.items() if not row.trains]
    return cheap + [Candidate(name, row.space(task)) for name, row in tried.items() if row.trains]


def asked(
    recipe: str, on: str, method: Mapping[str, Any] | None, training: Mapping[str, Any] | None
) -> Candidate | None:
    """What a user asks for by name, with the fields that he changes; None for "auto".

    Raises:
        UsageError: there is no such recipe, space or field, or these are settings that nobody would read.
    """
    if on:
        check_space(recipe, on)
    if recipe == "auto":
        if method or training:
            raise UsageError(
                "method and training options need a recipe of their own", fix="give --recipe NAME too"
            )
        return None
    row = find(recipe)
    row.make(**(method or {}))
    changed(Training(), training or {}, "training")
    if training and not row.trains:
        raise UsageError(
            f"recipe '{recipe}' trains no network: training options mean nothing to it",
            fix="leave them out, or choose another --recipe",
        )
    return Candidate(recipe, on, method or {}, training or {})


def fit_candidate(
    candidate: Candidate, task: Task, workshop: Workshop, *, stage: str = "", seconds: float | None = None
) -> Fitted:
    """Train a candidate.

    Args:
        stage: names its stages in the log and the plan; by default after the recipe.
        seconds: of training, where the candidate's own settings say nothing of time or steps.
    """
    training = candidate.training if seconds is None else {"seconds": seconds, **candidate.training}
    return find(candidate.recipe).run(
        task,
        workshop,
        on=candidate.on,
        stage=stage or candidate.recipe,
        method=candidate.method,
        training=training,
    )
