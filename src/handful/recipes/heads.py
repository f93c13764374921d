"""A head on frozen features, solved from the labelled pictures alone (transfer learning, approach 1)."""

from __future__ import annotations

from handful.recipes.feature_space import fitted_head, space
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Workshop


def head_alone(stage: Stage, workshop: Workshop) -> Fitted:
    """The recipe of every head that only labels teach."""
    task, features = stage.task, space(stage.task, workshop, stage.on)
    head = stage.method.fit(features.table[task.labelled], task.y, task.n_classes)
    return fitted_head(features, head)
