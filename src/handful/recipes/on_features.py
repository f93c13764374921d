"""The consistency family and Meta Pseudo Labels on frozen features: seconds a run.

Legend: N pictures, D features of length 1, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful import parallel
from handful.data.order import positions
from handful.engine import schedule
from handful.engine.assemble import Setup, assemble
from handful.engine.fit import fit
from handful.methods.supervised import Supervised
from handful.models.ema import EMA
from handful.models.heads import LinearHead
from handful.randomness import key, uniform
from handful.recipes.feature_space import fitted_head, space
from handful.recipes.label_propagation import propagated_head
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Workshop
from handful.types import Batch, Output

STEPS, BATCH, RATIO, RATE, DECAY, AVERAGE = 400, 32, 7, 0.3, 1e-4, 0.99


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
    """Batches of rows of a feature table. The weak view is the row as it is; every other view, that of the labelled
    rows too, has a share of its entries set to 0 and the others made larger (dropout), each row with random numbers of
    its own.

    Attributes:
        table: [N, D]; ``labelled`` [n] with classes ``y`` [n], and ``unlabelled`` [m], are row numbers.
        views: what the method wants to see: "x" (labelled), "weak", "strong", "weak_2".
        drop: share of entries that are set to 0.
    """

    table: Tensor
    labelled: Tensor
    y: Tensor
    unlabelled: Tensor
    views: Collection[str] = ("x", "weak", "strong")
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
        out = {
            "draw": torch.tensor(key(self.seed, self.stage, "method", step)),
            "x": self._dropped(self.table[self.labelled[i]], BATCH, step, "x"),
            "y": self.y[i],
            "index": self.labelled[i],
        }
        if others := [name for name in self.views if name != "x"]:
            j = self._rows(len(self.unlabelled), BATCH * RATIO, step, "unlabelled")
            u = self.table[self.unlabelled[j]]
            out["u_index"] = self.unlabelled[j]
            for name in others:
                out[name] = u if name == "weak" else self._dropped(u, BATCH * RATIO, step, name)
        return out

    def _rows(self, n: int, size: int, step: int, name: str) -> Tensor:
        return torch.from_numpy(positions(n, size, step, self.seed, self.stage, name)[parallel.rows(size)])

    def _dropped(self, x: Tensor, size: int, step: int, name: str) -> Tensor:
        u = uniform((size, x.shape[1]), self.seed, self.stage, name, step)[parallel.rows(size)]
        return x * (u >= self.drop) / (1 - self.drop)


def on_features(stage: Stage, workshop: Workshop) -> Fitted:
    """The linear head of label propagation goes on by a method, under dropout of the features.

    A few hundred steps of a single layer: no checkpoints, the whole takes seconds.
    """
    features = space(stage.task, workshop, stage.on)
    begun = propagated_head(stage.task, workshop, on=stage.on)
    head = LinearHead(features.table.shape[1], stage.task.n_classes)
    head.load_state_dict(begun.state_dict())
    kept = learnt(HeadAlone(head), stage, features.table, STEPS, RATE)
    steps, rate = stage.method.fine_tuning
    if steps:  # the student of Meta Pseudo Labels has seen no label yet
        kept = learnt(kept, stage.part("tuned", method=Supervised()), features.table, steps, rate)
    return fitted_head(features, kept.head)


def learnt(network: HeadAlone, stage: Stage, table: Tensor, steps: int, rate: float) -> HeadAlone:
    """The moving average of a head's weights over some steps of the stage's method on a feature table [N, D]."""
    task, method = stage.task, stage.method

    def sgd(role: str, model: nn.Module) -> torch.optim.SGD:
        groups = [{"params": list(model.parameters()), "lr": rate, "base_lr": rate}]
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=DECAY)

    state, update = assemble(
        method, {"student": network.requires_grad_()}, sgd, Setup(task.seed, stage.name, average=AVERAGE),
        n_classes=task.n_classes, unlabelled=task.unlabelled,
    )  # fmt: skip
    state.schedules = dict.fromkeys(method.trains, schedule.cosine(steps))
    stream = FeatureStream(
        table, task.labelled, task.y, task.unlabelled, tuple(method.views), seed=task.seed, stage=stage.name
    )
    fit(state, update, stream, steps=steps)
    average = state.models["average"]
    assert isinstance(average, EMA) and isinstance(average.module, HeadAlone)
    return average.module
