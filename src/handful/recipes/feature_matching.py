"""FixMatch and its kin on frozen features: seconds a run.

Legend: N pictures, D features of length 1, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handful import parallel
from handful.data.order import positions
from handful.engine import schedule
from handful.engine.fit import fit
from handful.engine.state import State
from handful.engine.update import average, descend
from handful.methods.fixmatch import FixMatch
from handful.models.ema import EMA
from handful.models.heads import LinearHead
from handful.randomness import uniform
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.transfer import fitted_head, propagated_head, space
from handful.types import Batch, Output

STEPS, BATCH, RATIO, RATE, DECAY = 400, 32, 7, 1.0, 1e-4
ON_FEATURES: dict[str, Any] = {"threshold": 0.8, "align": True}


class HeadAlone(nn.Module):
    """Features to ``Output``: what a method sees in place of a network."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Output:
        """features [B, D]."""
        return Output(features, self.head(features))


@dataclass(frozen=True)
class FeatureStream:
    """Batches of rows of a feature table. A weak view is the row as it is; a strong one, and the labelled rows, have a
    share of their entries set to 0 and the others made larger (dropout), each row with random numbers of its own.

    Attributes:
        table: [N, D]; ``labelled`` [n] with classes ``y`` [n], and ``unlabelled`` [m], are row numbers.
        drop: share of entries that are set to 0.
    """

    table: Tensor
    labelled: Tensor
    y: Tensor
    unlabelled: Tensor
    drop: float = 0.5
    seed: int = 0
    stage: str = "features"

    def batches(self, start: int) -> Iterator[Batch]:
        step = start
        while True:
            yield self.at(step)
            step += 1

    def at(self, step: int) -> dict[str, Tensor]:
        """The batch of one step; this rank's slice of it."""
        i = self._rows(len(self.labelled), BATCH, step, "labelled")
        j = self._rows(len(self.unlabelled), BATCH * RATIO, step, "unlabelled")
        u = self.table[self.unlabelled[j]]
        return {
            "x": self._dropped(self.table[self.labelled[i]], BATCH, step, "x"),
            "y": self.y[i],
            "index": self.labelled[i],
            "weak": u,
            "strong": self._dropped(u, BATCH * RATIO, step, "strong"),
            "u_index": self.unlabelled[j],
        }

    def _rows(self, n: int, size: int, step: int, name: str) -> Tensor:
        return torch.from_numpy(positions(n, size, step, self.seed, self.stage, name)[parallel.rows(size)])

    def _dropped(self, x: Tensor, size: int, step: int, name: str) -> Tensor:
        u = uniform((size, x.shape[1]), self.seed, self.stage, name, step)[parallel.rows(size)]
        return x * (u >= self.drop) / (1 - self.drop)


def on_features(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Any = None,
    stage: str = "fixmatch-features",
    **_: object,
) -> Fitted:
    """The linear head of label propagation goes on with its own confident answers, under dropout of the features.

    A few hundred steps of a single layer: no checkpoints, the whole takes seconds.
    """
    method = method or FixMatch(**ON_FEATURES)
    features = space(task, workshop, on)
    begun = propagated_head(task, workshop, on=on)
    head = LinearHead(features.table.shape[1], task.n_classes)
    head.load_state_dict(begun.state_dict())
    network = HeadAlone(head)
    models: dict[str, nn.Module] = {"student": network}
    models |= method.roles(network, task.n_classes, task.unlabelled) if hasattr(method, "roles") else {}
    models["average"] = kept = EMA(network, 0.99)
    followers = [role for role, model in models.items() if isinstance(model, EMA)]
    models["student"] = parallel.wrap(network)
    groups = [{"params": list(network.parameters()), "lr": RATE, "base_lr": RATE}]
    sgd = torch.optim.SGD(groups, lr=RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    state = State(models, {"student": sgd}, schedule.cosine(STEPS), seed=task.seed, stage=stage)
    stream = FeatureStream(
        features.table, task.labelled, task.y, task.unlabelled, seed=task.seed, stage=stage
    )
    fit(state, descend(method, after=[average(role=role) for role in followers]), stream, steps=STEPS)
    learnt: Any = kept.module
    return fitted_head(features, learnt.head)
