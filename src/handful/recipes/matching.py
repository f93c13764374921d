"""Consistency training from scratch: a first student that label propagation taught, then the method itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from handful.methods.pseudo_label import PseudoLabel
from handful.methods.supervised import Supervised
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, train_network
from handful.recipes.transfer import teacher_for, teacher_targets


def warm_started(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Any,
    training: Training,
    stage: str,
    first: str = "propagation",
    share: float = 0.5,
    slower: float = 0.4,
) -> Fitted:
    """``share`` of the steps (or of the time) go to a first student, the rest to ``method`` from its weights.

    Args:
        first: "propagation": the student learns label propagation's labels; "supervised": the labelled pictures
            alone, strongly augmented; "": there is none.
        slower: factor on the learning rate after the start, which a full rate would undo.
        stage: "name/fold" or "name".
    """
    if not first:
        return train_network(task, workshop, method, training, stage=stage)
    name, slash, fold = stage.partition("/")
    part = replace(
        training,
        seconds=training.seconds * share,
        steps=round(training.steps * share),
        max_steps=round(training.max_steps * share),
    )
    rest = replace(
        training,
        seconds=training.seconds - part.seconds,
        steps=training.steps - part.steps,
        max_steps=training.max_steps - part.max_steps,
        lr=training.lr * slower,
    )
    taught = first == "propagation"
    begun = train_network(
        task,
        workshop,
        PseudoLabel(threshold=0.0) if taught else Supervised(),
        part,
        stage=f"{name}-start{slash}{fold}",
        teacher=teacher_targets(task, workshop, on=on, method=teacher_for(on)) if taught else None,
    )
    weights = {k: v.clone() for k, v in begun.classifier.backbone.state_dict().items()}

    def start(network: nn.Module) -> None:
        network.load_state_dict(weights)

    return train_network(task, workshop, method, rest, stage=stage, start=start)
