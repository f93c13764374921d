"""Were the pseudo-labels right? What the chosen recipe made of the unlabelled pictures, checked on labelled ones.

Nobody knows the truth about unlabelled pictures. So labelled pictures are put among them, fold by fold, and what the
same teacher says of those is compared with their labels.

Legend: m unlabelled pictures, n labelled ones, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handful.choose.auto import Outcome
from handful.recipes.label_propagation import teacher_for, teacher_targets
from handful.recipes.task import Task, Workshop

BY_TEACHER = "Label propagation gave them."
BY_CHAIN = "The network of each round gives them to the next one; what the last one says, nobody learned."
BY_ITSELF = "The network gives them itself while it learns; shown are its answers at the end."


@dataclass(frozen=True)
class PseudoLabels:
    """What became of the unlabelled pictures.

    Attributes:
        p: probabilities [m, K] that were learned from (where the recipe makes them as it goes: the last ones).
        threshold: those less sure were not used.
        checked: probabilities [n, K] of labelled pictures that were treated as unlabelled, with their classes
            ``truth`` [n]; None where no class has a second label.
        note: who gave them.
    """

    p: Tensor
    threshold: float
    checked: Tensor | None
    truth: Tensor | None
    note: str


def pseudo_labels(task: Task, workshop: Workshop, outcome: Outcome) -> PseudoLabels | None:
    """Of the recipe that ships; None where it uses no unlabelled pictures."""
    trial = outcome.trials[outcome.chosen]
    if not trial.recipe.uses_unlabelled or not len(task.unlabelled):
        return None
    method = trial.recipe.method_for(task, trial.candidate.method)
    threshold = method.least_confidence
    if not trial.recipe.taught:
        checked = None if trial.logits is None else (trial.logits / outcome.temperature).softmax(1)
        p = outcome.probabilities(task.unlabelled)
        note = BY_CHAIN if trial.rounds else BY_ITSELF
        return PseudoLabels(p, threshold, checked, trial.truth, note)
    on = trial.candidate.on
    teacher = teacher_for(on) if trial.recipe.trains else method

    def targets(part: Task) -> Tensor:
        return teacher_targets(part, workshop, on=on, method=teacher)

    p = targets(task)
    if task.n_folds < 2:
        return PseudoLabels(p, threshold, None, None, BY_TEACHER)
    checked = torch.zeros(len(task.y), task.n_classes)
    for held in task.folds(task.n_folds):
        rows = task.labelled[held]
        part = replace(
            task,
            labelled=task.labelled[~held],
            y=task.y[~held],
            unlabelled=torch.cat([task.unlabelled, rows]),
        )
        checked[held] = targets(part)[-len(rows) :]
    return PseudoLabels(p, threshold, checked, task.y, BY_TEACHER)
