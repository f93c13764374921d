"""Consistency training of a small network: a first student that label propagation taught, then the method itself."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from handful.methods.pseudo_label import PseudoLabel
from handful.methods.supervised import Supervised
from handful.randomness import digest
from handful.recipes.label_propagation import teacher_for, teacher_targets
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import shortened

SHARE = 0.5  # of the steps that a first student gets
SLOWER = 0.4  # factor on the learning rate after it: a full rate would undo the start


def from_first_student(stage: Stage, workshop: Workshop) -> Fitted:
    """``SHARE`` of the steps (or of the time) go to a first student, the rest to the method from its weights.

    What the first student learns is ``start`` of the training: the labels of label propagation ("propagation"), the
    labelled pictures alone ("supervised"), or there is none ("random"). It sees the labelled pictures as the method
    does.
    """
    training = stage.training
    if training.start == "random":
        return train_network(stage, workshop)
    first = shortened(training, SHARE)
    rest = replace(
        training,
        seconds=training.seconds - first.seconds,
        steps=training.steps and max(1, training.steps - first.steps),
        max_steps=training.max_steps and max(1, training.max_steps - first.max_steps),
        lr=training.lr * SLOWER,
    )
    view = stage.method.view
    if training.start == "supervised":
        begin = stage.part("start", training=first, method=Supervised(view=view))
    else:
        labels = teacher_targets(stage.task, workshop, on=stage.on, method=teacher_for(stage.on))
        taught = PseudoLabel(threshold=0.0, view=view)
        begin = stage.part("start", training=first, method=taught, tables={"target": labels})
    return continued(train_network(begin, workshop), replace(stage, training=rest), workshop)


def continued(fitted: Fitted, stage: Stage, workshop: Workshop) -> Fitted:
    """Another stage of training, from the weights of ``fitted``."""
    weights = {name: value.clone() for name, value in fitted.classifier.backbone.state_dict().items()}
    origin = digest(torch.cat([value.flatten().double().cpu() for value in weights.values()]))

    def start(network: nn.Module) -> None:
        network.load_state_dict(weights)

    return train_network(replace(stage, start=start, origin=origin), workshop)
