"""The consistency family and Meta Pseudo Labels on frozen features: seconds a run.

Legend: N pictures, D features of length 1, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handful import parallel
from handful.data.order import positions
from handful.engine import schedule
from handful.engine.fit import fit
from handful.engine.state import State
from handful.engine.update import average, update_of
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.supervised import Supervised
from handful.models.ema import EMA
from handful.models.heads import LinearHead
from handful.randomness import key, uniform
from handful.recipes.matching import KINDS, Kind
from handful.recipes.self_training import META, substage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import extra_roles
from handful.recipes.transfer import fitted_head, propagated_head, space
from handful.types import Batch, Output

STEPS, BATCH, RATIO, RATE, DECAY = 400, 32, 7, 0.3, 1e-4
OWN: dict[str, dict[str, Any]] = {  # in which a recipe on features differs from the method's class
    "vat": {"radius": 0.003, "probe": 0.0003},  # the entries of a row of 1280 have a root mean square of 0.03
    "pi-model": {"weight": 1.0},
    "mean-teacher": {"weight": 10.0},
    "mixmatch": {"ramp_steps": 200},
    "uda": {"align": True},
    "fixmatch": {"threshold": 0.8, "align": True},
}
ON_FEATURES: dict[str, Kind] = {
    "pseudo-label": Kind(PseudoLabel, "its own pseudo-labels", {"threshold": 0.95}),
    **{name: Kind(kind.method, kind.title, OWN.get(name, {})) for name, kind in KINDS.items()},
    "mpl": Kind(
        MetaPseudoLabels, "Meta Pseudo Labels", {**META, "uda_weight": 0.0, "smoothing": 0.0, "tune_lr": 0.1}
    ),
}


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


def on_features(
    name: str,
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Any = None,
    stage: str = "",
    **_: object,
) -> Fitted:
    """The linear head of label propagation goes on by a method, under dropout of the features.

    A few hundred steps of a single layer: no checkpoints, the whole takes seconds.
    """
    method, stage = (
        method or ON_FEATURES[name].method(**ON_FEATURES[name].defaults),
        stage or f"{name}-features",
    )
    features = space(task, workshop, on)
    begun = propagated_head(task, workshop, on=on)
    head = LinearHead(features.table.shape[1], task.n_classes)
    head.load_state_dict(begun.state_dict())
    kept = _learnt(HeadAlone(head), method, features.table, task, STEPS, RATE, stage)
    if steps := getattr(method, "tune_steps", 0):  # the student of Meta Pseudo Labels has seen no label yet
        kept = _learnt(
            kept, Supervised(), features.table, task, steps, method.tune_lr, substage(stage, "tuned")
        )
    return fitted_head(features, kept.head)


def _learnt(
    network: HeadAlone, method: Any, table: Tensor, task: Task, steps: int, rate: float, stage: str
) -> HeadAlone:
    """The moving average of a head's weights over some steps of a method."""
    models: dict[str, nn.Module] = {"student": network.requires_grad_()}
    models |= extra_roles(method, network, task.n_classes, task.unlabelled)
    models["average"] = kept = EMA(network, 0.99)
    followers = [role for role, model in models.items() if isinstance(model, EMA)]
    trained = getattr(method, "trains", ("student",))
    models |= {role: parallel.wrap(models[role]) for role in trained}
    optimizers: dict[str, torch.optim.Optimizer] = {role: _sgd(models[role], rate) for role in trained}
    state = State(models, optimizers, schedule.cosine(steps), seed=task.seed, stage=stage)
    stream = FeatureStream(
        table, task.labelled, task.y, task.unlabelled, tuple(method.views), seed=task.seed, stage=stage
    )
    fit(state, update_of(method, after=[average(role=role) for role in followers]), stream, steps=steps)
    learnt = kept.module
    assert isinstance(learnt, HeadAlone)
    return learnt


def _sgd(module: nn.Module, rate: float) -> torch.optim.SGD:
    groups = [{"params": list(module.parameters()), "lr": rate, "base_lr": rate}]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=DECAY)
