"""A head on frozen features, solved from the labelled pictures alone (transfer learning, approach 1)."""

from __future__ import annotations

from handful.methods.base import Head
from handful.methods.probe import LogisticRegression
from handful.recipes.feature_space import fitted_head, space
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop


def head_alone(stage: Stage, workshop: Workshop) -> Fitted:
    """The recipe of every head that only labels teach."""
    return probe(stage.task, workshop, on=stage.on, method=stage.method)


def probe(task: Task, workshop: Workshop, *, on: str, method: Head | None = None) -> Fitted:
    """A head on frozen features from the labelled pictures alone."""
    features = space(task, workshop, on)
    head = (method or LogisticRegression()).fit(features.table[task.labelled], task.y, task.n_classes)
    return fitted_head(features, head)
