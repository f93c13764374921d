"""What a recipe is given, what it gives back, and the workshop it works in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.data.images import Images
from handful.data.split import fold_count, folds
from handful.models.classifier import Classifier

RESERVE = 0.85  # of a run's time is given to candidates; the rest is for predictions and the report


@dataclass(frozen=True)
class Task:
    """Pictures, of which some are labelled. Test labels are not in here: no recipe can see them.

    Attributes:
        images: every picture of the run.
        labelled: row numbers, int64 [n], with class numbers ``y`` int64 [n].
        unlabelled: row numbers, int64 [m].
        held_out: row numbers of labelled pictures that are kept back for measuring; a recipe may look at the
            pixels (they are unlabelled to it) but must not train on them.
        classes: names.
        seed: of every random draw.
    """

    images: Images
    labelled: Tensor
    y: Tensor
    unlabelled: Tensor
    classes: tuple[str, ...]
    held_out: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    seed: int = 0

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def photographs(self) -> bool:
        """Colour pictures large enough for features that were learnt on photographs."""
        return self.images.channels == 3 and self.images.side >= 64

    @property
    def kind(self) -> str:
        """Which data sets it is like, in the prior of the automatic choice: "photo", "small colour" or "small"."""
        if self.photographs:
            return "photo"
        return "small colour" if self.images.channels == 3 else "small"

    def pool(self) -> Tensor:
        """All rows that are not test or validation, sorted."""
        return torch.cat([self.labelled, self.unlabelled, self.held_out]).sort().values

    @property
    def fewest(self) -> int:
        """Labels of the rarest class."""
        return int(torch.bincount(self.y, minlength=self.n_classes).min())

    @property
    def n_folds(self) -> int:
        """Folds of a cross-validation on the labelled pictures; under 2 there can be none."""
        return fold_count(self.y.numpy(), self.n_classes)

    def folds(self, n_folds: int, repeat: int = 0, seed: int | None = None) -> list[Tensor]:
        """A round of stratified cross-validation: of each fold the labelled pictures that it holds out, bool [n].

        Args:
            repeat: number of the round.
            seed: instead of the task's.
        """
        seed = self.seed if seed is None else seed
        fold_of = torch.from_numpy(folds(self.y.numpy(), n_folds, repeat + 1, seed)[repeat])
        return [fold_of == fold for fold in range(n_folds)]

    def without(self, fold: Tensor) -> Task:
        """The same task with the labelled pictures where ``fold`` (bool [n]) is true held out."""
        held = torch.cat([self.held_out, self.labelled[fold]])
        return replace(self, labelled=self.labelled[~fold], y=self.y[~fold], held_out=held)


@dataclass(frozen=True)
class Validation:
    """Labelled pictures that are kept for choosing: row numbers and classes."""

    rows: Tensor
    y: Tensor


@dataclass(frozen=True)
class Fitted:
    """A classifier, and a quick way to its logits for pictures of the task (cached features, where it can).

    Attributes:
        logits: row numbers [n] to float32 [n, K], before the classifier's temperature.
        before: networks that taught this one, each the next, by name: their ``logits``.
        name: what this one is called among them.
        roles: every network and memory of the training as it ended, by role: the student itself (not its average), a
            teacher, a critic, a projection.
    """

    classifier: Classifier
    logits: Callable[[Tensor], Tensor]
    before: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()
    name: str = ""
    roles: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass
class Workshop:
    """Where the work is done: folders, device, log, and the plan that a resumed run obeys.

    Attributes:
        cache: the user's cache folder (feature tables).
        folder: the run's folder; stages keep their checkpoints below it.
        device: "cpu" or "cuda".
        feature_backend: which engine runs a frozen backbone ("auto", "torch", "onnxruntime", "openvino").
        log: takes stage, step and scalars.
        tell: takes a line for the person who waits.
        progress: takes what is being done, how much of it is done, and how much there is.
        labelled: takes a stage, row numbers and the classes that a teacher gave them: who knows the truth can count.
        plan: decisions that depend on the machine's speed (steps, precision, backends), by name.
        keep_plan: called after each addition to ``plan``.
        save_every: steps between checkpoints.
        compile: use ``torch.compile`` for networks that train.
        spaces: feature spaces made so far, by name and input size.
    """

    cache: Path
    folder: Path
    device: str = "cpu"
    feature_backend: str = "auto"
    log: Callable[[str, int, dict[str, float]], None] = lambda stage, step, scalars: None
    tell: Callable[[str], None] = lambda line: None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    labelled: Callable[[str, Tensor, Tensor], None] = lambda stage, rows, classes: None
    plan: dict[str, Any] = field(default_factory=dict)
    keep_plan: Callable[[], None] = lambda: None
    save_every: int = 50
    compile: bool = False
    spaces: dict[Any, Any] = field(default_factory=dict)

    def planned(self, name: str, decide: Callable[[], Any]) -> Any:
        """A decision taken once per run: what the plan says, or what ``decide`` says now (and is kept)."""
        if name not in self.plan:
            self.plan[name] = decide()
            self.keep_plan()
        return self.plan[name]
