"""How right would the other candidates have been on the test part? Asked after the choice, for the report alone."""

from __future__ import annotations

from torch import Tensor

from handful.choose.auto import Outcome
from handful.recipes.table import fit_candidate
from handful.recipes.task import Task, Workshop


def accuracy_afterwards(
    task: Task, workshop: Workshop, outcome: Outcome, rows: Tensor, y: Tensor
) -> dict[str, float]:
    """Test accuracy of every measured candidate that takes seconds, trained on all labelled pictures; not of the
    chosen one, whose answers are there already, nor of networks, which would have to be trained again.

    Args:
        rows: row numbers of the test part [n], with classes ``y`` [n].
    """
    if not len(rows):
        return {}
    found = {}
    for key, trial in outcome.trials.items():
        if key != outcome.chosen and trial.right is not None and not trial.recipe.trains:
            fitted = fit_candidate(trial.candidate, task, workshop)
            found[key] = float((fitted.logits(rows).argmax(1) == y).double().mean())
    return found
